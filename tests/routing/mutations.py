"""Broken trace files for property tests: `trace_files()` draws the bytes of a mutated .npz (or other) file."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
from hypothesis import strategies as st

LAYERS, TOKENS, TOP_K, EXPERTS = 2, 12, 2, 8


def good_arrays() -> dict[str, Any]:
    """The arrays of a small, sound trace: 2 layers, 12 tokens in 3 sequences, top-2 of 8 experts."""
    token = np.arange(TOKENS)
    first = np.stack([token % EXPERTS, (token * 3 + 1) % EXPERTS])
    ids = np.stack([first, (first + 1 + token % 5) % EXPERTS], axis=2).astype(np.uint8)
    meta = {"model": "small", "moe_layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K, "source": "a test"}
    return {"topk_ids": ids, "seq_lens": np.array([4, 5, 3], dtype=np.int32), "meta": np.array(json.dumps(meta))}


def packed(arrays: dict[str, Any]) -> bytes:
    """The bytes of an .npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=True, **arrays)
    return file.getvalue()


_ODD_VALUES = st.sampled_from(
    [0, -1, EXPERTS, 255, 2**31, 2**63 - 1, 0.5, float("nan"), float("inf"), -0.0, True, "x", "", "[1]", "{}", "{",
     '{"experts": 0}', '{"experts": "8"}', '{"experts": 1e400}', '{"top_k": 99}', "[" * 5000, None, b"\xff", 1 + 2j]
)  # fmt: skip
_SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
_TYPES = st.sampled_from(["u1", "i8", "f4", "f8", "c16", "?", "U3", "S2", "O", "M8[s]", "V4", ">u2", "u8"])
_KEYS = st.sampled_from(["topk_ids", "seq_lens", "meta", "topk_weights", "counts", "load_counts", "other"])


@st.composite
def mutated_arrays(draw: st.DrawFn) -> dict[str, Any]:
    """A sound trace's arrays with one to three of them replaced, removed, retyped, reshaped or edited in a place."""
    arrays = good_arrays()
    for _ in range(draw(st.integers(1, 3))):
        key = draw(_KEYS)
        kind = draw(st.sampled_from(["remove", "value", "shape", "type", "edit", "values"]))
        if kind == "remove":
            arrays.pop(key, None)
        elif kind == "value":
            arrays[key] = np.array(draw(_ODD_VALUES))
        elif kind == "shape":
            arrays[key] = np.zeros(draw(_SHAPES), dtype=draw(_TYPES))
        elif kind == "values":
            shape = draw(st.sampled_from([(LAYERS, EXPERTS), (1, LAYERS, EXPERTS), (LAYERS, TOKENS, TOP_K), (3,)]))
            size = int(np.prod(shape))
            number = st.one_of(st.integers(-1, 9), st.sampled_from([0.5, float("nan"), float("inf"), 1e300]))
            arrays[key] = np.array(draw(st.lists(number, min_size=size, max_size=size)), dtype=float).reshape(shape)
        elif key in arrays and arrays[key].dtype.kind in "iu" and arrays[key].size:
            edited = arrays[key].astype("i8" if kind == "edit" else draw(st.sampled_from(["i8", "f8", "u4"])))
            place = draw(st.integers(0, edited.size - 1))
            edited.ravel()[place] = draw(st.integers(0 if edited.dtype.kind == "u" else -3, 300))
            arrays[key] = edited
    return arrays


@st.composite
def mutated_bytes(draw: st.DrawFn) -> bytes:
    """A sound file's bytes cut off, overwritten in places, or with bytes put in; stored or compressed."""
    if draw(st.booleans()):
        data = bytearray(packed(good_arrays()))
    else:
        file = io.BytesIO()
        np.savez(file, **good_arrays())
        data = bytearray(file.getvalue())
    kind = draw(st.sampled_from(["cut", "flip", "insert", "header"]))
    if kind == "cut":
        return bytes(data[: draw(st.integers(0, len(data) - 1))])
    if kind == "header":
        # Inside of the array headers, with the checksums made good again.
        return _with_header(draw(_HEADERS))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data) - 1))
        if kind == "flip":
            data[place] = draw(st.integers(0, 255))
        else:
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


_HEADERS = st.sampled_from(
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 12, 2)}",
        "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 12, 2)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 99999999999, 2)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -12, 2)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 12, 2)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2, 12, 2)}",
        "{'descr': '|U0', 'fortran_order': False, 'shape': (2, 12, 2)}",
        "{'descr': [('a', 'u1')], 'fortran_order': False, 'shape': (2, 12, 2)}",
        "{'descr': '|u1', 'shape': (2, 12, 2)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (2, 12, 2)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': 48}",
        "(" * 300,
        "__import__('os').getcwd()",
        "",
    ]
)


def _with_header(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        data = good_arrays()["topk_ids"].tobytes()
        archive.writestr("topk_ids.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)
    return file.getvalue()


def trace_files() -> st.SearchStrategy[bytes]:
    """Bytes of files that are mostly broken traces; some mutations leave a sound one."""
    return st.one_of(mutated_arrays().map(packed), mutated_bytes(), st.binary(max_size=64))
