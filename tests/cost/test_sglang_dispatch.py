"""SGLang's rule by its words: the own GPU's copy, the first of the OS node's unless all are there, else any."""

from __future__ import annotations

import numpy as np
import pytest

from placement.cost.layer.dispatch import dispatch_shares
from placement.cost.layer.score import score_layer
from placement.errors import InputError
from placement.problem.arrays import EMPTY
from placement.problem.topology import Topology
from solvers.experts.search.arrays import search_data
from solvers.experts.search.layout import load_state
from solvers.experts.search.state import empty_state
from tests.layers import changed
from tests.solvers.problems import random_placement, random_problem, running_problem


def _told(slots: np.ndarray, expert: int, home: int, width: int, os_gpus: int) -> dict[int, float]:
    copies = np.flatnonzero(slots == expert).tolist()
    own = [slot for slot in copies if slot // width == home]
    near = [slot for slot in copies if slot // width // os_gpus == home // os_gpus]
    if len(copies) == 1 or own:
        return {(own or copies)[0]: 1.0}
    if 0 < len(near) < len(copies):
        return {near[0]: 1.0}
    return dict.fromkeys(copies, 1 / len(copies))


SHAPES = ((8, 4, 4), (8, 4, 2), (12, 6, 3), (8, 8, 2), (6, 2, 1), (4, 4, 4))


@pytest.mark.parametrize("dispatch", ["sglang_static", "sglang_dynamic"])
def test_shares_are_those_of_the_words(dispatch: str) -> None:
    """300 small layers of each; and the search's loads and touches with them."""
    for seed in range(300):
        gpus, m, os_gpus = SHAPES[seed % len(SHAPES)]
        make = random_problem if seed % 2 else running_problem
        problem = make(
            seed, experts=9, gpus=gpus, gpus_per_node=m, slots_per_gpu=-(-18 // gpus) + 1, k=3, tokens=20,
            dispatch=dispatch, topology=Topology(gpus, m, os_gpus=os_gpus),
        )  # fmt: skip
        slots, width = random_placement(problem, seed), problem.hardware.slots_per_gpu
        shares = dispatch_shares(problem, slots)
        for home in range(gpus):
            for expert in range(9):
                row = slice(*shares.start[home * 9 + expert : home * 9 + expert + 2])
                found = dict(zip(shares.slot[row].tolist(), shares.fraction[row].tolist(), strict=True))
                assert found == _told(slots, expert, home, width, os_gpus)
        _same_loads_in_the_search(problem, slots)


def _same_loads_in_the_search(problem, slots) -> None:
    data = search_data(problem, slots)
    state = empty_state(data, slots[problem.hardware.usable])
    load_state(data, state, False)
    score = score_layer(problem, slots)
    load = score.gpu_load.mean(axis=0) / problem.hardware.relative_speed
    np.testing.assert_allclose(
        state.busy.load, load * problem.hardware.alive.sum() / score.gpu_load[0].sum(), atol=1e-9
    )


def test_os_nodes_are_all_of_a_node_by_default() -> None:
    """With copies on two nodes the first of a node's serves it, where `nearest` shares out."""
    assert Topology(8, 4) == Topology(8, 4, 1, 4)
    with pytest.raises(InputError, match="os_gpus"):
        Topology(8, 4, os_gpus=3)
    problem = random_problem(0, experts=4, gpus=8, gpus_per_node=4, slots_per_gpu=1, k=1, dispatch="sglang_static")
    slots = np.array([0, 1, 0, 2, 0, 3, 3, 1])
    assert EMPTY not in slots
    static, nearest = (score_layer(changed(problem, dispatch=each), slots) for each in ("sglang_static", "nearest"))
    load = problem.data.mean_load[0]
    # Of GPUs 0 to 3: two serve their own tokens, and the first those of the others as well.
    np.testing.assert_allclose(static.slot_load[0, [0, 2, 4]] / load, [3 / 8, 1 / 8, 1 / 2])
    np.testing.assert_allclose(nearest.slot_load[0, [0, 2, 4]] / load, [1 / 4, 1 / 4, 1 / 2])
