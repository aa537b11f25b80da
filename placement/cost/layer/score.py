"""The price of one MoE layer under a placement: the only place where an objective is computed (docs/cost-model.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.arithmetic import weighted_sum
from placement.cost.layer.dispatch import Shares, dispatch_shares
from placement.cost.layer.links import link_loads
from placement.cost.layer.risk import tail_mean
from placement.cost.layer.tariff import tariff_of
from placement.cost.layer.touch import Touch, touch
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem


@dataclass(frozen=True)
class LayerScore:
    """One layer's figures; means over the problem's windows, by their weights, but for `objective`.

    GPU loads are compared over `relative_speed`, and means over GPUs are over those with capacity.

    Attributes:
        objective: what the problem asks for, the `tail` mean of `window_value`.
        window_value: [windows] seconds ("time"), max/mean GPU load ("load") or bytes per token ("traffic").
        window_balancedness: [windows] mean over max GPU load in each.
        time_s, dispatch_s, experts_s, combine_s: seconds of the layer and of its parts.
        balancedness: mean over max GPU load, at most 1.
        pooled_imbalance: max over mean of the GPU loads averaged over the windows; what `max_load` bounds.
        nodes_per_token: distinct nodes that serve a token (nan without token sets).
        remote_nodes_per_token: of these, the ones other than its home, mean over homes (nan without token sets).
        cross_node_bytes_per_token: bytes that cross nodes for one token, dispatch and combine together.
        gpu_load: [windows, gpus] expected copies of a token per GPU, whatever its speed. slot_load: [windows, slots].
    """

    objective: float
    time_s: float
    dispatch_s: float
    experts_s: float
    combine_s: float
    balancedness: float
    pooled_imbalance: float
    nodes_per_token: float
    remote_nodes_per_token: float
    cross_node_bytes_per_token: float
    gpu_load: FloatArray
    slot_load: FloatArray
    window_value: FloatArray
    window_balancedness: FloatArray


def score_layer(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> LayerScore:
    """Scores a placement.

    Args:
        problem: the layer.
        slots: [slots] logical expert of each slot, or EMPTY; valid by placement.check.layer.check_layer.
        fractions: [nodes, slots] shares by home node, for `planned` dispatch.

    Raises:
        InputError: `planned` dispatch without valid fractions.
    """
    return score_served(problem, served(problem, slots, fractions))


@dataclass(frozen=True)
class Served:
    """What a placement makes of a routing, whatever work and messages cost: its dispatch, and what tokens touch."""

    shares: Shares
    reach: Touch


def served(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> Served:
    """What a placement makes of a problem's routing: the same for every problem that differs in rates alone.

    Args, Raises: See `score_layer`.
    """
    shares = dispatch_shares(problem, np.asarray(slots, dtype=np.int64), fractions)
    return Served(shares, touch(problem, shares))


def layer_seconds(problem: LayerProblem, of: Served) -> float:
    """LayerScore.time_s alone."""
    found = window_figures(problem, of.reach, of.shares)
    return float(weighted_sum(problem.data.window_weight, found.time))


def score_served(problem: LayerProblem, of: Served) -> LayerScore:
    """The score of a placement whose `served` is known."""
    shares, reach = of.shares, of.reach
    weight, found = problem.data.window_weight, window_figures(problem, reach, shares)
    pooled, alive = weighted_sum(weight, found.gpu_load), int(problem.hardware.alive.sum())
    nodes, remote = _nodes_per_token(problem, reach, shares)
    return LayerScore(
        objective=tail_mean(found.value, weight, problem.objective.tail),
        time_s=float(weighted_sum(weight, found.time)),
        dispatch_s=float(weighted_sum(weight, found.dispatch)),
        experts_s=float(weighted_sum(weight, found.experts)),
        combine_s=float(weighted_sum(weight, found.combine)),
        balancedness=float(weighted_sum(weight, found.balancedness)),
        pooled_imbalance=float((pooled / problem.hardware.relative_speed).max() / (pooled.sum() / alive)),
        nodes_per_token=nodes,
        remote_nodes_per_token=remote,
        cross_node_bytes_per_token=float(weighted_sum(weight, found.across)),
        gpu_load=found.gpu_load,
        slot_load=reach.slot_load,
        window_value=found.value,
        window_balancedness=found.balancedness,
    )


@dataclass(frozen=True)
class WindowFigures:
    """What each window comes to; the fields are those of LayerScore, before the mean over windows.

    Attributes:
        value: [windows] what the problem asks for. gpu_load: [windows, gpus]. Others: [windows].
    """

    value: FloatArray
    time: FloatArray
    dispatch: FloatArray
    experts: FloatArray
    combine: FloatArray
    balancedness: FloatArray
    across: FloatArray
    gpu_load: FloatArray


def window_figures(problem: LayerProblem, reach: Touch, shares: Shares) -> WindowFigures:
    """The figures of a dispatch in each window of `reach`; there may be more of them than the problem has."""
    tariff = tariff_of(problem)
    links = link_loads(problem, reach, shares)
    dispatch, combine = tariff.message_seconds(links)
    by_gpu = (len(reach.slot_load), problem.topology.gpus, problem.hardware.slots_per_gpu)
    work = tariff.slot_times(tariff.all_tokens * reach.slot_load).reshape(-1, *by_gpu).sum(axis=3)
    busiest = (work / problem.hardware.speeds).max(axis=2)
    time = tariff.layer_seconds(dispatch + combine, busiest)
    gpu_load = reach.slot_load.reshape(by_gpu).sum(axis=2)
    largest = (gpu_load / problem.hardware.relative_speed).max(axis=1)
    mean = gpu_load.sum(axis=1) / int(problem.hardware.alive.sum())
    across = links.across / tariff.all_tokens * tariff.both_bytes
    values = {"time": time, "load": largest / mean, "traffic": across}
    return WindowFigures(
        values[problem.objective.kind], time, dispatch, busiest.sum(axis=0), combine, mean / largest, across, gpu_load
    )


def objective_value(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> float:
    """The problem's objective for a placement, in the unit of LayerScore.window_value."""
    return score_layer(problem, slots, fractions).objective


def _nodes_per_token(problem: LayerProblem, reach: Touch, shares: Shares) -> tuple[float, float]:
    if problem.data.sets is None:
        return float("nan"), float("nan")
    by_home = weighted_sum(problem.data.window_weight, reach.node.transpose(1, 0, 2))[shares.class_of_gpu]
    own = by_home[np.arange(problem.topology.gpus), problem.topology.node_of_gpu]
    total = by_home.sum(axis=1)
    if problem.hardware.uniform_home:
        return float(total.mean()), float((total - own).mean())
    return float(weighted_sum(problem.hardware.homes, total)), float(weighted_sum(problem.hardware.homes, total - own))
