"""New names for GPUs: the fewest slots change, and nothing but names."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.layer.score import score_layer
from solvers.dispatch import near_fractions
from solvers.experts.layers import plan_layers
from solvers.experts.relabel import relabel, renaming
from solvers.stop import Stop
from tests.solvers.problems import random_problem


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_relabelling_keeps_the_most_slots_of_all_namings(seed: int, nodes: int, own: int, width: int) -> None:
    """Against all permutations of nodes, and of GPUs within them."""
    from itertools import permutations

    rng = np.random.default_rng(seed)
    gpus, experts = nodes * own, 6
    new, old = rng.integers(0, experts, (2, gpus * width))
    named = relabel(new, old, experts, nodes, gpus)
    best = 0
    rows, before = new.reshape(nodes, own, width), old.reshape(nodes, own, width)
    for order in permutations(range(nodes)):
        kept = 0
        for n, m in enumerate(order):
            kept += max(
                sum(
                    int(np.minimum(np.bincount(rows[n, a], minlength=6), np.bincount(before[m, b], minlength=6)).sum())
                    for b, a in enumerate(inner)
                )
                for inner in permutations(range(own))
            )
        best = max(best, kept)
    assert int((named == old).sum()) == best
    by_gpu = sorted(sorted(row) for row in new.reshape(gpus, width).tolist())
    assert sorted(sorted(row) for row in named.reshape(gpus, width).tolist()) == by_gpu
    nodes_then = sorted(sorted(map(sorted, node)) for node in rows.tolist())
    nodes_now = sorted(sorted(map(sorted, node)) for node in named.reshape(nodes, own, width).tolist())
    assert nodes_then == nodes_now


def test_renamed_dispatch_scores_the_same() -> None:
    """Fractions that differ by home node, on nodes in another order."""
    problem = random_problem(1, experts=16, gpus=8, gpus_per_node=2, slots_per_gpu=3, dispatch="planned")
    slots = plan_layers([problem], "eplb", Stop(), 0)[0].slots
    fractions = near_fractions(problem, slots)
    old = np.roll(slots, 12).reshape(8, 3)[::-1].reshape(-1)
    renamed = renaming(slots, old, 16, 4, 8)
    assert sorted(renamed.names) == list(range(8))
    assert sorted(renamed.order) == list(range(24))
    assert not (renamed.names == np.arange(8)).all()
    before = score_layer(problem, slots, fractions)
    after = score_layer(problem, renamed.slots(slots), renamed.fractions(fractions))
    assert after.objective == pytest.approx(before.objective, rel=1e-12)
    wrong = fractions[:, renamed.order]
    assert score_layer(problem, renamed.slots(slots), wrong).objective != pytest.approx(before.objective, rel=1e-6)


def test_empty_slots_match_nothing() -> None:
    """GPU 0 shares expert 3, the last, with GPU 1 of old; empty slots are no expert 3."""
    slots, old = np.array([3, -1, 0, 1, 2, -1]), np.array([0, 1, 3, 2, -1, -1])
    assert renaming(slots, old, 4, 1, 3).names.tolist() == [1, 0, 2]
