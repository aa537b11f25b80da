"""The trace format: round trips, and one named defect each."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement.errors import InputError
from placement.routing import archive
from placement.routing.parts import split_by_sequence
from placement.routing.reader import MAX_COUNTED, check_fits, example_trace, read_trace
from placement.routing.synthesize import synthesize
from placement.routing.trace import LoadCounts, Trace
from tests.routing.mutations import good_arrays, packed

ROOT = Path(__file__).resolve().parents[2]


def write_trace(trace: Trace, path: Path) -> None:
    """Writes a trace that read_trace gives back."""
    arrays = {} if trace.topk_weights is None else {"topk_weights": trace.topk_weights}
    meta = {**trace.meta, "moe_layers": trace.layers, "experts": trace.experts, "top_k": trace.top_k}
    np.savez_compressed(
        path, topk_ids=trace.topk_ids.astype(np.min_scalar_type(max(0, trace.experts - 1))), seq_lens=trace.seq_lens,
        meta=np.array(json.dumps({**meta, "source": trace.source})), **arrays,
    )  # fmt: skip


def _file(tmp_path: Path, **changes: Any) -> Path:
    arrays = {**good_arrays(), **changes}
    path = tmp_path / "trace.npz"
    path.write_bytes(packed({key: value for key, value in arrays.items() if value is not None}))
    return path


def _ids(layer: int, token: int, choice: int, value: int) -> Any:
    ids = good_arrays()["topk_ids"].astype(np.int64)
    ids[layer, token, choice] = value
    return ids


def _problem(path: Path | str, *model: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read_trace(path, *model)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


def test_example_trace_is_readable() -> None:
    trace = read_trace(example_trace(), 64, 4, 4)
    assert isinstance(trace, Trace)
    assert (trace.tokens, len(trace.seq_lens), trace.synthetic) == (24576, 96, False)
    assert "tiny-moe" in trace.source


def test_trace_round_trip(tmp_path: Path) -> None:
    trace = synthesize(3, 300, 2, 50, 4, 2.0, 1.0, 7)
    path = tmp_path / "a.npz"
    write_trace(trace, path)
    again = read_trace(path, 300, 3, 2)
    assert isinstance(again, Trace)
    assert again.topk_ids.dtype == np.uint16
    np.testing.assert_array_equal(again.topk_ids, trace.topk_ids)
    np.testing.assert_array_equal(again.seq_lens, trace.seq_lens)
    assert again.source == trace.source
    assert again.synthetic
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_weights_are_kept(tmp_path: Path) -> None:
    weights = np.full((2, 12, 2), 0.5, np.float16)
    trace = read_trace(_file(tmp_path, topk_weights=weights))
    assert isinstance(trace, Trace)
    write_trace(trace, tmp_path / "b.npz")
    again = read_trace(tmp_path / "b.npz")
    assert isinstance(again, Trace)
    np.testing.assert_array_equal(again.topk_weights, weights)


def test_counts_round_trip_and_shapes(tmp_path: Path) -> None:
    counts = np.arange(1, 25, dtype=np.float64).reshape(2, 3, 4)
    np.savez(tmp_path / "c.npz", counts=counts, meta=json.dumps({"source": "recorded here"}))
    again = read_trace(tmp_path / "c.npz", 4, 3)
    assert isinstance(again, LoadCounts)
    np.testing.assert_array_equal(again.counts, counts)
    assert again.source == "recorded here"
    np.save(tmp_path / "bare.npy", counts[0].astype(np.int32))
    bare = read_trace(tmp_path / "bare.npy")
    assert isinstance(bare, LoadCounts)
    np.testing.assert_array_equal(bare.counts, counts[:1])
    np.savez(tmp_path / "many.npz", mine=counts[1])
    named = read_trace(f"{tmp_path / 'many.npz'}::mine")
    assert isinstance(named, LoadCounts)
    np.testing.assert_array_equal(named.counts, counts[1:])
    assert "name one of: mine" in str(_problem(f"{tmp_path / 'many.npz'}::other"))


def test_without_seq_lens_pieces_of_256(tmp_path: Path) -> None:
    np.savez(tmp_path / "long.npz", topk_ids=np.zeros((1, 600, 1), np.uint8))
    trace = read_trace(tmp_path / "long.npz")
    assert isinstance(trace, Trace)
    assert trace.seq_lens.tolist() == [256, 256, 88]
    assert trace.experts == 1


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"topk_ids": None}, "topk_ids", "is missing"),
        ({"topk_ids": np.zeros((2, 12))}, "topk_ids", "type float64"),
        ({"topk_ids": np.zeros((2, 12), int)}, "topk_ids", "2 dimensions"),
        ({"topk_ids": np.zeros((2, 0, 2), int)}, "topk_ids", "is empty"),
        ({"topk_ids": np.array([{"a": 1}])}, "topk_ids", "Python objects"),
        ({"topk_ids": _ids(1, 3, 0, 8)}, "topk_ids[1, 3, 0]", "expert 8 in layer 1 is out of range: there are 8"),
        ({"topk_ids": _ids(0, 2, 1, -1)}, "topk_ids[0, 2, 1]", "expert -1 in layer 0"),
        ({"topk_ids": _ids(1, 0, 0, int(good_arrays()["topk_ids"][1, 0, 1]))}, "topk_ids[1, 0]", "twice in layer 1"),
        ({"seq_lens": np.array([4, 5, 4])}, "seq_lens", "sums to 13, but there are 12"),
        ({"seq_lens": np.array([12, 0])}, "seq_lens", "outside of 1 to 12"),
        ({"seq_lens": np.array([], int)}, "seq_lens", "outside of 1 to 12"),
        ({"seq_lens": np.array([[12]])}, "seq_lens", "shape (1, 1)"),
        ({"seq_lens": np.array([12.0])}, "seq_lens", "type float64"),
        ({"meta": np.array("{")}, "meta", "is not JSON"),
        ({"meta": np.array("[1]")}, "meta", "is a JSON list"),
        ({"meta": np.array(3)}, "meta", "type int64"),
        ({"meta": np.array('{"experts": true}')}, "meta.experts", "is True"),
        ({"meta": np.array('{"top_k": 3}')}, "meta.top_k", "is 3, but topk_ids has 2"),
        ({"meta": np.array('{"moe_layers": 3}')}, "meta.moe_layers", "is 3, but topk_ids has 2"),
        ({"meta": np.array('{"moe_layers": 2.0}')}, "meta.moe_layers", "is 2.0, but topk_ids has 2"),
        ({"meta": np.array('{"experts": 7}')}, "topk_ids[0, 3, 1]", "there are 7 experts"),
        ({"meta": np.array('{"domains": "law", "tokens_per_domain": 12}')}, "meta.domains", "is law"),
        (
            {"meta": np.array('{"domains": ["a", "b"], "tokens_per_domain": 4}')},
            "meta.tokens_per_domain",
            "is 4 for each of 2 domains, but topk_ids has 12 tokens",
        ),
        (
            {"meta": np.array('{"domains": ["a", "b"], "tokens_per_domain": 6}')},
            "meta.tokens_per_domain",
            "is 6, which ends a domain inside a sequence of seq_lens",
        ),
        ({"meta": np.array(json.dumps({"note": "x" * 2**20}))}, "meta", "bytes of memory are needed"),
        ({"topk_weights": np.zeros((2, 12, 1))}, "topk_weights", "shape (2, 12, 1)"),
        ({"topk_weights": np.full((2, 12, 2), np.nan)}, "topk_weights", "no finite number"),
    ],
)
def test_defects_of_traces(tmp_path: Path, changes: dict[str, Any], field: str, words: str) -> None:
    error = _problem(_file(tmp_path, **changes))
    assert error.field == field
    assert words in str(error)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ((9, None, None, "big"), "has 8 experts a layer, big has 9"),
        ((8, 3, 2, ""), "has 2 MoE layers, the model has 3"),
        ((8, 2, 1, "big"), "has 2 experts a token, big has 1"),
    ],
)
def test_another_models_trace(tmp_path: Path, model: tuple[Any, ...], words: str) -> None:
    assert words in str(_problem(_file(tmp_path), *model))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (np.array([[1.0, -1.0]]), "-1.0 is no count"),
        (np.array([[1.0, np.nan]]), "nan is no count"),
        (np.array([[1.0, np.inf]]), "inf is no count"),
        (np.array([[1.0, 0.5]]), "0.5 is no count"),
        (np.array([[1.0, 2.0], [0.0, 0.0]]), "layer 1 has no tokens in window 0"),
        (np.zeros((0, 4)), "is empty"),
        (np.zeros(4), "shape (4,)"),
        (np.array([["1", "2"]]), "type <U1"),
    ],
)
def test_defects_of_counts(tmp_path: Path, counts: Any, words: str) -> None:
    np.savez(tmp_path / "c.npz", counts=counts)
    assert words in str(_problem(tmp_path / "c.npz"))


@pytest.mark.parametrize(
    ("meta", "field", "words"),
    [
        ({"experts": 8}, "meta.experts", "is 8, but counts has 4"),
        ({"moe_layers": 3}, "meta.moe_layers", "is 3, but counts has 2"),
        ({"top_k": 2}, "meta.top_k", "is 2, but the model has 1"),
    ],
)
def test_counts_that_their_meta_contradicts(tmp_path: Path, meta: dict[str, int], field: str, words: str) -> None:
    np.savez(tmp_path / "c.npz", counts=np.ones((2, 4), int), meta=np.array(json.dumps(meta)))
    error = _problem(tmp_path / "c.npz", 4, 2, 1)
    assert error.field == field
    assert words in str(error)


def test_domains_that_fit_are_taken(tmp_path: Path) -> None:
    meta = np.array('{"domains": ["a", "b"], "tokens_per_domain": 6}')
    for lens in (np.array([2, 4, 6]), None):
        trace = read_trace(_file(tmp_path, meta=meta, seq_lens=lens))
        assert isinstance(trace, Trace)
    first, _ = split_by_sequence(read_trace(_file(tmp_path, meta=meta, seq_lens=np.array([2, 4, 3, 3]))))
    write_trace(first, tmp_path / "part.npz")
    assert isinstance(read_trace(tmp_path / "part.npz"), Trace)


def test_counts_whose_sums_no_record_holds(tmp_path: Path) -> None:
    most = MAX_COUNTED // 8
    np.savez(tmp_path / "most.npz", counts=np.full((2, 2, 4), most))
    assert isinstance(read_trace(tmp_path / "most.npz"), LoadCounts)
    counts = np.full((2, 2, 4), most)
    counts[1, 1, 3] += 1
    np.savez(tmp_path / "c.npz", counts=counts)
    assert "counts: layer 1 counts 8.79609e+12 in all; scale" in str(_problem(tmp_path / "c.npz"))
    np.savez(tmp_path / "c.npz", counts=np.full((2, 8), 2.0**53))
    assert "layer 0 counts 7.20576e+16 in all" in str(_problem(tmp_path / "c.npz"))
    with pytest.raises(InputError, match=r"mine: counts: layer 0 counts 7\.20576e\+16 in all"):
        check_fits(LoadCounts(np.full((1, 2, 8), 2.0**53), "mine", "here"), 8, 2, 2, "small")


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "x" * 250, "\x1b[31m"])
def test_names_are_short_and_printable(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / f"{name}.npz", **good_arrays())
    assert read_trace(tmp_path / f"{name}.npz").name.isprintable()
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as archive_, archive_.open("x" * 60_000 + ".npy", "w") as member:
        np.lib.format.write_array(member, np.ones((2, 4)))
    assert len(read_trace(f"{tmp_path / 'many.npz'}::{'x' * 60_000}").name) < 300


def test_counts_of_another_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", counts=np.ones((2, 4), int))
    assert "has 4 experts a layer, big has 8" in str(_problem(tmp_path / "c.npz", 8, 2, None, "big"))
    assert "has 2 MoE layers, big has 3" in str(_problem(tmp_path / "c.npz", 4, 3, None, "big"))


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("hello")
    whole = packed(good_arrays())
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    assert "no such file" in str(_problem(tmp_path / "none.npz"))
    assert "is not a file" in str(_problem(tmp_path))
    assert "is an empty file" in str(_problem(tmp_path / "empty.npz"))
    assert "is not a .npz file" in str(_problem(tmp_path / "text.npz"))
    assert "cannot be read" in str(_problem(tmp_path / "cut.npz"))
    assert "cannot be read" in str(_problem("x" * 5000))
    assert "no such file" in str(_problem("zero\0byte.npz"))


def test_corrupted_member(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, **good_arrays())
    data = bytearray(file.getvalue())
    with zipfile.ZipFile(file) as archive_:
        place = archive_.getinfo("topk_ids.npy").header_offset + 30 + len("topk_ids.npy") + 20 + 128 + 5
    data[place] ^= 1
    (tmp_path / "bad.npz").write_bytes(data)
    assert "CRC" in str(_problem(tmp_path / "bad.npz"))


def test_corrupted_compression(tmp_path: Path) -> None:
    member = io.BytesIO()
    np.save(member, good_arrays()["topk_ids"])
    path = tmp_path / "bad.npz"
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as archive_:
            archive_.writestr("topk_ids.npy", member.getvalue())
        if method != zipfile.ZIP_DEFLATED:
            assert "compressed as numpy does not" in str(_problem(path))
    sound = path.read_bytes()
    assert isinstance(read_trace(path), Trace)
    refused = 0
    for place in range(30 + len("topk_ids.npy"), 120):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0x55]) + sound[place + 1 :])
        try:
            read_trace(path)
        except InputError:
            refused += 1
    assert refused >= 70


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (26, 99999999999, 6), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive_:
        archive_.writestr("topk_ids.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert "but the file holds" in str(_problem(tmp_path / "lie.npz"))
    np.savez_compressed(tmp_path / "bomb.npz", topk_ids=np.zeros((1, 2_000_000, 1), np.uint8))
    monkeypatch.setattr(archive, "_HARMLESS_BYTES", 1000)
    assert "too many to be routing" in str(_problem(tmp_path / "bomb.npz"))
    monkeypatch.setattr(archive, "MAX_BYTES", 10)
    assert "is larger than" in str(_problem(tmp_path / "bomb.npz"))


def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _sparse(path: Path, start: bytes, size: int = 4 * 2**30) -> None:
    path.write_bytes(start)
    os.truncate(path, size)


def _bomb(path: Path, key: str, method: int, start: bytes, stated: int) -> None:
    """A member of `start` and 256 MiB of zeros that states another size."""
    with zipfile.ZipFile(path, "w", method) as archive_:
        with archive_.open(f"{key}.npy", "w") as member:
            member.write(start)
            for _ in range(16):
                member.write(bytes(2**24))
        archive_.infolist()[0].file_size = stated


def _names(path: Path) -> None:
    """A file that is a list of members and little else: 200 MB of it."""
    count, entry = 4_000_000, b"PK\x01\x02" + bytes(24) + (1).to_bytes(2, "little") + bytes(16) + b"x"
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff" * 2 + (len(entry) * count).to_bytes(4, "little") + bytes(6)
    with path.open("wb") as file:
        file.write(b"PK")
        for _ in range(count // 10_000):
            file.write(entry * 10_000)
        file.write(end)


def test_no_file_makes_much_of_itself(tmp_path: Path) -> None:
    """Each is refused in a process whose memory grows by less than 100 MB."""
    ids = _header("|u1", (26, 8_000_000, 6))
    _sparse(tmp_path / "counts.npy", _header("|u1", (2**21, 16, 128)))
    _sparse(tmp_path / "half.npy", _header("|u1", (2**20, 8, 128)), 2**30 + 128)
    _sparse(tmp_path / "header.npy", b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little"))
    _sparse(tmp_path / "nothing.npy", _header("<U0", (2**40, 2, 8)))
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        _bomb(tmp_path / f"bomb{method}.npz", "topk_ids", method, ids, len(ids) + 1000)
    _bomb(tmp_path / "meta.npz", "meta", zipfile.ZIP_DEFLATED, _header("<U250000000", ()), 2**30)
    with zipfile.ZipFile(tmp_path / "meta.npz", "a") as archive_:
        archive_.writestr("counts.npy", _header("|u1", (2, 4)) + b"x" * 8)
    _names(tmp_path / "names.npz")
    code = (
        "import resource, sys\nfrom placement.errors import InputError\n"
        "from placement.routing.reader import read_trace\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000\n"
        "for path in sys.argv[1:]:\n"
        "    before = peak()\n"
        "    try:\n        print(read_trace(path))\n"
        "    except InputError:\n        print(peak() - before)\n"
    )
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True, cwd=ROOT)
    grown = dict(zip((Path(path).name for path in paths), done.stdout.splitlines(), strict=True))
    assert len(grown) == 9
    assert max(map(int, grown.values())) < 100, grown
