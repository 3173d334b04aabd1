"""What operators ask of a running gateway."""
