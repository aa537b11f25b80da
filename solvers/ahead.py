"""Compiles what the search runs on in processes of its own, while the first steps of planning run.

What is compiled is kept on disk (placement.kernel_cache), so that this happens once. Otherwise each worker would
compile all of it when the search begins.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType

import numpy as np

from placement.problem.data import LayerData, TokenSets
from placement.problem.hardware import LayerHardware
from placement.problem.layer import LayerProblem
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from solvers.stop import Stop

#: What there is to compile for the search, and for the searches for loads alone, for `compiling`.
SEARCH_PARTS = ("compile_search", "compile_bounds")
LOADS_PARTS = ("compile_loads_search", "compile_loads_pairs")


def is_compiled() -> bool:
    """Whether there is code on disk for the last of the search's functions, not older than its source."""
    from solvers.experts.search import anneal

    return _on_disk(anneal, "_steps")


def loads_compiled() -> bool:
    """The same of the local search for loads alone."""
    from solvers.experts.loads import local

    return _on_disk(local, "_go_on")


def _on_disk(module: ModuleType, function: str) -> bool:
    """Whether there is code on disk for a compiled function of a module, not older than its source."""
    folder, written = Path(getattr(module, function).stats.cache_path), Path(str(module.__file__)).stat().st_mtime
    with suppress(OSError):
        name = module.__name__.rpartition(".")[2]
        return any(path.stat().st_mtime >= written for path in folder.glob(f"{name}.{function}-*.nbi"))
    return False


@contextmanager
def compiling(*parts: str) -> Iterator[Callable[[Stop], None]]:
    """Runs functions of this module, by their names, each in a process of its own meanwhile.

    Gives a function that waits for their end, or for a deadline. None of them outlives the context. One that fails is
    worth a line in the log: what it was to compile is compiled where it is first used.
    """
    running: dict[str, subprocess.Popen[bytes]] = {}

    def failed(part: str, why: str) -> None:
        logging.getLogger(__name__).warning("%s failed (%s): it is done where it is needed", part, why)

    def wait(stop: Stop) -> None:
        for part, process in list(running.items()):
            with suppress(subprocess.TimeoutExpired):
                _, errors = process.communicate(timeout=stop.seconds_left())
                del running[part]
                if process.returncode and not stop.expired:
                    failed(part, f"exit code {process.returncode}; {_last_line(errors)}")

    with ExitStack() as stack:
        for part in parts:
            try:
                running[part] = stack.enter_context(_started(part))
                stack.callback(running[part].kill)
            except OSError as error:
                failed(part, str(error))
        yield wait


def _last_line(written: bytes) -> str:
    lines = written.decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def _started(part: str) -> subprocess.Popen[bytes]:
    code = f"from solvers import ahead, parallel; parallel.end_with({os.getpid()}); ahead.{part}()"
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def compile_search() -> None:
    """The annealing of placements."""
    from solvers.experts.search.arrays import SetRows
    from solvers.experts.search.run import Schedule, run_annealing

    problem, sets = _problem(), _sets()
    rows = SetRows.of(sets, problem.experts, problem.windows)
    run_annealing(problem, _START, None, Schedule(1, 0.01, 0.001, 1.0, 1.0), Stop(), 0, rows)


def compile_bounds() -> None:
    """The bound of co-located experts, and the search for loads over several windows."""
    from solvers.bounds import layer_bound
    from solvers.experts.search.balance import balance

    problem = _problem()
    layer_bound(problem, stop=Stop(1e-3))
    cost = np.ones((len(_START), problem.windows, problem.experts))
    balance(_START, problem.hardware.slots_per_gpu, problem.topology.gpus, cost, problem.data.window_weight, 0.0, 1, 0)


def compile_loads_start() -> None:
    """What `placement.compat.eplb` runs, but for its searches."""
    from solvers.experts.heuristics.packing import distinct_packing
    from solvers.experts.loads.layer import Work, mend_layer, place_layer, reverse_map
    from solvers.experts.relabel import relabel

    # After this deadline nothing is searched; a map in use that breaks the rules is not mended.
    work, old = Work(0, stop=Stop(deadline=0.0)), np.zeros(12, np.int64)
    slots, _ = place_layer(np.ones(8), 12, 4, 2, 4, 1.0, work, 0)
    distinct_packing(np.ones(8), 4, 3)
    mend_layer(np.ones(8), old, 4, 2, 4, 0.0, work, 0)
    relabel(slots, old, 8, 2, 4)
    reverse_map(slots[None], 8)


def compile_loads_pairs() -> None:
    """The search for loads alone with two slots a GPU."""
    from solvers.experts.loads.layer import cost_table
    from solvers.experts.loads.pairs import best_copies, paired

    copies, _, _ = best_copies(cost_table(np.ones(8), 2), np.ones(8, np.int64), 0.0, 1, 0)
    paired(cost_table(np.ones(8), 2), copies)


def compile_loads_search() -> None:
    """The local search for loads alone."""
    from solvers.experts.loads.layer import cost_table
    from solvers.experts.loads.local import improve

    improve(_START[:12] % 8, 3, cost_table(np.ones(8), 2), 0.0, 1, 0)


#: Two windows of tokens, nodes that hold some of the experts, more slots a GPU than the packing bound is for: what most
#: layers have, as small as it can be.
_START = np.arange(20) % 8


def _sets() -> TokenSets:
    return TokenSets(np.array([[0, 1], [2, 3], [4, 5], [6, 7]]), np.full((2, 4), 0.25))


def _problem() -> LayerProblem:
    rates = LayerRates(
        tokens_per_gpu=1.0, weight_s=1e-6, token_s=1e-8, dispatch_bytes=1.0, combine_bytes=1.0, fast_bytes_per_s=1e9,
        slow_bytes_per_s=1e8, fast_latency_s=1e-6, slow_latency_s=1e-6,
    )  # fmt: skip
    data = LayerData(load=np.full((2, 8), 0.25), sets=_sets())
    return LayerProblem(data, LayerHardware(Topology(4, 1), 5, rates))
