"""The files that hold an expert map, one file an engine and version."""
