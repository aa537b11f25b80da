"""What engines record besides routing is recognized, named, and dropped or refused with that cause."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement.errors import InputError
from placement.routing.reader import example_trace, read_trace
from placement.routing.recordings import converting
from placement.routing.recordings.converting import Conversion, convert
from placement.routing.recordings.shape import ModelShape
from placement.routing.trace import LoadCounts, Trace
from tests.routing.recordings.samples import SHAPE, counts, ids, npz, truth

NO_MODEL = ModelShape()


def _converted(tmp_path: Path, shape: ModelShape = SHAPE, **arrays: Any) -> tuple[Conversion, Trace | LoadCounts]:
    (tmp_path / "t.npz").write_bytes(npz(**arrays))
    done = convert([tmp_path / "t.npz"], tmp_path / "out.npz", shape)
    return done, read_trace(tmp_path / "out.npz")


def _trace(tmp_path: Path, shape: ModelShape = SHAPE, **arrays: Any) -> tuple[str, Trace]:
    done, found = _converted(tmp_path, shape, **arrays)
    assert isinstance(found, Trace)
    return " / ".join(done.notes), found


def _counts(tmp_path: Path, array: np.ndarray, shape: ModelShape = SHAPE) -> tuple[str, np.ndarray]:
    done, found = _converted(tmp_path, shape, counts=array)
    assert isinstance(found, LoadCounts)
    return " / ".join(done.notes), found.counts


def _refused(tmp_path: Path, shape: ModelShape = SHAPE, **arrays: Any) -> str:
    (tmp_path / "t.npz").write_bytes(npz(**arrays))
    with pytest.raises(InputError) as caught:
        convert([tmp_path / "t.npz"], tmp_path / "out.npz", shape)
    text = str(caught.value)
    assert "\n" not in text
    assert "is of another model" not in text
    return text


@pytest.mark.parametrize("shape", [SHAPE, NO_MODEL])
@pytest.mark.parametrize("padding", [-1, 8, 65535])
def test_padded_tokens_are_dropped(shape: ModelShape, padding: int, tmp_path: Path) -> None:
    padded = ids().astype(np.int64)
    padded[[3, 4, 39]] = padding
    notes, found = _trace(tmp_path, shape, topk_ids=padded, seq_lens=np.array([10, 18, 12]))
    assert "dropped 3 tokens: padding" in notes
    assert np.array_equal(found.topk_ids, np.delete(truth(), [3, 4, 39], axis=1))
    assert found.seq_lens.tolist() == [8, 18, 11]


def test_a_token_padded_in_one_layer_is_dropped(tmp_path: Path) -> None:
    padded = ids()
    padded[5, 2] = -1
    notes, found = _trace(tmp_path, topk_ids=padded)
    assert "dropped 1 tokens: padding" in notes
    assert found.tokens == 39


@pytest.mark.parametrize("shape", [SHAPE, NO_MODEL])
def test_profile_runs_at_equal_weights_are_dropped(shape: ModelShape, tmp_path: Path) -> None:
    """64 tokens of the same experts at the start, as engines make them to measure memory."""
    rng = np.random.default_rng(1)
    profile = np.broadcast_to(np.array([[0, 0], [1, 5], [2, 0], [7, 3]]), (64, 4, 2))
    weights = np.concatenate([np.full((64, 4, 2), 0.5), rng.random((40, 4, 2))]).astype(np.float32)
    notes, found = _trace(tmp_path, shape, topk_ids=np.concatenate([profile, ids()]), topk_weights=weights)
    assert "dropped 64 tokens: profile run (constant ids at equal weights)" in notes
    assert np.array_equal(found.topk_ids, truth())


def test_constant_ids_at_other_weights_are_routing(tmp_path: Path) -> None:
    same = ids()
    same[10:30] = same[10]
    weights = np.random.default_rng(1).random((40, 4, 2)).astype(np.float32)
    notes, found = _trace(tmp_path, topk_ids=same, topk_weights=weights)
    assert "profile" not in notes
    assert found.tokens == 40


def test_profile_runs_without_weights_have_to_be_long(tmp_path: Path) -> None:
    profile = np.broadcast_to(np.array([[0, 0], [1, 5], [2, 0], [7, 3]]), (64, 4, 2))
    notes, found = _trace(tmp_path, topk_ids=np.concatenate([profile, ids()]))
    assert "dropped 64 tokens: profile run (constant ids)" in notes
    assert found.tokens == 40
    notes, found = _trace(tmp_path, topk_ids=np.concatenate([profile[:40], ids()]))
    assert "profile" not in notes
    assert found.tokens == 80


def test_nothing_of_real_routing_is_dropped(tmp_path: Path, shared_dir: Path) -> None:
    for path in (example_trace(), *sorted((shared_dir / "traces").glob("dsv2lite_*.npz"))):
        done = convert([path], tmp_path / "out.npz", NO_MODEL)
        before, after = read_trace(path), read_trace(tmp_path / "out.npz")
        assert isinstance(before, Trace)
        assert isinstance(after, Trace)
        assert np.array_equal(before.topk_ids, after.topk_ids)
        assert np.array_equal(before.seq_lens, after.seq_lens)
        assert not [note for note in done.notes if "dropped" in note]


@pytest.mark.parametrize("shape", [SHAPE, NO_MODEL])
def test_a_fused_shared_expert_is_dropped(shape: ModelShape, tmp_path: Path) -> None:
    """Column k+1 with an id behind the routed experts' (several ids where it has copies)."""
    shared = np.random.default_rng(0).integers(8, 10, (40, 4, 1)) * (np.arange(4) > 0)[:, None]
    notes, found = _trace(tmp_path, shape, topk_ids=np.concatenate([ids(), shared], axis=2))
    assert "dropped column 2: a fused shared expert" in notes
    assert np.array_equal(found.topk_ids, truth())


def test_one_expert_too_many_that_is_not_shared_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    three = np.argsort(rng.random((40, 4, 8)), axis=2)[:, :, :3] * (np.arange(4) > 0)[:, None]
    assert "has 3 experts a token, small has 2; none is a shared expert" in _refused(tmp_path, topk_ids=three)


def test_slots_instead_of_experts_are_refused(tmp_path: Path) -> None:
    slots = ids() + np.where(ids() > 4, 3, 0)
    text = _refused(tmp_path, topk_ids=slots)
    assert "holds the id 10, small has 8 experts: ids are slots of a placement" in text
    text = _refused(tmp_path, counts=np.ones((4, 12), int) * (np.arange(4) > 0)[:, None])
    assert "counts 12 columns, small has 8 experts: they are slots of a placement" in text


def test_columns_that_are_never_used_are_dropped(tmp_path: Path) -> None:
    notes, found = _trace(tmp_path, topk_ids=np.concatenate([ids(), np.full((40, 4, 6), -1)], axis=2))
    assert "dropped 6 of 8 columns: never used (-1)" in notes
    assert np.array_equal(found.topk_ids, truth())


def test_dense_rows_are_dropped_and_missing_layers_refused(tmp_path: Path) -> None:
    notes, _ = _trace(tmp_path, topk_ids=ids())
    assert "dropped layer 0: no routing (dense layers)" in notes
    missing = ids()
    missing[:, 2] = 0
    assert "has no routing in layer 2, where small has experts" in _refused(tmp_path, topk_ids=missing)
    wrong = ids()
    wrong[:, 0] = wrong[:, 1]
    assert "has routing in layer 0, where small is dense" in _refused(tmp_path, topk_ids=wrong)


def test_next_token_layers_are_dropped(tmp_path: Path) -> None:
    more = np.concatenate([counts(), counts()[1:2]])
    (tmp_path / "t.csv").write_text("\n".join(",".join(map(str, row)) for row in more))
    with pytest.raises(InputError):
        convert([tmp_path / "t.csv"], tmp_path / "out.npz", ModelShape(8, 2, 4, (0, 1, 2, 3), "small"))
    done = convert([tmp_path / "t.csv"], tmp_path / "out.npz", SHAPE)
    assert "dropped layer 4: beyond the 4 layers (next-token prediction)" in done.notes
    assert done.layers == 3


def test_every_order_of_axes_is_recognized(tmp_path: Path) -> None:
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1), (1, 2, 0), (2, 1, 0)):
        notes, found = _trace(tmp_path, topk_ids=ids().transpose(order))
        assert np.array_equal(found.topk_ids, truth())
        assert ("took the axes as" in notes) == (order != (1, 0, 2))
        windows = np.stack([counts(ids()[:20]), counts(ids()[20:])])
        _, array = _counts(tmp_path, windows.transpose(order))
        assert np.array_equal(array, windows[:, 1:])


@pytest.mark.parametrize("shape", [SHAPE, NO_MODEL])
def test_a_shared_expert_that_counts_every_token_is_dropped(shape: ModelShape, tmp_path: Path) -> None:
    table = np.concatenate([counts(), np.array([[0], [40], [40], [40]])], axis=1)
    notes, found = _counts(tmp_path, table, shape)
    assert "dropped column 8: a fused shared expert (every token)" in notes
    assert np.array_equal(found[0], counts()[1:])


def test_windows_of_a_profile_run_are_dropped(tmp_path: Path) -> None:
    """All 512 tokens of a pass took the same two experts in each layer."""
    profile = np.zeros((4, 8), int)
    profile[[1, 1, 2, 2, 3, 3], [0, 5, 2, 7, 1, 3]] = 512
    notes, found = _counts(tmp_path, np.stack([profile, counts(), counts()]))
    assert "dropped 1 of 3 windows: profile run" in notes
    assert np.array_equal(found, [counts()[1:]] * 2)


def test_means_become_whole_numbers(tmp_path: Path) -> None:
    means = counts()[None] / 7.0
    notes, found = _counts(tmp_path, means)
    assert "counts are means or shares: times 100,000, rounded" in notes
    assert np.allclose(found[0] / found[0].sum(axis=1, keepdims=True), counts()[1:] / 80, atol=1e-6)
    assert "too unevenly" in _refused(tmp_path, counts=means * np.array([1, 1, 1e-308, 1])[:, None])
    assert "is no count" in _refused(tmp_path, counts=-means)
    assert "is no count" in _refused(tmp_path, counts=means * np.nan)


def test_counts_beyond_what_sums_hold_are_scaled(tmp_path: Path) -> None:
    notes, found = _counts(tmp_path, counts().astype(float) * 2.0**40)
    assert "counts are very large" in notes
    assert np.allclose(found[0] / found[0].sum(axis=1, keepdims=True), counts()[1:] / 80, atol=1e-9)


def test_local_experts_of_one_rank_are_refused(tmp_path: Path) -> None:
    assert "give the files of all ranks together" in _refused(tmp_path, counts=counts()[:, :4])


def test_an_expert_used_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.npz").write_bytes(npz(topk_ids=np.concatenate([ids(), ids()], axis=2)))
    with pytest.raises(InputError, match=r"layer 1, token 0: uses an expert twice"):
        convert([tmp_path / "t.npz"], tmp_path / "out.npz", NO_MODEL, axes=("tokens", "layers", "k"))


def test_a_recording_of_padding_alone_is_refused(tmp_path: Path) -> None:
    assert "holds no routing" in _refused(tmp_path, topk_ids=np.full((40, 4, 2), -1), seq_lens=np.array([40]))


def test_long_recordings_keep_whole_sequences_evenly_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.array([4] * 10)
    (tmp_path / "t.npz").write_bytes(npz(topk_ids=ids(), seq_lens=lengths))
    done = convert([tmp_path / "t.npz"], tmp_path / "out.npz", SHAPE, most_tokens=15)
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, Trace)
    assert found.seq_lens.tolist() == [4, 4, 4]
    assert np.array_equal(found.topk_ids, truth().reshape(3, 10, 4, 2)[:, [0, 4, 8]].reshape(3, 12, 2))
    assert any(re.match(r"kept every 4\. sequence, 12 of 40 tokens", note) for note in done.notes)
    monkeypatch.setattr(converting, "MAX_ARRAY_BYTES", 3 * 2 * 20)
    assert convert([tmp_path / "t.npz"], tmp_path / "out.npz", SHAPE).tokens == 20
    with pytest.raises(InputError, match="are fewer than the first sequence has"):
        convert([tmp_path / "t.npz"], tmp_path / "out.npz", SHAPE, most_tokens=3)
