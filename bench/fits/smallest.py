"""The smallest instance of a model that vLLM loads and that fits, on GPUs of one kind."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.hbm import MemoryModel
from placement.problem.engine_rules import most_sequences
from solvers.split.build import serving_split
from solvers.split.degrees import Degrees, list_candidates
from solvers.split.infeasible import fits
from specs.cluster import Cluster
from specs.loading import catalog_names, load_engine, load_workload
from specs.model import Model
from specs.scenario import Pins, Scenario
from specs.workload import ServingWorkload

#: The search ends here.
MOST_GPUS = 128


@dataclass(frozen=True)
class Instance:
    """An instance; sequences: most that it holds at once (vLLM's scheduler takes no more than 1,024 a rank)."""

    gpus: int
    tp: int
    ep: int
    pp: int
    dp: int
    sequences: int


def default_workload(model: Model) -> ServingWorkload | None:
    """The catalog's serving workload of the longest sequences that the model's context holds; None: it holds none."""
    found = [each for each in map(load_workload, catalog_names("workload")) if each.kind == "serving"]
    held = [each for each in found if each.isl + each.osl <= (model.context or math.inf)]
    return max(held, key=lambda each: each.isl + each.osl, default=None)


def smallest(model: Model, cluster: Cluster, workload: ServingWorkload, gpus: int | None = None) -> Instance | None:
    """The first split, in order of GPUs, that fits one sequence of each attention rank; None: none up to MOST_GPUS.

    Args:
        cluster: Its GPUs and the size of its nodes count, not how many nodes it has.
        gpus: Of the instance, where only that size is tried.
    """
    nodes = -(-MOST_GPUS // cluster.gpus_per_node)
    scenario = Scenario(
        name="fits", model=model, cluster=cluster.model_copy(update={"nodes": nodes}), workload=workload,
        engine=load_engine("vllm"),
    )  # fmt: skip
    efficiency = efficiency_of(scenario)
    for degrees in sorted(list_candidates(scenario, Pins(), None).degrees, key=_order):
        if gpus in (None, _gpus(degrees)) and fits(scenario, degrees, None, efficiency):
            memory = MemoryModel(scenario, serving_split(scenario, degrees, 1), efficiency)
            most = range(1, (most_sequences(scenario, degrees.tp, degrees.pp) or 1) + 1)
            held = bisect_right(most, memory.capacity_bytes, key=memory.total_bytes)
            return Instance(_gpus(degrees), degrees.tp, degrees.ep, degrees.pp, degrees.dp, held * degrees.dp)
    return None


def _gpus(degrees: Degrees) -> int:
    return degrees.tp * degrees.dp * degrees.pp


def _order(degrees: Degrees) -> tuple[int, ...]:
    """Fewer GPUs first; then fewer stages and wider tensor parallelism, which stores least."""
    return (_gpus(degrees), degrees.pp, degrees.dp, degrees.ep)
