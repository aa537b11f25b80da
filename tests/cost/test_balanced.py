"""The closed-form estimate is the scorer's price of uniform routing, for every rule and topology."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb
from typing import get_args

import numpy as np
import pytest

from placement.cost.layer.balanced import BalancedLayer
from placement.cost.layer.score import score_layer
from placement.cost.training.passes import group_limited
from placement.problem.data import TokenSets
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from specs.blocks.ffn import Moe
from specs.engine import MessageRule
from tests.cost import scenarios as s
from tests.layers import layer_problem
from tests.solvers.problems import RATES

EXPERTS, K = 8, 3
#: GPUs, GPUs of a node, GPUs of a tray.
TOPOLOGIES = ((1, 1, 1), (4, 4, 1), (4, 1, 1), (4, 2, 1), (4, 2, 2), (8, 4, 2), (8, 2, 1), (8, 1, 1))
#: The slow links decide, or the fast ones.
LINKS = {"slow": RATES, "fast": replace(RATES, fast_bytes_per_s=3e9)}


def compare(
    rule: MessageRule, topology: Topology, rates: LayerRates, sets: TokenSets, layer: BalancedLayer, load: np.ndarray
) -> None:
    """Dispatch, experts and the whole of a layer, for GPUs with other numbers of tokens, too."""
    for tokens in (rates.tokens_per_gpu, 3.0):
        priced = replace(rates, tokens_per_gpu=tokens)
        problem = layer_problem(load, topology, EXPERTS // topology.gpus, priced, sets=sets, message=rule)
        score = score_layer(problem, np.arange(EXPERTS))
        assert layer.messages_s(tokens) == pytest.approx(score.dispatch_s + score.combine_s, rel=1e-12)
        assert layer.experts_s(tokens) == pytest.approx(score.experts_s, rel=1e-6)
        assert layer.seconds(tokens) == pytest.approx(score.time_s, rel=1e-6)


@pytest.mark.parametrize("rule", get_args(MessageRule))
@pytest.mark.parametrize("shape", TOPOLOGIES)
@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("overlap", ["none", "two_batch"])
def test_uniform_routing(rule: MessageRule, shape: tuple[int, int, int], links: str, overlap: str) -> None:
    rates, topology = replace(LINKS[links], overlap=overlap, combine_bytes=9000.0), Topology(*shape)
    ids = np.array(list(combinations(range(EXPERTS), K)))
    sets = TokenSets(ids, np.full((1, len(ids)), 1 / len(ids)))
    layer = BalancedLayer.of(rates, topology, EXPERTS // topology.gpus, EXPERTS, K, rule, shape=1e15)
    compare(rule, topology, rates, sets, layer, np.full(EXPERTS, K / EXPERTS))
    reached = {"dense": topology.gpus, "per_expert": 0}.get(rule)
    if reached is None:
        each = [len({e // (EXPERTS // topology.gpus) for e in row}) for row in ids.tolist()]
        assert layer.received(5.0) == pytest.approx(5.0 * np.mean(each))
    elif reached:
        assert layer.received(5.0) == 5.0 * reached


@pytest.mark.parametrize("rule", get_args(MessageRule))
@pytest.mark.parametrize("shape", [(4, 4, 1), (4, 2, 1), (4, 1, 1), (8, 4, 1), (8, 2, 1)])
@pytest.mark.parametrize("links", LINKS)
def test_group_limited_routing(rule: MessageRule, shape: tuple[int, int, int], links: str) -> None:
    """A token draws 2 of 4 groups of 2 experts, then 3 of their 4 experts."""
    rates, topology = LINKS[links], Topology(*shape)
    weight: dict[tuple[int, ...], float] = {}
    for groups in combinations(range(4), 2):
        experts = [e for g in groups for e in (2 * g, 2 * g + 1)]
        for row in combinations(experts, K):
            weight[row] = weight.get(row, 0.0) + 1 / comb(4, 2) / comb(4, K)
    sets = TokenSets(np.array(list(weight)), np.array([list(weight.values())]))
    model = s.small_model(moe=Moe(experts=EXPERTS, top_k=K, expert_width=512, groups=4, top_groups=2))
    plain = BalancedLayer.of(rates, topology, EXPERTS // topology.gpus, EXPERTS, K, rule, shape=1e15)
    layer = group_limited(plain, topology, model.moe, rule)
    compare(rule, topology, rates, sets, layer, np.full(EXPERTS, K / EXPERTS))


def test_hot_experts_leave_others_untouched() -> None:
    """One token a rank puts 0.75 on each of 8 slots; loads of experts vary by a gamma of shape 2."""
    layer = BalancedLayer.of(RATES, Topology(2, 2), 4, EXPERTS, K, "per_rank", shape=2.0)
    assert layer.experts_s(1.0) == pytest.approx(4 * RATES.weight_s * (1 - (1 + 0.75 / 2) ** -2.0), rel=1e-12)
