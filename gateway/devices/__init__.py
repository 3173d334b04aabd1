"""What announces itself as a device: names, units, where its values are, whether it is there, what it can be told."""
