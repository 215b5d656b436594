"""Using a model, one file a way to use it."""
