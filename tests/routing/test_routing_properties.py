"""Whatever a trace file holds, reading it gives a sound trace, sound counts, or one InputError of one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from placement.errors import InputError
from placement.routing.parts import split_by_sequence, window_edges
from placement.routing.reader import read_trace
from placement.routing.statistics import counts_statistics, layer_statistics
from placement.routing.trace import LoadCounts, Trace
from tests.routing.mutations import EXPERTS, LAYERS, TOP_K, good_arrays, packed, trace_files


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=trace_files(), checked=st.booleans())
def test_mutated_files_raise_input_error_alone(tmp_path: Path, data: bytes, checked: bool) -> None:
    path = tmp_path / "mutated.npz"
    path.write_bytes(data)
    try:
        found = read_trace(path, EXPERTS, LAYERS, TOP_K, "small") if checked else read_trace(path)
        if isinstance(found, LoadCounts):
            assert np.isfinite(found.counts).all()
            assert (found.counts.sum(axis=2) > 0).all()
            counts_statistics(found, 1)
            return
        assert isinstance(found, Trace)
        assert int(found.topk_ids.max()) < found.experts
        assert found.seq_lens.sum() == found.tokens
        for layer in layer_statistics([found], 2):
            assert layer.load.sum(axis=1) == pytest.approx(found.top_k)
        if len(found.seq_lens) > 1:
            first, second = split_by_sequence(found)
            assert first.tokens + second.tokens == found.tokens
    except InputError as error:
        refusal = error
    else:
        return
    assert str(path) in str(refusal)
    assert "\n" not in str(refusal)
    assert refusal.problem
    assert refusal.mend


def test_the_unmutated_file_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "good.npz"
    path.write_bytes(packed(good_arrays()))
    found = read_trace(path, EXPERTS, LAYERS, TOP_K)
    assert isinstance(found, Trace)
    assert found.source == "a test"


@settings(max_examples=100, deadline=None)
@given(lens=st.lists(st.integers(1, 50), min_size=1, max_size=20), data=st.data())
def test_windows_are_whole_sequences(lens: list[int], data: st.DataObject) -> None:
    windows = data.draw(st.integers(1, len(lens)))
    tokens = sum(lens)
    trace = Trace(np.zeros((1, tokens, 1), np.uint8), np.array(lens), 4, "t", "recorded")
    edges = window_edges(trace, windows)
    assert len(edges) == windows + 1
    assert (np.diff(edges) > 0).all()
    assert set(edges.tolist()) <= {0, *np.cumsum(lens).tolist()}
    assert edges[-1] == tokens
