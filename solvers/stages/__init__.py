"""Cuts of a model's layers into pipeline stages, with recompute per layer."""
