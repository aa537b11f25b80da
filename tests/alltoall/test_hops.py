"""The messages of one hop, against a plain loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.alltoall.hops import ABSENT, outgoing


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_every_choice_travels_once(seed: int, rows: int, k: int, members: int, distinct: bool) -> None:
    rng = np.random.default_rng(seed)
    slots, weights = rng.integers(0, 20, (rows, k)), rng.random((rows, k))
    to = rng.integers(ABSENT, members, (rows, k))
    sent = outgoing(slots, weights, to, members, distinct)
    assert sent.count.sum() == len(sent.row) == len(sent.slots)
    found = []
    member = np.repeat(np.arange(members), sent.count)
    for i, (row, receiver) in enumerate(zip(sent.row, member, strict=True)):
        for slot, weight in zip(sent.slots[i], sent.weights[i], strict=True):
            if slot != ABSENT:
                home = 1.0 if sent.home_weight is None else sent.home_weight[i]
                found.append((row, receiver, slot, round(float(weight * home), 5)))
    expected = [
        (row, to[row, j], slots[row, j], round(float(np.float32(weights[row, j])), 5))
        for row in range(rows) for j in range(k) if to[row, j] != ABSENT
    ]  # fmt: skip
    assert sorted(found) == sorted(expected)
    pairs = {(row, receiver) for row, receiver, _, _ in expected}
    assert len(sent.row) == (len(pairs) if distinct else len(expected))


def test_no_rows_are_no_messages() -> None:
    none = np.zeros((0, 3), dtype=np.int64)
    for distinct in (False, True):
        assert outgoing(none, none.astype(float), none, 4, distinct).count.tolist() == [0, 0, 0, 0]
