"""Reads and writes recorded routing (docs/routing.md has the format). Every defect of a file is one InputError."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.routing.archive import Archive, write_archive
from placement.routing.trace import LoadCounts, Trace

#: Keys that load counts are found under, in this order.
COUNT_KEYS = ("counts", "load_counts", "logical_count")
#: Tokens of a sequence where a trace does not say (`seq_lens` is optional).
DEFAULT_SEQUENCE = 256
#: Larger expert numbers are a defect of the file rather than a model.
MAX_EXPERTS = 65_536
_OTHER_MODEL = "use a recording of this model"


@dataclass(frozen=True)
class _Expected:
    """What the model says of itself; None is not checked."""

    experts: int | None
    layers: int | None
    top_k: int | None
    model_name: str

    def check(self, source: str, field: str, found: dict[str, int]) -> None:
        words = {"experts": "experts a layer", "layers": "MoE layers", "top_k": "experts a token"}
        for name, value in found.items():
            wanted = getattr(self, name)
            if wanted is not None and wanted != value:
                model = self.model_name or "the model"
                raise InputError(
                    source, field, f"is of another model: it has {value} {words[name]}, {model} has {wanted}",
                    _OTHER_MODEL,
                )  # fmt: skip


def read_trace(
    path: str | Path,
    experts: int | None = None,
    layers: int | None = None,
    top_k: int | None = None,
    model_name: str = "",
) -> Trace | LoadCounts:
    """Routing recorded in a file: a Trace if it holds `topk_ids`, else LoadCounts.

    Args:
        path: an .npz file; an .npy file of load counts; or FILE::KEY, load counts under a key of any name.
        experts, layers, top_k: of the model (MoE layers only), to refuse another model's recording; None: unknown.
        model_name: for messages.

    Raises:
        InputError: any defect of the file, or a recording of another model.
    """
    expected = _Expected(experts, layers, top_k, model_name)
    source = str(path)
    file, key = Path(path), ""
    if "::" in source and not _exists(file):
        name, _, key = source.rpartition("::")
        file = Path(name)
    archive = Archive(file, source)
    stem = file.stem
    if key:
        if key not in archive.keys:
            raise InputError(source, key, "no such array in the file", f"name one of: {_listed(archive.keys)}")
        return _counts(archive, key, f"{stem}::{key}", expected)
    if "topk_ids" in archive.keys:
        return _trace(archive, stem, expected)
    for key in ("", *COUNT_KEYS):
        if key in archive.keys:
            return _counts(archive, key, stem, expected)
    raise InputError(
        source, "topk_ids", f"is missing (the file holds: {_listed(archive.keys)})",
        "store topk_ids [layers, tokens, k] or counts [windows, layers, experts], or name the counts as FILE::KEY",
    )  # fmt: skip


def check_fits(routing: Trace | LoadCounts, experts: int, layers: int, top_k: int, model_name: str) -> None:
    """Refuses routing of another model.

    Raises:
        InputError: It has other layers, experts or experts a token.
    """
    found = {"layers": routing.layers, "experts": routing.experts}
    if isinstance(routing, Trace):
        found["top_k"] = routing.top_k
    _Expected(experts, layers, top_k, model_name).check(routing.name, "routing", found)


def write_trace(trace: Trace, path: str | Path) -> None:
    """Writes a trace that read_trace gives back; whole or not at all.

    Raises:
        InputError: `path` cannot be written.
    """
    meta = {**trace.meta, "moe_layers": trace.layers, "experts": trace.experts, "top_k": trace.top_k}
    meta["source"] = trace.source
    arrays: dict[str, NDArray[Any]] = {
        "topk_ids": trace.topk_ids.astype(np.min_scalar_type(max(0, trace.experts - 1))),
        "seq_lens": trace.seq_lens,
        "meta": np.array(json.dumps(meta)),
    }
    if trace.topk_weights is not None:
        arrays["topk_weights"] = trace.topk_weights
    write_archive(Path(path), arrays)


def write_counts(counts: LoadCounts, path: str | Path) -> None:
    """Writes load counts that read_trace gives back; whole or not at all.

    Raises:
        InputError: `path` cannot be written.
    """
    meta = np.array(json.dumps({"source": counts.source}))
    write_archive(Path(path), {"counts": counts.counts, "meta": meta})


def example_trace() -> Path:
    """Path of the trace that comes with the package: a small MoE trained from scratch, 4 layers, 64 experts, top-4."""
    return Path(__file__).parent / "examples" / "tiny_moe.npz"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # such as a name that is too long, or has a zero byte
        return False


def _listed(keys: tuple[str, ...]) -> str:
    shown = ", ".join(keys[:12]) or "nothing"
    return shown + (f" and {len(keys) - 12} more" if len(keys) > 12 else "")


def _trace(archive: Archive, name: str, expected: _Expected) -> Trace:
    source = archive.source
    ids = archive.read("topk_ids")
    if ids.dtype.kind not in "iu":
        raise InputError(source, "topk_ids", f"has type {ids.dtype}", "store unsigned integers")
    if ids.ndim != 3:
        raise InputError(source, "topk_ids", f"has {ids.ndim} dimensions", "store [moe_layers, tokens, k]")
    if 0 in ids.shape:
        raise InputError(source, "topk_ids", f"is empty: shape {ids.shape}", "record at least one token")
    meta = _meta(archive)
    layers, tokens, top_k = ids.shape
    found = {"layers": layers, "top_k": top_k}
    in_meta = _meta_experts(source, meta, found)
    expected.check(source, "topk_ids", found)
    if in_meta is not None:
        expected.check(source, "meta.experts", {"experts": in_meta})
    limit = expected.experts or in_meta
    experts = limit or min(int(ids.max()) + 1, MAX_EXPERTS)
    _check_ids(source, ids, experts)
    topk_ids = np.ascontiguousarray(ids, dtype=np.min_scalar_type(experts - 1))
    return Trace(
        topk_ids=topk_ids,
        seq_lens=_seq_lens(archive, tokens),
        experts=experts,
        name=name,
        source=_origin(meta, "recorded"),
        topk_weights=_weights(archive, ids.shape),
        meta=meta,
    )


def _check_ids(source: str, ids: NDArray[Any], experts: int) -> None:
    """Refuses ids outside of 0..experts-1, and a token that uses an expert twice; both name the first place."""
    if int(ids.min()) < 0 or int(ids.max()) >= experts:
        layer, token, choice = np.argwhere((ids < 0) | (ids >= experts))[0]
        raise InputError(
            source, f"topk_ids[{layer}, {token}, {choice}]",
            f"expert {ids[layer, token, choice]} in layer {layer} is out of range: there are {experts} experts",
            f"use ids from 0 to {experts - 1}, or the model that was recorded",
        )  # fmt: skip
    for layer in range(len(ids)):
        ordered = np.sort(ids[layer], axis=1)
        twice = ordered[:, 1:] == ordered[:, :-1]
        if twice.any():
            token, choice = np.argwhere(twice)[0]
            raise InputError(
                source, f"topk_ids[{layer}, {token}]",
                f"token {token} uses expert {ordered[token, choice]} twice in layer {layer}",
                "record distinct experts for a token",
            )  # fmt: skip


def _seq_lens(archive: Archive, tokens: int) -> NDArray[np.int64]:
    """[sequences] lengths; pieces of DEFAULT_SEQUENCE tokens where the file gives none."""
    if "seq_lens" not in archive.keys:
        ends = np.append(np.arange(DEFAULT_SEQUENCE, tokens, DEFAULT_SEQUENCE, dtype=np.int64), tokens)
        return np.diff(ends, prepend=0)
    lens = archive.read("seq_lens")
    if lens.ndim != 1 or lens.dtype.kind not in "iu":
        raise InputError(
            archive.source, "seq_lens", f"has shape {lens.shape} and type {lens.dtype}", "store a list of whole numbers"
        )
    if not len(lens) or int(lens.min()) < 1 or int(lens.max()) > tokens:
        raise InputError(
            archive.source, "seq_lens", f"has lengths outside of 1 to {tokens}", "list the tokens of each sequence"
        )
    if int(lens.sum(dtype=np.int64)) != tokens:
        raise InputError(
            archive.source, "seq_lens", f"sums to {lens.sum()}, but there are {tokens} tokens",
            "list the tokens of every sequence",
        )  # fmt: skip
    return lens.astype(np.int64)


def _weights(archive: Archive, shape: tuple[int, ...]) -> NDArray[Any] | None:
    if "topk_weights" not in archive.keys:
        return None
    weights = archive.read("topk_weights")
    if weights.shape != shape:
        raise InputError(
            archive.source, "topk_weights", f"has shape {weights.shape}, topk_ids has {shape}", "store one a choice"
        )
    if weights.dtype.kind != "f" or not np.isfinite(weights).all():
        raise InputError(archive.source, "topk_weights", "holds what is no finite number", "store finite floats")
    return weights


def _meta(archive: Archive) -> dict[str, Any]:
    if "meta" not in archive.keys:
        return {}
    array = archive.read("meta")
    if array.dtype.kind not in "US" or array.size != 1:
        raise InputError(archive.source, "meta", f"has type {array.dtype}", "store one JSON string")
    try:
        text = array.reshape(())[()]
        meta = json.loads(text.decode() if isinstance(text, bytes) else str(text))
    except (ValueError, RecursionError) as error:
        raise InputError(archive.source, "meta", f"is not JSON ({str(error)[:100]})", "store a JSON object") from error
    if not isinstance(meta, dict):
        raise InputError(archive.source, "meta", f"is a JSON {type(meta).__name__}", "store a JSON object")
    return meta


def _origin(meta: dict[str, Any], default: str) -> str:
    """Where a recording comes from, as its meta record says, in one line."""
    for key, words in (("source", ""), ("model", f"{default} from ")):
        said = meta.get(key)
        if isinstance(said, str) and said.strip():
            return words + " ".join(said.split())
    return default


def _meta_experts(source: str, meta: dict[str, Any], found: dict[str, int]) -> int | None:
    """`experts` of the meta record, after holding its sizes against the arrays'."""
    for name, key in (("layers", "moe_layers"), ("top_k", "top_k")):
        if key in meta and meta[key] != found[name]:
            raise InputError(
                source, f"meta.{key}", f"is {str(meta[key])[:40]}, but topk_ids has {found[name]}", "mend meta"
            )
    experts = meta.get("experts")
    if experts is None:
        return None
    if isinstance(experts, bool) or not isinstance(experts, int) or not 1 <= experts <= MAX_EXPERTS:
        raise InputError(source, "meta.experts", f"is {str(experts)[:40]}", f"give a number from 1 to {MAX_EXPERTS}")
    return experts


def _counts(archive: Archive, key: str, name: str, expected: _Expected) -> LoadCounts:
    source, field = archive.source, key
    array = archive.read(key)
    if array.dtype.kind not in "iuf" or array.ndim not in (2, 3):
        raise InputError(
            source, field, f"has shape {array.shape} and type {array.dtype}",
            "store numbers as [windows, layers, experts] or [layers, experts]",
        )  # fmt: skip
    counts = np.asarray(array if array.ndim == 3 else array[None], dtype=np.float64)
    if 0 in counts.shape:
        raise InputError(source, field, f"is empty: shape {array.shape}", "count at least one token")
    expected.check(source, field, {"layers": counts.shape[1], "experts": counts.shape[2]})
    bad = ~np.isfinite(counts) | (counts < 0) | (counts > 2.0**53)
    with np.errstate(invalid="ignore"):
        bad |= counts != np.floor(counts)
    if bad.any():
        window, layer, expert = np.argwhere(bad)[0]
        raise InputError(
            source, f"{field}[{window}, {layer}, {expert}]", f"{counts[window, layer, expert]} is no count",
            "store whole numbers of at least 0",
        )  # fmt: skip
    idle = counts.sum(axis=2) == 0
    if idle.any():
        window, layer = np.argwhere(idle)[0]
        raise InputError(
            source, field, f"layer {layer} has no tokens in window {window}", "leave out dense layers and idle windows"
        )
    return LoadCounts(counts, name, _origin(_meta(archive), "recorded load counts"))
