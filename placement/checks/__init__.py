"""Re-checks of placements and plans from outside; nothing here is shared with the solvers."""
