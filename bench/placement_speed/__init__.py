"""Seconds, memory and gaps of expert placement by size."""
