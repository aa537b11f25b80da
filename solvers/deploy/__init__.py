"""Which instances to run: columns of feasible instance configurations, and a master problem that chooses among them."""
