"""What each runtime makes of a graph."""
