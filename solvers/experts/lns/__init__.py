"""Large neighbourhood search: CP-SAT solves what a few free slots can hold, the rest of the placement stays."""
