"""Reads recorded routing (docs/routing.md has the format). Every defect of a file is one InputError."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.problem.arrays import FloatArray
from placement.routing.archive import Archive
from placement.routing.trace import LoadCounts, Trace
from specs.documents import shown
from specs.fields import MAX_EXPERTS, MAX_LAYERS

#: Keys that load counts are found under, in this order.
COUNT_KEYS = ("counts", "load_counts", "logical_count")
#: Tokens of a sequence where a trace does not say (`seq_lens` is optional).
DEFAULT_SEQUENCE = 256
#: Bytes that a count takes while counts are checked, and the most that a meta record may have.
_COUNT_BYTES, _META_BYTES = 32, 4 * 2**20
#: Most tokens that the load counts of a file may stand for: sums over many files stay exact.
MAX_COUNTED = 2**43
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
        most = {"experts": MAX_EXPERTS, "layers": MAX_LAYERS, "top_k": MAX_EXPERTS}
        for name, value in found.items():
            if value > most[name]:
                raise InputError(source, field, f"has {value} {words[name]}", f"no model has over {most[name]}")
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
    stem = shown(file.stem, 200)
    if key:
        if key not in archive.keys:
            raise InputError(source, key, "no such array in the file", f"name one of: {_listed(archive.keys)}")
        if key == "topk_ids":
            return _trace(archive, stem, expected)
        return _counts(archive, key, f"{stem}::{shown(key, 200)}", expected)
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
        InputError: It has other layers, experts or experts a token, or counts beyond MAX_COUNTED.
    """
    found = {"layers": routing.layers, "experts": routing.experts}
    if isinstance(routing, Trace):
        found["top_k"] = routing.top_k
    _Expected(experts, layers, top_k, model_name).check(routing.name, "routing", found)
    if isinstance(routing, LoadCounts):
        _check_sums(routing.name, "counts", routing.counts)


def example_trace() -> Path:
    """Path of the trace that comes with the package: a small MoE trained from scratch, 4 layers, 64 experts, top-4."""
    return Path(__file__).parent / "examples" / "tiny_moe.npz"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # such as a name that is too long, or has a zero byte
        return False


def _listed(keys: tuple[str, ...]) -> str:
    told = ", ".join(shown(key) for key in keys[:12]) or "nothing"
    return told + (f" and {len(keys) - 12} more" if len(keys) > 12 else "")


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
    expected.check(source, "topk_ids", {"layers": layers, "top_k": top_k})
    in_meta = _meta_experts(source, meta)
    _check_meta(source, meta, "topk_ids", {"moe_layers": layers, "top_k": top_k})
    if in_meta is not None:
        expected.check(source, "meta.experts", {"experts": in_meta})
    seq_lens = _seq_lens(archive, tokens)
    _check_domains(source, meta, tokens, seq_lens if "seq_lens" in archive.keys else None)
    limit = expected.experts or in_meta
    experts = limit or min(int(ids.max()) + 1, MAX_EXPERTS)
    _check_ids(source, ids, experts)
    topk_ids = np.ascontiguousarray(ids, dtype=np.min_scalar_type(experts - 1))
    return Trace(
        topk_ids=topk_ids,
        seq_lens=seq_lens,
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
    array = archive.read("meta", most=_META_BYTES)
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


def _meta_experts(source: str, meta: dict[str, Any]) -> int | None:
    experts = meta.get("experts")
    if experts is None:
        return None
    if isinstance(experts, bool) or not isinstance(experts, int) or not 1 <= experts <= MAX_EXPERTS:
        raise InputError(source, "meta.experts", f"is {str(experts)[:40]}", f"give a number from 1 to {MAX_EXPERTS}")
    return experts


def _check_meta(source: str, meta: dict[str, Any], array: str, found: dict[str, int]) -> None:
    """Refuses sizes of the meta record that are not those of the array, `found`."""
    for key, size in found.items():
        said = meta.get(key, size)
        if type(said) is not int or said != size:
            raise InputError(source, f"meta.{key}", f"is {str(said)[:40]}, but {array} has {size}", "mend meta")


def _check_domains(source: str, meta: dict[str, Any], tokens: int, seq_lens: NDArray[np.int64] | None) -> None:
    """Refuses domains (see placement.routing.parts.domain_edges) that are not those of the recording; `seq_lens`: None
    where the file does not say."""
    names, size = meta.get("domains"), meta.get("tokens_per_domain")
    if names is None or size is None:
        return
    field = "meta.tokens_per_domain"
    if not isinstance(names, list) or not names:
        raise InputError(source, "meta.domains", f"is {str(names)[:40]}", "list the domains' names")
    if type(size) is not int or size * len(names) != tokens:
        problem = f"is {str(size)[:40]} for each of {len(names)} domains, but topk_ids has {tokens} tokens"
        raise InputError(source, field, problem, "mend meta")
    if seq_lens is not None and not np.isin(np.arange(1, len(names)) * size, np.cumsum(seq_lens)).all():
        raise InputError(source, field, f"is {size}, which ends a domain inside a sequence of seq_lens", "mend meta")


def _counts(archive: Archive, key: str, name: str, expected: _Expected) -> LoadCounts:
    source, field = archive.source, key
    array = archive.read(key, each=_COUNT_BYTES)
    if array.dtype.kind not in "iuf" or array.ndim not in (2, 3):
        raise InputError(
            source, field, f"has shape {array.shape} and type {array.dtype}",
            "store numbers as [windows, layers, experts] or [layers, experts]",
        )  # fmt: skip
    counts = np.asarray(array if array.ndim == 3 else array[None], dtype=np.float64)
    if 0 in counts.shape:
        raise InputError(source, field, f"is empty: shape {array.shape}", "count at least one token")
    layers, experts = counts.shape[1:]
    expected.check(source, field, {"layers": layers, "experts": experts})
    meta = _meta(archive)
    _check_meta(source, meta, key or "the array", {"moe_layers": layers, "experts": experts})
    if expected.top_k is not None:
        _check_meta(source, meta, "the model", {"top_k": expected.top_k})
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
    _check_sums(source, field, counts)
    return LoadCounts(counts, name, _origin(meta, "recorded load counts"), meta=meta)


def _check_sums(source: str, field: str, counts: FloatArray) -> None:
    total = counts.sum(axis=(0, 2))
    if total.max() > MAX_COUNTED:
        raise InputError(
            source, field, f"layer {int(total.argmax())} counts {total.max():.6g} in all",
            f"scale the counts down to at most {MAX_COUNTED} in a layer",
        )  # fmt: skip
