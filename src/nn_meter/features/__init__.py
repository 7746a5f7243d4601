"""Named, versioned column tables: what a regressor sees of a kernel."""
