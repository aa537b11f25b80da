"""Predictions held against measurements, and the fit of the cost model's constants."""
