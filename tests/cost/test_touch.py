"""Touch chances against their definition, with few places (vectors) and with many (compressed rows)."""

from __future__ import annotations

import numpy as np
import pytest

from placement.cost.layer.dispatch import dispatch_shares
from placement.cost.layer.touch import DENSE, touch
from placement.problem.data import TokenSets
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from specs.engine import Dispatch
from tests.layers import layer_problem

RATES = LayerRates(128, 1e-5, 3e-8, 7396, 14336, 4e11, 4.5e10, 3e-6, 8e-6)


@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned", "sglang_static"])
@pytest.mark.parametrize(("gpus", "per_node"), [(8, 4), (DENSE + 8, 8), (DENSE + 1, 1)])
def test_touch_chances_are_those_of_their_definition(gpus: int, per_node: int, dispatch: Dispatch) -> None:
    rng = np.random.default_rng(gpus)
    experts, k, sets, windows, width = 24, 4, 30, 2, 4
    ids = np.sort(np.argsort(rng.random((sets, experts)), axis=1)[:, :k])
    weight = rng.dirichlet(np.ones(sets), windows)
    load = np.stack([np.bincount(ids.reshape(-1), np.repeat(row, k), experts) for row in weight])
    topology = Topology(gpus, per_node, os_gpus=max(1, per_node // 2))
    problem = layer_problem(load, topology, width, RATES, sets=TokenSets(ids, weight), dispatch=dispatch)
    # In turn, so that every expert has copies; GPUs in any order, so that nodes have several.
    slots = rng.permutation(np.arange(gpus * width).reshape(gpus, width) % experts).reshape(-1)
    fractions = None
    if dispatch == "planned":
        fractions = rng.random((topology.nodes, len(slots)))
        for row in fractions:
            row /= np.bincount(slots, row, experts)[slots]
    shares = dispatch_shares(problem, slots, fractions)
    found = touch(problem, shares)
    for places, place, chance in (
        (gpus, shares.slot // width, found.gpu),
        (topology.nodes, shares.slot // width // per_node, found.node),
    ):
        for c in range(shares.classes):
            sent = np.zeros((experts, places))
            for e in range(experts):
                row = slice(shares.start[c * experts + e], shares.start[c * experts + e + 1])
                np.add.at(sent[e], place[row], shares.fraction[row])
            expected = weight @ (1.0 - np.prod(1.0 - sent[ids], axis=1))
            assert chance[c] == pytest.approx(expected, abs=1e-12)
