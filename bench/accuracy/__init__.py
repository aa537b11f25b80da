"""Predicted against measured serving: how far off the cost model is, and the fit of its constants."""
