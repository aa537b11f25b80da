"""Compiled placement for loads alone: replication, packing, and local search of one window of loads."""
