"""A device as a value, asked where it is."""
