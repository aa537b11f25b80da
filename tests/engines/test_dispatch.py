"""The copies that engines' own functions pick are those that are priced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.alltoall.concrete import draw_slots
from bench.dispatch_rules.engine_code import sglang_copies, vllm_slots
from placement.cost.layer.dispatch import dispatch_shares
from placement.cost.layer.dispatch.sglang_draw import drawn_copies
from placement.problem.topology import Topology
from tests.solvers.problems import random_placement, random_problem

EXPERTS, GPUS, LAYERS = 10, 8, 3


def _layers(dispatch: str, os_gpus: int) -> list[tuple]:
    topology = Topology(GPUS, 4, os_gpus=os_gpus)
    problems = [
        random_problem(seed, experts=EXPERTS, gpus=GPUS, slots_per_gpu=2, k=3, tokens=30, dispatch=dispatch,
                       topology=topology)
        for seed in range(LAYERS)
    ]  # fmt: skip
    return [(problem, _moved(random_placement(problem, seed), seed)) for seed, problem in enumerate(problems)]


def _moved(slots: np.ndarray, seed: int) -> np.ndarray:
    """GPUs in another order, so that some experts lie on one node alone."""
    return np.random.default_rng(seed).permutation(slots.reshape(GPUS, -1)).reshape(-1)


@pytest.mark.parametrize("os_gpus", [4, 2])
def test_sglang_lists_the_copies_that_we_price(sglang_wheel: Path, os_gpus: int) -> None:
    """`dynamic` draws from what a rank lists, `static` has drawn from it, by numbers that are drawn here as well."""
    pytest.importorskip("torch", reason="SGLang's functions need torch")
    layers = _layers("sglang_static", os_gpus)
    maps = np.stack([slots for _, slots in layers])
    served, listed = sglang_copies(str(sglang_wheel), maps, EXPERTS, GPUS, GPUS // os_gpus)
    drawn, ours = 0, drawn_copies(list(maps), layers[0][0].topology)
    for layer, (problem, slots) in enumerate(layers):
        shares = dispatch_shares(problem, slots)
        np.testing.assert_array_equal(served[:, layer], ours[layer])
        for rank in range(GPUS):
            for expert in range(EXPERTS):
                row = slice(*shares.start[rank * EXPERTS + expert : rank * EXPERTS + expert + 2])
                assert listed[rank][layer][expert] == shares.slot[row].tolist()
                assert served[rank, layer, expert] in shares.slot[row]
                drawn += len(shares.slot[row]) > 1
    assert drawn > (20 if os_gpus == 2 else 0)


def test_vllm_picks_the_copies_that_we_draw(vllm_wheel: Path) -> None:
    problem, slots = _layers("token_hash", 4)[0]
    rng = np.random.default_rng(1)
    ids = np.argsort(rng.random((5000, EXPERTS)), axis=1)[:, :3]
    count = np.bincount(slots, minlength=EXPERTS)
    copies = np.full((EXPERTS, count.max()), -1)
    for expert in range(EXPERTS):
        copies[expert, : count[expert]] = np.flatnonzero(slots == expert)
    home = rng.integers(0, GPUS, len(ids))
    ours = draw_slots(problem, slots, None, ids, home, 0)
    for gpu in range(GPUS):
        mine = home == gpu
        np.testing.assert_array_equal(vllm_slots(str(vllm_wheel), ids[mine], copies, count), ours[mine])
