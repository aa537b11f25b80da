"""Transfers between placements: bytes are conserved, fast links serve where they can, sources share the load."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.layer.transfer import Transfer, transfer
from placement.errors import InputError
from placement.problem.arrays import EMPTY
from placement.problem.moves import moves_between
from placement.problem.topology import Topology
from tests.solvers.problems import RATES

BYTES = 1e6


def random_slots(rng: np.random.Generator, gpus: int, per_gpu: int, experts: int) -> np.ndarray:
    rows = [rng.permutation(experts)[:per_gpu] for _ in range(gpus)]
    slots = np.concatenate(rows)
    return np.where(rng.random(len(slots)) < 0.15, EMPTY, slots)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Topology, np.ndarray, np.ndarray, int, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m, nodes = draw(st.sampled_from([(1, 1), (2, 1), (4, 1), (4, 2)])), draw(st.integers(1, 4))
    topology = Topology(m[0] * nodes, *m)
    per_gpu, experts = draw(st.integers(1, 4)), draw(st.integers(4, 12))
    before, after = (random_slots(rng, topology.gpus, per_gpu, experts) for _ in range(2))
    alive = rng.random(topology.gpus) < 0.8
    after[~np.repeat(alive, per_gpu)] = EMPTY
    return topology, before, after, per_gpu, alive


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_move_arrives_once_and_leaves_a_holder(case) -> None:
    topology, before, after, per_gpu, alive = case
    found = transfer(topology, before, after, per_gpu, BYTES, RATES, alive)
    m, held = topology.gpus_per_node, [set(row) - {EMPTY} for row in before.reshape(topology.gpus, -1).tolist()]
    wanted = [set(row) - {EMPTY} for row in after.reshape(topology.gpus, -1).tolist()]
    fast, slow, loaded = [0] * topology.gpus, [0] * topology.gpus, 0
    for g in range(topology.gpus):
        for e in wanted[g] - held[g]:
            sources = [h for h in range(topology.gpus) if alive[h] and e in held[h]]
            if any(h // m == g // m for h in sources):
                fast[g] += 1
            else:
                slow[g] += 1
                loaded += not sources
    assert found.fast_in.tolist() == [n * BYTES for n in fast]
    assert found.slow_in.tolist() == [n * BYTES for n in slow]
    assert found.moves == sum(fast) + sum(slow) == moves_between(before, after, per_gpu)
    assert found.loaded == loaded
    assert found.fast_out.sum() == found.fast_in.sum()
    assert found.slow_out.sum() == found.slow_in.sum() - loaded * BYTES
    assert not found.slow_out[~alive].any()
    assert not found.fast_out[~alive].any()
    assert found.bytes == found.moves * BYTES


def test_times_of_the_busiest_link() -> None:
    topology = Topology(4, 2)
    before = np.array([0, 1, 2, 3, 4, 5, 6, 7])
    assert transfer(topology, before, before[::-1].reshape(4, 2)[::-1].reshape(-1), 2, BYTES, RATES).seconds == 0
    near = transfer(topology, before, np.array([0, 2, 1, 3, 4, 5, 6, 7]), 2, BYTES, RATES)
    assert (near.moves, near.seconds) == (2, pytest.approx(BYTES / RATES.fast_bytes_per_s))
    across = transfer(topology, before, np.array([0, 4, 2, 3, 1, 5, 6, 7]), 2, BYTES, RATES)
    assert across.seconds == pytest.approx(BYTES / RATES.slow_bytes_per_s)
    trays = transfer(Topology(4, 2, 2), before, np.array([0, 4, 2, 3, 1, 5, 6, 7]), 2, BYTES, RATES)
    assert trays.seconds == pytest.approx(BYTES / RATES.slow_bytes_per_s / 2)


def test_sources_share_the_load() -> None:
    """Experts 0 and 1 are on GPUs 0 and 1 of one node; the four GPUs of the other node want one of them each."""
    topology, before = Topology(8, 4), np.full(16, EMPTY)
    before[:4] = [0, 1, 0, 1]
    after = before.copy()
    after[8::2] = [0, 1, 0, 1]
    found = transfer(topology, before, after, 2, BYTES, RATES)
    assert found.slow_out[:2].tolist() == [2 * BYTES, 2 * BYTES]
    # An expert with one holder goes first, so that one with two holders comes from the other GPU.
    before[:4] = [0, 1, 0, EMPTY]
    after = before.copy()
    after[8], after[10] = 0, 1
    found = transfer(topology, before, after, 2, BYTES, RATES)
    assert found.slow_out[:2].tolist() == [BYTES, BYTES]


def test_lost_experts_come_from_storage() -> None:
    topology, before = Topology(3, 1), np.array([0, 1, 2])
    found = transfer(topology, before, np.array([EMPTY, 1, 0]), 1, BYTES, RATES, np.array([False, True, True]))
    assert (found.moves, found.loaded, found.slow_in.tolist()) == (1, 1, [0, 0, BYTES])
    assert found.slow_out.sum() == 0
    assert transfer(topology, before, np.array([EMPTY, 1, 0]), 1, BYTES, RATES).slow_out.tolist() == [BYTES, 0, 0]


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_layers_add_up(case, seed: int) -> None:
    topology, before, after, per_gpu, alive = case
    one = transfer(topology, before, after, per_gpu, BYTES, RATES, alive)
    back = transfer(topology, after, before, per_gpu, 2 * BYTES, RATES)
    both = one + back + one
    assert isinstance(both, Transfer)
    for field in fields(Transfer)[3:]:
        expected = 2 * getattr(one, field.name) + getattr(back, field.name)
        np.testing.assert_array_equal(getattr(both, field.name), expected)
    assert max(one.seconds, back.seconds) <= both.seconds <= 2 * one.seconds + back.seconds + 1e-12


def test_bad_input_is_refused() -> None:
    slots = np.array([0, 1, 2, 3])
    for arguments, word in (
        ((Topology(2, 1), slots[:3], slots, 2, BYTES, RATES), "current"),
        ((Topology(2, 1), slots, slots[:2], 2, BYTES, RATES), "slots"),
        ((Topology(2, 1), slots, slots, 2, float("nan"), RATES), "expert_bytes"),
        ((Topology(2, 1), slots, slots, 2, BYTES, RATES, np.ones(3, dtype=bool)), "alive"),
    ):
        with pytest.raises(InputError, match=word):
            transfer(*arguments)
    one = transfer(Topology(2, 1), slots, slots, 2, BYTES, RATES)
    with pytest.raises(InputError, match="unlike"):
        one + transfer(Topology(2, 2), slots, slots, 2, BYTES, RATES)
