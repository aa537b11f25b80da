"""The price of one MoE layer under a placement: the only place where an objective is computed (docs/cost-model.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.arithmetic import exp, expm1, weighted_sum
from placement.cost.layer.dispatch import Shares, dispatch_shares
from placement.cost.layer.links import LinkLoad, link_loads, message_matrix
from placement.cost.layer.links import effective_rule as effective_rule
from placement.cost.layer.risk import tail_mean
from placement.cost.layer.touch import Touch, touch
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.rates import LayerRates


@dataclass(frozen=True)
class LayerScore:
    """One layer's figures; means over the problem's windows, by their weights, but for `objective`.

    GPU loads are compared over `relative_speed`, and means over GPUs are over those with capacity.

    Attributes:
        objective: what the problem asks for, the `tail` mean of `window_value`.
        window_value: [windows] seconds ("time"), max/mean GPU load ("load") or bytes per token ("traffic").
        time_s, dispatch_s, experts_s, combine_s: seconds of the layer and of its parts.
        balancedness: mean over max GPU load, at most 1. imbalance: max over mean.
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
    imbalance: float
    pooled_imbalance: float
    nodes_per_token: float
    remote_nodes_per_token: float
    cross_node_bytes_per_token: float
    gpu_load: FloatArray
    slot_load: FloatArray
    window_value: FloatArray


def slot_times(tokens: FloatArray, rates: LayerRates) -> FloatArray:
    """[kinds, ...] seconds that slots take in each kind of pass, times the kind's share of the passes.

    The roofline max(weights read once if touched, tokens multiplied), with the chance that a Poisson count of that
    mean is not 0 for "touched".

    Args:
        tokens: expected tokens of slots in the mean pass (any shape).
    """
    kinds, x = rates.kinds, np.asarray(tokens, dtype=np.float64)
    seconds = np.empty((len(kinds), *x.shape))
    for k, kind in enumerate(kinds):
        count = kind.tokens * x
        seconds[k] = kind.share * np.maximum(-expm1(-count) * rates.weight_s, count * rates.token_s)
    return seconds


def slot_time(tokens: FloatArray, rates: LayerRates) -> FloatArray:
    """Seconds that slots take in the mean over all passes; see `slot_times`."""
    return np.asarray(slot_times(tokens, rates).sum(axis=0))


def slot_slopes(tokens: FloatArray, rates: LayerRates) -> FloatArray:
    """[kinds, ...] derivative of `slot_times` by the tokens; of the branch at hand where it has a kink."""
    kinds, x = rates.kinds, np.asarray(tokens, dtype=np.float64)
    slopes = np.empty((len(kinds), *x.shape))
    for k, kind in enumerate(kinds):
        count = kind.tokens * x
        reading = -expm1(-count) * rates.weight_s > count * rates.token_s
        slopes[k] = kind.share * kind.tokens * np.where(reading, exp(-count) * rates.weight_s, rates.token_s)
    return slopes


def layer_seconds(rates: LayerRates, moved: FloatArray, work: FloatArray, wait: float) -> FloatArray:
    """[...] seconds of layers, the mean over kinds of passes: messages and work in turn, or the longer (`two_batch`).

    Args:
        moved: [...] seconds of dispatch and combine in the mean pass. work: [kinds, ...] seconds of the busiest GPU,
            times the kind's share. wait: the latency that is in `moved`, of passes of any size.
    """
    if rates.overlap == "none":
        return np.asarray(moved + work.sum(axis=0))
    each = [kind.share * (wait + kind.tokens * (moved - wait)) for kind in rates.kinds]
    return np.asarray(np.maximum(each, work).sum(axis=0))


def latency_s(problem: LayerProblem) -> float:
    """Seconds before the first byte of a dispatch or a combine: one hop on each kind of link that is used."""
    fast = problem.hardware.rates.fast_latency_s if problem.topology.gpus_per_node > 1 else 0.0
    slow = problem.hardware.rates.slow_latency_s if problem.topology.nodes > 1 else 0.0
    return fast + slow


def message_seconds(problem: LayerProblem, links: LinkLoad) -> tuple[FloatArray, FloatArray]:
    """([windows], [windows]) seconds of dispatch and of combine: latency, then the busiest link of either kind."""
    rates = problem.hardware.rates
    link_s = np.maximum(links.slow / rates.slow_bytes_per_s, links.fast / rates.fast_bytes_per_s)
    return latency_s(problem) + rates.dispatch_bytes * link_s, latency_s(problem) + rates.combine_bytes * link_s


def score_layer(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> LayerScore:
    """Scores a placement.

    Args:
        problem: the layer.
        slots: [slots] logical expert of each slot, or EMPTY; valid by placement.check.layer.check_layer.
        fractions: [nodes, slots] shares by home node, for `planned` dispatch.

    Raises:
        InputError: `planned` dispatch without valid fractions.
    """
    slots = np.asarray(slots, dtype=np.int64)
    shares = dispatch_shares(problem, slots, fractions)
    reach = touch(problem, shares)
    rates, weight = problem.hardware.rates, problem.data.window_weight
    links = link_loads(problem, reach, shares)
    dispatch, combine = message_seconds(problem, links)
    total_tokens = rates.tokens_per_gpu * problem.topology.gpus
    by_gpu = (problem.windows, problem.topology.gpus, problem.hardware.slots_per_gpu)
    work = slot_times(total_tokens * reach.slot_load, rates).reshape(len(rates.kinds), *by_gpu).sum(axis=3)
    busiest = (work / problem.hardware.speeds).max(axis=2)
    experts = busiest.sum(axis=0)
    time = layer_seconds(rates, dispatch + combine, busiest, 2 * latency_s(problem))

    gpu_load = reach.slot_load.reshape(by_gpu).sum(axis=2)
    speed, alive = problem.hardware.relative_speed, int(problem.hardware.alive.sum())
    largest, mean = (gpu_load / speed).max(axis=1), gpu_load.sum(axis=1) / alive
    pooled = weighted_sum(weight, gpu_load)
    nodes, remote = _nodes_per_token(problem, reach, shares)
    across = links.across / total_tokens * (rates.dispatch_bytes + rates.combine_bytes)
    values = {"time": time, "load": largest / mean, "traffic": across}
    value = values[problem.objective.kind]
    return LayerScore(
        objective=tail_mean(value, weight, problem.objective.tail),
        time_s=float(weighted_sum(weight, time)),
        dispatch_s=float(weighted_sum(weight, dispatch)),
        experts_s=float(weighted_sum(weight, experts)),
        combine_s=float(weighted_sum(weight, combine)),
        balancedness=float(weighted_sum(weight, mean / largest)),
        imbalance=float(weighted_sum(weight, largest / mean)),
        pooled_imbalance=float((pooled / speed).max() / (pooled.sum() / alive)),
        nodes_per_token=nodes,
        remote_nodes_per_token=remote,
        cross_node_bytes_per_token=float(weighted_sum(weight, across)),
        gpu_load=gpu_load,
        slot_load=reach.slot_load,
        window_value=value,
    )


def objective_value(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> float:
    """The problem's objective for a placement, in the unit of LayerScore.window_value."""
    return score_layer(problem, slots, fractions).objective


def byte_matrix(
    problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """([gpus, gpus], [gpus, gpus]) expected bytes from GPU to GPU in dispatch and in combine, mean over windows.

    Both hops of `per_node` are included; the diagonal (a GPU's tokens for itself) crosses no link.
    """
    slots = np.asarray(slots, dtype=np.int64)
    shares = dispatch_shares(problem, slots, fractions)
    messages = message_matrix(problem, touch(problem, shares), shares)
    mean = weighted_sum(problem.data.window_weight, messages)
    return mean * problem.hardware.rates.dispatch_bytes, mean.T * problem.hardware.rates.combine_bytes


def _nodes_per_token(problem: LayerProblem, reach: Touch, shares: Shares) -> tuple[float, float]:
    if problem.data.sets is None:
        return float("nan"), float("nan")
    by_home = weighted_sum(problem.data.window_weight, reach.node.transpose(1, 0, 2))[shares.class_of_gpu]
    own = by_home[np.arange(problem.topology.gpus), problem.topology.node_of_gpu]
    total = by_home.sum(axis=1)
    if problem.hardware.uniform_home:
        return float(total.mean()), float((total - own).mean())
    return float(weighted_sum(problem.hardware.homes, total)), float(weighted_sum(problem.hardware.homes, total - own))
