"""The planning lab: every study is a pair, a baseline and an optimized side, priced by the planner's own scorer."""
