"""Names of layer solvers. Each is imported when it is asked for, so that listing them costs nothing."""

from __future__ import annotations

import difflib
import importlib

from placement.errors import InputError
from solvers.base import LayerSolver

#: name -> (module, class)
SOLVERS: dict[str, tuple[str, str]] = {
    "hash": ("solvers.heuristics.hash", "HashSolver"),
    "linear": ("solvers.heuristics.linear", "LinearSolver"),
    "round_robin": ("solvers.heuristics.round_robin", "RoundRobinSolver"),
    "greedy": ("solvers.heuristics.greedy", "GreedySolver"),
    "eplb": ("solvers.heuristics.eplb", "EplbSolver"),
    "search": ("solvers.search.solver", "SearchSolver"),
    "cpsat": ("solvers.cpsat.solver", "CpSatSolver"),
    "milp": ("solvers.milp.solver", "MilpSolver"),
    "lns": ("solvers.lns.solver", "LnsSolver"),
    "partition": ("solvers.partition.solver", "PartitionSolver"),
    "auto": ("solvers.auto", "AutoSolver"),
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
        raise InputError("--strategy", "", f"unknown strategy {name!r}", hint)
    module, attribute = SOLVERS[name]
    solver: LayerSolver = getattr(importlib.import_module(module), attribute)()
    return solver
