"""One table of settings, and how it is read."""
