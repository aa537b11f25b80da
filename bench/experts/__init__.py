"""Measures the experts' products of every GPU of a plan on one device."""
