"""Programs of their own: everything at once, a broker where none is installed, the end of a demo that was killed."""
