"""Lower bounds on a layer's objective. Each says what it proves; docs/formulation.md has the arguments."""

from solvers.bounds.layer import Bound, layer_bound, link_bound, work_bound

__all__ = ["Bound", "layer_bound", "link_bound", "work_bound"]
