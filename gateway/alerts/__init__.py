"""Rules that watch the log: a condition or a silence, with a state of its own for each topic."""
