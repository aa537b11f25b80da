"""Levers against published pairs."""

from __future__ import annotations

from statistics import median

from bench.accuracy.levers import read_pairs, report


def test_pairs() -> None:
    """Half of the predicted ratios are within 10% of the published ones, and no lever points the other way."""
    pairs = read_pairs()
    assert {pair.lever for pair in pairs} == {"speculation", "prefix cache", "chunk", "CUDA graphs"}
    assert all(pair.source for pair in pairs)
    assert median(abs(pair.error) for pair in pairs) < 0.11
    for pair in pairs:
        if pair.published > 1.2:
            assert pair.predicted > 1.05, pair.case
    by_case = {pair.case: pair for pair in pairs}
    # The best draft is of two or three tokens, at a batch of one.
    speeds = [by_case[f"MTP {draft}"].predicted for draft in range(1, 6)]
    assert max(speeds) < 1.06 * speeds[2]
    assert speeds[0] < speeds[1] > 2.0
    text = report().text
    assert all(pair.lever in text for pair in pairs)
