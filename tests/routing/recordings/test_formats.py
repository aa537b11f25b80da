"""Every form of the same recording gives the same trace or counts, by the file alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from placement.errors import InputError, MissingExtraError
from placement.routing.reader import read_trace
from placement.routing.recordings.converting import convert
from placement.routing.recordings.detect import FORMATS, find_format
from placement.routing.recordings.shape import ModelShape
from placement.routing.trace import LoadCounts, Trace
from tests.routing.recordings import samples
from tests.routing.recordings.samples import LENGTHS, NEEDS, SAMPLES, SHAPE, counts, truth, written


@pytest.mark.parametrize("name", SAMPLES)
def test_every_form_gives_the_same_routing(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    done = convert([written(name, tmp_path)], tmp_path / "out.npz", SHAPE)
    found = read_trace(tmp_path / "out.npz", 8, 3, 2, "small")
    if SAMPLES[name][2]:
        assert isinstance(found, Trace)
        assert np.array_equal(found.topk_ids, truth())
        if name != "npz_by_layer":
            assert found.seq_lens.tolist() == list(LENGTHS)
        assert (done.kind, done.tokens, done.top_k) == ("trace", 40, 2)
    else:
        assert isinstance(found, LoadCounts)
        assert np.array_equal(found.counts.sum(axis=0), counts()[1:])
        assert found.meta["top_k"] == 2
        assert (done.kind, done.windows) == ("counts", len(found.counts))
    if (
        done.notes
        and not name.startswith("trtllm")
        and name not in ("vllm_loads", "csv_tokens", "csv_lists", "json_rows")
    ):
        assert any("dense" in note for note in done.notes) or name in ("npz_by_layer", "parquet_tokens")


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in ("sglang_responses", "npy_counts_turned")])
def test_without_a_model_the_same_is_recognized(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    convert([written(name, tmp_path)], tmp_path / "out.npz", ModelShape())
    found = read_trace(tmp_path / "out.npz")
    assert (found.layers, found.experts) == (3, 8)
    if isinstance(found, Trace):
        assert np.array_equal(found.topk_ids, truth())


def test_windows_stay_apart_and_idle_ones_are_dropped(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = convert([written("sglang_stat", tmp_path)], tmp_path / "out.npz", SHAPE)
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, LoadCounts)
    assert np.array_equal(found.counts, [counts(each)[1:] for each in samples.sequences()])
    assert "dropped 1 of 4 windows: no tokens" in done.notes
    convert([written("sglang_stat", tmp_path)], tmp_path / "one.npz", SHAPE, windows=1)
    one = read_trace(tmp_path / "one.npz")
    assert isinstance(one, LoadCounts)
    assert np.array_equal(one.counts[0], counts()[1:])


def test_ranks_of_per_pass_dumps_are_added_up(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "b.pt").write_bytes(samples.sglang_per_pass())
    path = written("sglang_per_pass", tmp_path)
    convert([path, tmp_path / "b.pt"], tmp_path / "out.npz", SHAPE)
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, LoadCounts)
    assert np.array_equal(found.counts.sum(axis=0), 2 * counts()[1:])


def test_a_folder_of_tensorrt_llm(tmp_path: Path) -> None:
    folder = tmp_path / "expert_statistic"
    folder.mkdir()
    written("trtllm_counts", folder)
    (folder / "rank1.safetensors").write_bytes(samples.trtllm_counts())
    (folder / "meta_info.json").write_text(json.dumps({"num_experts": 8, "num_experts_per_token": 2}))
    done = convert([folder], tmp_path / "out.npz", ModelShape())
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, LoadCounts)
    assert np.array_equal(found.counts.sum(axis=0), 2 * counts()[1:])
    assert done.top_k == 2
    for rank in (0, 1):
        (folder / f"rank{rank}_raw.safetensors").write_bytes(samples.trtllm_raw())
    done = convert([folder], tmp_path / "out.npz", ModelShape())
    assert (done.kind, done.tokens) == ("trace", 40)
    assert any("all 2 ranks hold the same tokens" in note for note in done.notes)
    (folder / "meta_info.json").write_text(json.dumps({"num_experts": 9, "num_experts_per_token": 2}))
    with pytest.raises(InputError, match=r"says 9 experts a layer, but small has 8"):
        convert([folder], tmp_path / "out.npz", SHAPE)


def test_named_axes_count(tmp_path: Path) -> None:
    (tmp_path / "t.npy").write_bytes(samples.npy(samples.ids()[:3, 1:]))
    with pytest.raises(InputError, match="whose axes can't be told"):
        convert([tmp_path / "t.npy"], tmp_path / "out.npz", ModelShape(), form="array")
    convert([tmp_path / "t.npy"], tmp_path / "out.npz", ModelShape(), axes=("tokens", "layers", "k"))
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, Trace)
    assert np.array_equal(found.topk_ids, truth()[:, :3])
    with pytest.raises(InputError, match="axes"):
        convert([tmp_path / "t.npy"], tmp_path / "out.npz", ModelShape(), axes=("tokens", "k"))


def test_fortran_order_and_float_ids(tmp_path: Path) -> None:
    array = np.asfortranarray(samples.ids().astype(np.float32))
    (tmp_path / "t.npz").write_bytes(samples.npz(topk_ids=array))
    convert([tmp_path / "t.npz"], tmp_path / "out.npz", SHAPE)
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, Trace)
    assert np.array_equal(found.topk_ids, truth())


def test_router_weights_are_kept(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).random(samples.ids().shape).astype(np.float32)
    (tmp_path / "t.npz").write_bytes(samples.npz(topk_ids=samples.ids(), topk_weights=weights))
    convert([tmp_path / "t.npz"], tmp_path / "out.npz", SHAPE)
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, Trace)
    assert found.topk_weights is not None
    assert np.allclose(found.topk_weights, weights[:, 1:].transpose(1, 0, 2), atol=1e-3)


def test_a_log_of_eplb_is_refused_with_what_to_do(tmp_path: Path) -> None:
    line = "INFO 07:00 EPLB step: 100 for model x: avg_tokens=12.00, max_tokens=20, balancedness=0.6000, steps ...\n"
    (tmp_path / "server.log").write_text(line * 3)
    with pytest.raises(InputError, match="one balancedness a step and no expert's load"):
        convert([tmp_path / "server.log"], tmp_path / "out.npz", SHAPE)


def test_a_missing_package_is_named_with_its_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'placement\[parquet\]'"):
        convert([tmp_path / "t.parquet"], tmp_path / "out.npz", SHAPE)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is an empty file"),
        (b"\x80\x02}q\x00.", "is a bare pickle, which is never loaded"),
        (b"\x1f\x8b\x08" + bytes(30), "is compressed"),
        (b"\x01\x02\0\x04" * 9, "is of no known format"),
        (b"hello\nworld\n", "has the columns hello"),
        (b'{"a": [1, 2]}', "has the keys a"),
        (b'{"choices": [{"text": "x"}]}', "is in none of 1 responses"),
    ],
)
def test_what_is_no_recording_is_refused(data: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match=problem):
        convert([tmp_path / "x"], tmp_path / "out.npz", SHAPE)


def test_files_of_several_formats_are_refused(tmp_path: Path) -> None:
    first, second = written("csv_tokens", tmp_path), written("vllm_responses", tmp_path)
    with pytest.raises(InputError, match="is of another format than the others: csv, vllm"):
        find_format([first, second])
    assert find_format([first], "json") is FORMATS["json"]


def test_the_same_recording_gives_the_same_bytes(tmp_path: Path) -> None:
    path = written("csv_tokens", tmp_path)
    for name in ("a.npz", "b.npz"):
        convert([path], tmp_path / name, SHAPE)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".placement")]


def test_fused_shared_experts_behind_the_slots_are_left_out(tmp_path: Path) -> None:
    """SGLang's recorder with shared experts fused: their ids follow the slots."""
    torch = pytest.importorskip("torch")
    tokens = samples.ids()
    slots = samples.slots_of(tokens)
    shared = np.full((4, 40, 1), samples.SLOTS.shape[1], np.int32)
    shared[0] = -1
    wide = np.concatenate([slots, shared, np.full((4, 40, 5), -1, np.int32)], axis=2)
    record = {"topk_ids_of_layer": torch.tensor(wide), "extend_seq_lens": None}
    data = {"records": [record], "last_physical_to_logical_map": torch.tensor(samples.SLOTS)}
    (tmp_path / "dump.pt").write_bytes(samples.pt(data))
    done = convert([tmp_path / "dump.pt"], tmp_path / "out.npz", SHAPE)
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, Trace)
    assert np.array_equal(found.topk_ids, truth())
    assert any("a fused shared expert" in note for note in done.notes)
    assert any("passes of decoding count as a sequence each" in note for note in done.notes)


def test_the_library_s_own_safetensors_files_are_read(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    tensors = {f"50_{layer}": counts()[layer].astype(np.int64) for layer in (1, 2, 3)}
    library.save_file(tensors, tmp_path / "rank0.safetensors")
    convert([tmp_path / "rank0.safetensors"], tmp_path / "out.npz", SHAPE)
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, LoadCounts)
    assert np.array_equal(found.counts[0], counts()[1:])


def test_the_same_pass_of_two_ranks_is_one_window(tmp_path: Path) -> None:
    """Ranks dump one file each; a pass's counts lie in both, under its number."""
    torch = pytest.importorskip("torch")
    table = torch.arange(8).expand(4, 8).clone()
    each = samples.counts()
    for rank in (0, 1):
        mine = each * (np.arange(8) // 4 == rank)  # the experts of this rank alone
        records = [{"forward_pass_id": 6 + n, "global_physical_count": torch.tensor(mine * n)} for n in (1, 2, 3)]
        data = {"records": records, "last_physical_to_logical_map": table}
        (tmp_path / f"{rank}.pt").write_bytes(samples.pt(data))
    convert([tmp_path / "0.pt", tmp_path / "1.pt"], tmp_path / "out.npz", SHAPE)
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, LoadCounts)
    assert np.array_equal(found.counts, [each[1:] * n for n in (1, 2, 3)])


def test_many_windows_are_added_up_in_order(tmp_path: Path) -> None:
    """1,200 windows, more than are kept apart, become eight: none is lost, and neighbours stay together."""
    windows = np.arange(1, 1201)[:, None, None] * np.ones((1, 3, 8), int)
    (tmp_path / "c.npz").write_bytes(samples.npz(counts=windows))
    convert([tmp_path / "c.npz"], tmp_path / "out.npz", ModelShape(), windows=8)
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, LoadCounts)
    assert found.counts.shape == (8, 3, 8)
    assert found.counts[:, 0, 0].sum() == 1200 * 1201 // 2
    assert (np.diff(found.counts[:, 0, 0]) > 0).all()


def test_a_log_is_found_behind_a_long_start(tmp_path: Path) -> None:
    line = "INFO 07:00 EPLB step: 7 for model x: avg_tokens=12.00, max_tokens=20, balancedness=0.6000, steps ...\n"
    (tmp_path / "server.log").write_text("INFO loading weights\n" * 20_000 + line)
    assert find_format([tmp_path / "server.log"]) is FORMATS["vllm-log"]


def test_sequences_end_with_the_first_layer_of_the_table(tmp_path: Path) -> None:
    """The rows' first layer is not the least one, and a batch holds whole sequences."""
    rows = [f"{token // 2},{layer},{token % 4},{4 + token % 3}" for token in range(6) for layer in (2, 0, 1)]
    (tmp_path / "t.csv").write_text("\n".join(["sequence,layer,expert_0,expert_1", *rows]))
    convert([tmp_path / "t.csv"], tmp_path / "out.npz", ModelShape())
    found = read_trace(tmp_path / "out.npz")
    assert isinstance(found, Trace)
    assert found.seq_lens.tolist() == [2, 2, 2]


def test_progress_is_told_by_stage_in_mb(tmp_path: Path) -> None:
    ids = np.tile(samples.ids().astype(np.int64), (2000, 1, 1))
    (tmp_path / "t.npy").write_bytes(samples.npy(ids))
    told: list[tuple[str, int, int]] = []
    convert([tmp_path / "t.npy"], tmp_path / "out.npz", SHAPE, tell=lambda *now: told.append(now))
    stages = {stage: [done for name, done, _ in told if name == stage] for stage, _, _ in told}
    assert list(stages) == ["reading, MB", "checking, MB", "writing, MB"]
    assert stages["reading, MB"][-1] == told[0][2] == 5
    assert all(done == sorted(set(done)) for done in stages.values())
    assert all(done <= total for _, done, total in told)
