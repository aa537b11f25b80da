"""Checks of one role of a plan, in order: what can be derived again is derived."""

from __future__ import annotations

from collections.abc import Callable

from placement.check import figures, strategies, structure
from placement.check.case import PlanCase

_PLACED = ("layers[].physical_to_logical", "layers[].dispatch_fractions")
#: Name, check, and the fields that it leaves open where it can't be made.
CHECKS: tuple[tuple[str, Callable[[PlanCase], str], tuple[str, ...]], ...] = (
    ("split", structure.check_split, ()),
    ("topology", structure.check_topology, ()),
    ("stages", structure.check_stages, ()),
    ("placements", structure.check_placements, ()),
    ("baselines", strategies.check_baselines, ()),
    ("memory", structure.check_memory, ()),
    ("limits", figures.check_limits, ()),
    ("certificate", figures.check_certificate, ()),
    ("prediction", figures.check_prediction, ("predicted", "strategies[].tokens_per_s")),
    ("routing", figures.check_routing, ("provenance.routing", "provenance.inputs")),
    ("objectives", figures.check_objectives, ("layers[].objective", *_PLACED)),
    ("figures", figures.check_figures, ("strategies", *_PLACED)),
    ("batches", figures.check_batches, ("strategies[].at_own_batch", "binds", "largest_batch", "requests_per_s")),
    ("heuristics", strategies.check_heuristics, ("strategies[2].placements", "strategies[3].placements")),
    ("bounds", figures.check_bounds, ("layers[].bound",)),
)
#: Those that others rest on: where one fails, no figure is derived from the routing, and without a split nothing is.
BASE = ("split", "topology", "stages", "placements", "baselines", "routing")
