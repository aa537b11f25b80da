"""Lower bounds on a layer's objective. Each says what it proves; docs/formulation.md has the arguments."""

from solvers.bounds.layer import layer_bound as layer_bound
