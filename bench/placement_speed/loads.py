"""Placement from loads alone, timed and compared: the drop-in, whole models, two slots per GPU, the largest layers.

Every function returns frozen records; loads are log-normal and seeded. Times are wall-clock on an otherwise idle
machine, after a warm-up that compiles or loads the kernels.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from placement.compat.eplb import Effort
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.data import LayerData
from placement.problem.hardware import LayerHardware
from placement.problem.layer import LayerObjective, LayerProblem
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology

#: DeepSeek-R1: MoE layers, experts, slots, groups, nodes, GPUs.
R1 = (58, 256, 288, 8, 4, 32)
EFFORTS: tuple[Effort, ...] = ("fast", "best")
#: GPUs that the same slots are planned for by `auto`.
WHOLE_MODEL = (32, 72)
#: Experts at which GPUs of two slots are compared, by GPUs.
TWO_SLOTS = ((64, 96), (64, 120), (72, 108), (72, 128), (144, 216), (144, 256))


@dataclass(frozen=True)
class DropIn:
    """One policy and effort of the drop-in on a whole model, against the balancer (solvers.experts.heuristics.eplb).

    Attributes:
        policy: "hierarchical" or "global". effort: see placement.compat.eplb.
        milliseconds, balancer_milliseconds: medians for all layers; speedup is their ratio.
        balancedness, balancer_balancedness: means over layers. worse_layers: layers where the balancer is better.
        gap: mean over layers of the busiest GPU over the closed-form bound, less 1 (nan where groups stay on nodes).
        changed, changed_plain: share of slots that change when loads drift, with `old_map` and without.
    """

    policy: str
    effort: str
    milliseconds: float
    balancer_milliseconds: float
    speedup: float
    balancedness: float
    balancer_balancedness: float
    worse_layers: int
    gap: float
    changed: float
    changed_plain: float


@dataclass(frozen=True)
class Planned:
    """Layers of one shape planned by `auto` from counts. Gaps are to each answer's own bound.

    `optimal` lists the layers whose answer is proven optimal, `peak_mib` is the largest resident set of the process so
    far.
    """

    layers: int
    experts: int
    gpus: int
    slots_per_gpu: int
    workers: int
    seconds: float
    mean_gap: float
    largest_gap: float
    balancer_gap: float
    optimal: tuple[int, ...]
    peak_mib: float


def loads(layers: int, experts: int, seed: int, sigma: float = 0.8, top_k: int = 8) -> FloatArray:
    """[layers, experts] log-normal loads that sum to top_k in each layer."""
    drawn = np.exp(np.random.default_rng(seed).normal(0, sigma, (layers, experts)))
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True) * top_k)


def drop_in(seed: int = 1, repeats: int = 7, drift: float = 0.1, sigma: float = 0.8) -> tuple[DropIn, ...]:
    """The drop-in on DeepSeek-R1's shape, both policies and efforts.

    Args:
        repeats: the median of so many. drift: deviation of the logarithm of what loads change by for `changed`.
    """
    from placement.compat.eplb import rebalance_experts
    from solvers.experts.heuristics.eplb import eplb_layer

    layers, experts, slots, groups, nodes, gpus = R1
    weight = loads(layers, experts, seed, sigma)
    later = weight * np.exp(np.random.default_rng(seed + 1).normal(0, drift, weight.shape))
    found = []
    for policy, parts in (("hierarchical", groups), ("global", 1)):

        def balancer(parts: int = parts) -> IntArray:
            return np.stack([eplb_layer(row, slots, parts, nodes, gpus) for row in weight])

        theirs = _gpu_loads(weight, balancer(), gpus)
        rival = _median(balancer, repeats)
        for effort in EFFORTS:

            def ours(
                loads: FloatArray = weight, old: IntArray | None = None, parts: int = parts, effort: Effort = effort
            ) -> IntArray:
                found = rebalance_experts(loads, slots, parts, nodes, gpus, old, effort=effort)
                return np.asarray(found[0])

            placed = ours()
            load = _gpu_loads(weight, placed, gpus)
            seconds = _median(ours, repeats)
            gap = float("nan")
            if parts == 1:
                bounds = [_bound(row, gpus, slots // gpus) for row in weight]
                gap = float(np.mean(load.max(axis=1) / load.mean(axis=1) / bounds)) - 1
            found.append(
                DropIn(
                    policy, effort, 1e3 * seconds, 1e3 * rival, rival / seconds, _balancedness(load),
                    _balancedness(theirs), int((load.max(axis=1) > theirs.max(axis=1) * (1 + 1e-9)).sum()), gap,
                    float((ours(later, placed) != placed).mean()), float((ours(later) != placed).mean()),
                )
            )  # fmt: skip
    return tuple(found)


def planned(
    layers: int, experts: int, gpus: int, slots_per_gpu: int, seed: int = 1, workers: int = 2, sigma: float = 0.8
) -> Planned:
    """Plans layers of one shape by `auto`, loads alone, default work; gaps are to the same bound for both."""
    from placement.cost.layer.score import objective_value
    from solvers.experts.heuristics.eplb import EplbSolver
    from solvers.experts.layers import plan_layers
    from solvers.result import Status
    from solvers.stop import Stop

    problems = [_problem(row, gpus, slots_per_gpu) for row in loads(layers, experts, seed, sigma)]
    plan_layers(problems[:1], "auto", Stop(), seed, 1)
    began = time.perf_counter()
    answers = plan_layers(problems, "auto", Stop(), seed, workers)
    seconds = time.perf_counter() - began
    gaps = [answer.gap for answer in answers]
    rivals = [
        objective_value(problem, EplbSolver().place(problem, 0)) / answer.bound - 1
        for problem, answer in zip(problems, answers, strict=True)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Planned(
        layers, experts, gpus, slots_per_gpu, workers, seconds, float(np.mean(gaps)), max(gaps),
        float(np.mean(rivals)), tuple(i for i, a in enumerate(answers) if a.status is Status.OPTIMAL), peak,
    )  # fmt: skip


def whole_model(seed: int = 1, workers: int = 2) -> tuple[Planned, ...]:
    """DeepSeek-R1 in 288 slots, on 32 GPUs and on 72."""
    layers, experts, slots = R1[:3]
    return tuple(planned(layers, experts, gpus, slots // gpus, seed, workers) for gpus in WHOLE_MODEL)


def two_slots(layers: int = 8, seed: int = 1, workers: int = 2, sigma: float = 0.8) -> tuple[Planned, ...]:
    """Two slots per GPU: 64, 72 and 144 GPUs with the experts of TWO_SLOTS."""
    return tuple(planned(layers, experts, gpus, 2, seed, workers, sigma) for gpus, experts in TWO_SLOTS)


def largest(layers: int = 94, seed: int = 1, workers: int = 2) -> tuple[Planned, ...]:
    """512 experts on 1,024 GPUs, one and two slots per GPU."""
    return tuple(planned(layers, 512, 1024, width, seed, workers) for width in (1, 2))


def _problem(load: FloatArray, gpus: int, width: int) -> LayerProblem:
    rates = LayerRates(128, 1e-5, 3e-8, 7396, 14336, 4e11, 4.5e10, 3e-6, 8e-6)
    hardware = LayerHardware(Topology(gpus, 8), width, rates)
    return LayerProblem(LayerData(load), hardware, objective=LayerObjective("load"))


def _bound(load: FloatArray, gpus: int, width: int) -> float:
    from solvers.bounds import layer_bound

    return layer_bound(_problem(load, gpus, width), quick=True).value


def _gpu_loads(weight: FloatArray, slots: IntArray, gpus: int) -> FloatArray:
    """[layers, gpus] loads, by placement.cost."""
    from placement.cost.layer.score import score_layer

    width = slots.shape[1] // gpus
    return np.stack(
        [score_layer(_problem(row, gpus, width), placed).gpu_load[0] for row, placed in zip(weight, slots, strict=True)]
    )


def _balancedness(load: FloatArray) -> float:
    return float((load.mean(axis=1) / load.max(axis=1)).mean())


def _median(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
