"""Names of layer solvers. Each is imported when it is asked for, so that listing them costs nothing."""

from __future__ import annotations

import difflib
import importlib

from placement.errors import ParameterError
from solvers.base import LayerSolver

#: name -> (module, class)
SOLVERS: dict[str, tuple[str, str]] = {
    "hash": ("solvers.experts.heuristics.hash", "HashSolver"),
    "linear": ("solvers.experts.heuristics.linear", "LinearSolver"),
    "round_robin": ("solvers.experts.heuristics.round_robin", "RoundRobinSolver"),
    "greedy": ("solvers.experts.heuristics.greedy", "GreedySolver"),
    "eplb": ("solvers.experts.heuristics.eplb", "EplbSolver"),
    "search": ("solvers.experts.search.solver", "SearchSolver"),
    "cpsat": ("solvers.experts.cpsat.solver", "CpSatSolver"),
    "milp": ("solvers.experts.milp.solver", "MilpSolver"),
    "lns": ("solvers.experts.lns.solver", "LnsSolver"),
    "partition": ("solvers.experts.partition.solver", "PartitionSolver"),
    "auto": ("solvers.experts.auto", "AutoSolver"),
}
BASELINES = ("hash", "linear", "round_robin", "greedy", "eplb")


def get_solver(name: str) -> LayerSolver:
    """The solver called `name`.

    Raises:
        InputError: no solver has that name.
    """
    if name not in SOLVERS:
        near = difflib.get_close_matches(name, SOLVERS, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(SOLVERS)}"
        raise ParameterError("strategy", f"unknown strategy {name!r}", hint)
    module, attribute = SOLVERS[name]
    solver: LayerSolver = getattr(importlib.import_module(module), attribute)()
    return solver
