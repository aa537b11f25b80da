"""Copies by a token's hash: brute force over the residues of its number, and vLLM's own arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.alltoall.concrete import draw_slots
from placement.cost.layer.dispatch import dispatch_shares
from placement.cost.layer.dispatch.token_hash import token_hashes
from placement.cost.layer.score import score_layer
from placement.cost.layer.touch import touch
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem
from tests.layers import changed
from tests.solvers.problems import random_placement, random_problem, running_problem


def _instance(seed: int) -> tuple[LayerProblem, np.ndarray]:
    """A small layer with replicas, and a placement whose copies are of many counts."""
    rng = np.random.default_rng(seed)
    gpus, m = ((4, 2), (6, 3), (8, 2), (4, 4))[seed % 4]
    make = random_problem if seed % 3 else running_problem
    problem = make(
        seed, experts=int(rng.integers(4, 9)), gpus=gpus, gpus_per_node=m, slots_per_gpu=int(rng.integers(3, 5)),
        k=int(rng.integers(1, 4)), tokens=20, windows=1 + seed % 2, dispatch="token_hash",
        message=("per_node", "per_rank")[seed // 4 % 2],
    )  # fmt: skip
    slots = random_placement(problem, seed)
    for _ in range(30):
        # Copies go to other experts, so that their counts spread.
        i, e = rng.integers(problem.slots), rng.integers(problem.experts)
        row = slots.reshape(gpus, -1)[i // problem.hardware.slots_per_gpu]
        if slots[i] != EMPTY and (slots == slots[i]).sum() > 1 and e not in row:
            slots[i] = e
    return problem, slots


def _brute_force(problem: LayerProblem, slots: np.ndarray, size: int) -> np.ndarray:
    """[windows, places of `size` slots] chance that a token touches a place, number by number."""
    copies = [np.flatnonzero(slots == e).tolist() for e in range(problem.experts)]
    period = math.lcm(*(len(each) for each in copies))
    assert problem.data.sets is not None
    chance = np.zeros((len(problem.data.sets.ids), problem.slots // size))
    for row, ids in zip(chance, problem.data.sets.ids.tolist(), strict=True):
        for number in range(period):
            row[list({copies[e][number % len(copies[e])] // size for e in ids})] += 1 / period
    return np.asarray(problem.data.sets.weight @ chance)


def test_touch_is_that_of_brute_force_over_residues() -> None:
    counts: set[int] = set()
    differs = 0
    for seed in range(300):
        problem, slots = _instance(seed)
        counts |= set(np.bincount(slots[slots != EMPTY]).tolist())
        width, m = problem.hardware.slots_per_gpu, problem.topology.gpus_per_node
        found = touch(problem, dispatch_shares(problem, slots))
        np.testing.assert_allclose(found.gpu[0], _brute_force(problem, slots, width), atol=1e-12)
        np.testing.assert_allclose(found.node[0], _brute_force(problem, slots, width * m), atol=1e-12)
        even = changed(problem, dispatch="even")
        alone = touch(even, dispatch_shares(even, slots))
        np.testing.assert_array_equal(found.slot_load, alone.slot_load)
        differs += not np.allclose(found.gpu, alone.gpu)
    assert counts >= {1, 2, 3, 4, 5}
    assert differs > 150


def test_experts_with_as_many_copies_side_by_side_are_one_message() -> None:
    """Both experts on GPUs 0 and 1: one GPU for every token; under `even` half of the tokens reach both."""
    problem = random_problem(
        0, experts=2, gpus=2, gpus_per_node=1, slots_per_gpu=2, k=2, tokens=4, message="per_rank", dispatch="token_hash"
    )
    slots = np.array([0, 1, 1, 0])
    assert score_layer(problem, slots).nodes_per_token == 1.0
    assert score_layer(changed(problem, dispatch="even"), slots).nodes_per_token == 1.5


@pytest.mark.parametrize(("message", "objective"), [("per_expert", "time"), ("dense", "time"), ("per_node", "load")])
def test_scores_as_even_where_only_copies_count(message: str, objective: str) -> None:
    problem = random_problem(3, slots_per_gpu=6, message=message, objective=objective, dispatch="token_hash")
    slots = random_placement(problem, 3)
    hashed, even = (score_layer(changed(problem, dispatch=each), slots) for each in ("token_hash", "even"))
    assert hashed.objective == even.objective
    np.testing.assert_array_equal(hashed.gpu_load, even.gpu_load)


def test_hashes_are_vllms() -> None:
    """floor(2**32 / phi) times the index in 32 bits, as its kernel has it."""
    assert token_hashes(np.arange(4)).tolist() == [0, 2654435769, 1013904242, 3668340011]
    assert token_hashes(np.array([1_000_003])).tolist() == [1_000_003 * 2654435769 % 2**32]


def test_drawn_copies_are_counted_by_slot_and_follow_the_scorer() -> None:
    problem = random_problem(5, experts=8, gpus=4, slots_per_gpu=5, k=2, tokens=50, dispatch="token_hash")
    slots = random_placement(problem, 5)
    assert problem.data.sets is not None
    ids = np.repeat(problem.data.sets.ids, 4096, axis=0)
    home = np.random.default_rng(0).integers(0, 4, len(ids))
    served = draw_slots(problem, slots, None, ids, home, 1)
    assert (slots[served] == ids).all()
    np.testing.assert_array_equal(served, draw_slots(problem, slots, None, ids, home, 2))
    for gpu in range(4):
        mine = home == gpu
        copies = [np.flatnonzero(slots == e) for e in ids[mine][:, 0]]
        turns = np.arange(mine.sum()) * 2654435769 % 2**32
        assert [c[t % len(c)] for c, t in zip(copies, turns, strict=True)] == served[mine][:, 0].tolist()
    gpus = served // 5
    reached = np.array([len(set(row)) for row in gpus.tolist()]).reshape(-1, 4096).mean(axis=1)
    expected = touch(problem, dispatch_shares(problem, slots)).gpu[0, 0].sum()
    assert problem.data.sets.weight[0] @ reached == pytest.approx(expected, rel=5e-3)


def test_longer_periods_are_sampled_as_vllms_first_tokens() -> None:
    """13, 11, 11, 9 and 8 copies: the choices of a token repeat after 10,296."""
    problem = random_problem(
        0, experts=5, gpus=13, gpus_per_node=1, slots_per_gpu=4, k=5, tokens=4, message="per_rank",
        dispatch="token_hash",
    )  # fmt: skip
    held: list[list[int]] = [[] for _ in range(13)]
    for expert, copies in enumerate((13, 11, 11, 9, 8)):
        for gpu in sorted(range(13), key=lambda g: (len(held[g]), g))[:copies]:
            held[gpu].append(expert)
    slots = np.array(held).reshape(-1)
    found = touch(problem, dispatch_shares(problem, slots)).gpu[0]
    np.testing.assert_allclose(found, _brute_force(problem, slots, 4), atol=3e-3)
    assert found.sum() == pytest.approx(_brute_force(problem, slots, 4).sum(), abs=3e-3)
