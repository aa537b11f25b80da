"""Solved training splits against hand recipes, and deployments against a rival planner, in the same cost model."""
