"""How good placements are on routing that nobody solved on, against the load balancers' at the same slots."""
