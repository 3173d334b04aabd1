"""Who may do what: principals, grants, origins, keys and tokens, and the limits that all are held to."""
