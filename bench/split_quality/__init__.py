"""Solved splits and deployments against hand recipes and a rival planner, in the same cost model."""
