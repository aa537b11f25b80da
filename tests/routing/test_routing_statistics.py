"""Splits, windows and statistics against plain counting."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.errors import InputError
from placement.routing.parts import domain_edges, select_part, split_by_sequence, window_edges
from placement.routing.reader import example_trace, read_trace
from placement.routing.statistics import counts_statistics, layer_statistics
from placement.routing.synthesize import synthesize
from placement.routing.trace import LoadCounts, Trace


def _trace(seed: int, lens: list[int], experts: int = 9, top_k: int = 3, layers: int = 2) -> Trace:
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((layers, sum(lens), experts)), axis=2)[:, :, :top_k]
    return Trace(ids.astype(np.uint16), np.array(lens), experts, f"t{seed}", "recorded")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    lens=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    shape=st.sampled_from([(4, 1), (9, 3), (512, 22), (300, 7), (300, 8), (2, 2)]),
    windows=st.integers(1, 4),
)
def test_statistics_are_plain_counts(seed: int, lens: list[int], shape: tuple[int, int], windows: int) -> None:
    experts, top_k = shape
    sources = [_trace(seed, lens, experts, top_k), _trace(seed + 100, [5, 7], experts, top_k)]
    found = layer_statistics(sources, windows)
    pieces = []
    for trace in sources:
        edges = window_edges(trace, min(windows, len(trace.seq_lens)))
        pieces += [(trace, a, b) for a, b in pairwise(edges)]
    for layer, statistics in enumerate(found):
        assert statistics.sets is not None
        known = [tuple(row) for row in statistics.sets.ids.tolist()]
        assert len(set(known)) == len(known)
        for window, (trace, start, stop) in enumerate(pieces):
            ids = trace.topk_ids[layer, start:stop]
            load = np.bincount(ids.ravel(), minlength=experts) / len(ids)
            np.testing.assert_allclose(statistics.load[window], load)
            expected = Counter(tuple(sorted(row)) for row in ids.tolist())
            weight = dict(zip(known, statistics.sets.weight[window].tolist(), strict=True))
            assert {key for key, value in weight.items() if value > 0} == set(expected)
            for key, count in expected.items():
                assert weight[key] == pytest.approx(count / len(ids))
            assert statistics.window_weight[window] == pytest.approx(len(ids) / trace.tokens / 2)


def test_trace_weights() -> None:
    sources = [_trace(0, [10, 10]), _trace(1, [500])]
    assert layer_statistics(sources)[0].window_weight.tolist() == [0.5, 0.5]
    assert layer_statistics(sources, 2)[0].window_weight.tolist() == [0.25, 0.25, 0.5]


def test_counts() -> None:
    counts = LoadCounts(np.array([[[3.0, 1.0]], [[2.0, 10.0]]]), "c", "recorded")
    (layer,) = counts_statistics(counts, 1)
    np.testing.assert_allclose(layer.load, [[0.75, 0.25], [1 / 6, 5 / 6]])
    np.testing.assert_allclose(layer.window_weight, [0.25, 0.75])
    assert layer.sets is None
    with pytest.raises(InputError, match="3 of 2 experts"):
        counts_statistics(counts, 3)


def test_split_keeps_sequences_whole() -> None:
    trace = _trace(0, [4, 6, 3, 9, 2])
    first, second = split_by_sequence(trace)
    assert (first.seq_lens.tolist(), second.seq_lens.tolist()) == ([4, 6], [3, 9, 2])
    np.testing.assert_array_equal(np.concatenate([first.topk_ids, second.topk_ids], axis=1), trace.topk_ids)
    assert select_part(trace, "all") is trace
    np.testing.assert_array_equal(select_part(trace, "second-half").topk_ids, second.topk_ids)
    assert (first.meta["sequences"], second.meta["sequences"]) == ([[0, 2]], [[2, 5]])


def test_split_halves_each_domain() -> None:
    trace = read_trace(example_trace())
    assert isinstance(trace, Trace)
    assert domain_edges(trace).tolist() == [0, 16, 32, 48, 64, 80, 96]
    first, second = split_by_sequence(trace)
    assert first.meta["sequences"] == [[start, start + 8] for start in range(0, 96, 16)]
    np.testing.assert_array_equal(second.topk_ids[:, 2048:4096], trace.topk_ids[:, 6144:8192])
    assert first.tokens == second.tokens == 12288
    assert len(domain_edges(first)) == 2


def test_a_single_sequence_has_no_half() -> None:
    with pytest.raises(InputError, match="single sequence"):
        split_by_sequence(_trace(0, [6]))
    with pytest.raises(InputError, match="unknown"):
        select_part(_trace(0, [6]), "third")  # type: ignore[arg-type]


def test_windows() -> None:
    trace = _trace(0, [10, 1, 1, 10, 20, 2])
    assert window_edges(trace, 1).tolist() == [0, 44]
    assert window_edges(trace, 2).tolist() == [0, 22, 44]
    assert window_edges(trace, 6).tolist() == [0, 10, 11, 12, 22, 42, 44]
    for windows in (0, 7):
        with pytest.raises(InputError, match="cannot make"):
            window_edges(trace, windows)


def test_unlike_traces_are_refused() -> None:
    with pytest.raises(InputError, match=r"t1: experts: is 10, but 9 in t0"):
        layer_statistics([_trace(0, [5]), _trace(1, [5], experts=10)])
    with pytest.raises(InputError, match="no trace"):
        layer_statistics([])
    with pytest.raises(InputError, match="windows"):
        layer_statistics([_trace(0, [5])], 0)


def test_statistics_are_fast() -> None:
    trace = synthesize(26, 64, 6, 12_000, 60, 4.0, 1.0, 0)
    start = time.perf_counter()
    layer_statistics([trace], 4)
    assert time.perf_counter() - start < 2.0  # measured: 0.2
