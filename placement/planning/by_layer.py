"""Redundant experts by layer: those of a pipeline stage go to the layers that gain most from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from placement.cost.memory.hbm import memory_of
from placement.problem.pieces import piece_rows
from placement.problem.split import Split, least_redundant, redundant_problem
from solvers.experts.shared_slots import share_slots
from specs.scenario import Scenario

#: Slots of a GPU that a layer has at most beyond those that it has where all have the same.
MOST_MORE = 4


def shared_by_layer(scenario: Scenario, split: Split, costs_of: Callable[[Split], Sequence[float]]) -> Split:
    """The split with each stage's redundant experts shared by its layers at the least cost; every GPU's stay alike.

    A stage has as many slots as with `split.redundant` in each layer, so that experts take no more of HBM. Buffers are
    of the widest layer, which is as wide as HBM has room for.

    Args:
        scenario: As the role has it.
        split: Of even layers.
        costs_of: [layers] the cost of each under a split.

    Returns:
        The split; `layer_redundant` is None where even layers are best.
    """
    model, ep, layers = scenario.model, split.ep, len(scenario.model.moes)
    fewer = (split.redundant - least_redundant(model.moe.experts, ep)) // ep
    more = next(n for n in range(MOST_MORE, -1, -1) if not redundant_problem(model, ep, split.redundant + n * ep))
    if fewer == 0 or more == 0:
        return split
    counts = [split.redundant + n * ep for n in range(-fewer, more + 1)]
    costs = list(zip(*(costs_of(replace(split, layer_redundant=(count,) * layers)) for count in counts), strict=True))
    stages = _stages(scenario, split)
    for most in range(len(counts), fewer + 1, -1):
        taken = [0] * layers
        for stage in set(stages):
            own = [i for i in range(layers) if stages[i] == stage]
            shares = share_slots([costs[i][:most] for i in own], fewer * len(own))
            for i, share in zip(own, shares, strict=True):
                taken[i] = share
        found = replace(split, layer_redundant=tuple(counts[share] for share in taken))
        if memory_of(scenario, found).fits:
            return found if set(taken) != {fewer} else split
    return split


def _stages(scenario: Scenario, split: Split) -> list[int]:
    """[MoE layers] the rank that holds each."""
    rows = piece_rows(scenario, split)
    return [
        next(rank for rank, first, count in rows if first <= layer < first + count)
        for layer in scenario.model.moe_layers
    ]
