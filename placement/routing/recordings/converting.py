"""Turns a recording into a trace or load counts of this project, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError, ParameterError
from placement.problem.arrays import BoolArray
from placement.routing.archive import MAX_ARRAY_BYTES
from placement.routing.reader import DEFAULT_SEQUENCE
from placement.routing.recordings.cleaning import CleanTokens, clean_tokens
from placement.routing.recordings.counts import clean_counts
from placement.routing.recordings.detect import find_format
from placement.routing.recordings.intake import Intake
from placement.routing.recordings.meter import Meter, Tell
from placement.routing.recordings.shape import ModelShape
from placement.routing.recordings.spool import Spool
from placement.routing.writer import Member, id_type, meta_member, write_members
from specs.documents import shown


@dataclass(frozen=True)
class Conversion:
    """What became of a recording.

    Attributes:
        out: the file that was written. kind: "trace" or "counts". told: what the recording is.
        layers, experts: MoE layers and routed experts of each. top_k: experts of a token; None: not known.
        tokens, sequences: of a trace; None of counts. windows: of counts; None of a trace.
        notes: what was recognized and left out, a line each.
    """

    out: str
    kind: str
    told: str
    layers: int
    experts: int
    top_k: int | None
    tokens: int | None
    sequences: int | None
    windows: int | None
    notes: tuple[str, ...]


def convert(
    files: Sequence[Path],
    out: str | Path,
    shape: ModelShape,
    *,
    form: str | None = None,
    axes: tuple[str, ...] | None = None,
    windows: int = 16,
    most_tokens: int | None = None,
    slots: NDArray[np.int64] | None = None,
    tell: Tell | None = None,
) -> Conversion:
    """Converts the files of one recording.

    Args:
        files: they are one recording (the ranks of a run), or parts of one in turn; a folder of TensorRT-LLM.
        out: an .npz file to write. Tokens are kept beside it meanwhile.
        shape: what is known of the model. form: of FORMATS; None: by what is in the files.
        axes: of arrays, where they can't be told. windows: most windows of load counts.
        slots: [layers, slots] expert of each slot, of a recording of slots that does not hold it.
        most_tokens: whole sequences, evenly spread, of at most so many tokens are kept; a trace has a limit of its own.
        tell: called with the stage, its MB that are done, and those that it has.

    Raises:
        InputError: files that can't be read or are no recording of this model, with the cause.
        MissingExtraError: a format that needs a package which is not installed.
    """
    found = find_format(files, form)
    if slots is not None and found.name != "sglang":
        problem = f"is for SGLang's recordings of slots, and these are {found.told}"
        raise ParameterError("slot_map", problem, "leave it out")
    source = str(files[0]) + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    folder = Path(out).absolute().parent
    if not folder.is_dir():
        raise InputError("`out`", shown(str(out), 200), "its folder does not exist", "make the folder, or name another")
    with tempfile.TemporaryDirectory(prefix=".placement-trace-", dir=folder) as spool:
        intake = Intake(source, shape, Path(spool), axes, Meter(tell), slots)
        intake.meter.stage("reading", _size(files))
        found.read(files, intake)
        if intake.tokens.tokens and intake.counts.seen:
            raise InputError(source, "", "holds token choices and counts", "convert them apart")
        meta = {"source": f"{shown(files[0].name, 200)}, {found.told}", "format": found.name}
        if intake.tokens.tokens:
            return _trace(intake, out, meta, found.told, most_tokens)
        return _counts(intake, out, meta, found.told, windows)


def _size(files: Sequence[Path]) -> int:
    """Bytes of files, and of those in folders."""
    found = [each for path in files for each in (path.iterdir() if path.is_dir() else (path,))]
    return sum(each.stat().st_size for each in found if each.is_file())


def _counts(intake: Intake, out: str | Path, meta: dict[str, Any], told: str, windows: int) -> Conversion:
    clean = clean_counts(intake.counts, intake.shape, intake.source, windows)
    count, layers, experts = clean.counts.shape
    top_k = intake.shape.top_k
    sizes = {"moe_layers": layers, "experts": experts, **({} if top_k is None else {"top_k": top_k})}
    write_members(out, [Member.of("counts", clean.counts.astype(np.int64)), meta_member({**meta, **sizes})])
    notes = (*intake.notes, *clean.notes)
    return Conversion(str(out), "counts", told, layers, experts, top_k, None, None, count, notes)


def _trace(intake: Intake, out: str | Path, meta: dict[str, Any], told: str, most_tokens: int | None) -> Conversion:
    spool, notes = intake.tokens, list(intake.notes)
    intake.meter.stage("checking", 2 * spool.size)
    clean = clean_tokens(spool, intake.shape, intake.source)
    notes += clean.notes
    lengths, keep = _sequences(spool, clean, most_tokens, notes)
    layers, top_k, tokens = len(clean.layers), len(clean.columns), int(keep.sum())
    sizes = {"moe_layers": layers, "experts": clean.experts, "top_k": top_k}
    members = [
        Member("topk_ids", id_type(clean.experts), (layers, tokens, top_k), _pieces(spool, clean, keep, weights=False)),
        meta_member({**meta, **sizes, "tokens": tokens}),
    ]
    if lengths is not None:
        members.append(Member.of("seq_lens", lengths))
    if spool.weighted:
        pieces = _pieces(spool, clean, keep, weights=True)
        members.append(Member("topk_weights", np.float16, (layers, tokens, top_k), pieces))
    intake.meter.stage("writing", spool.size * (2 if spool.weighted else 1))
    write_members(out, members)
    sequences = -(-tokens // DEFAULT_SEQUENCE) if lengths is None else len(lengths)
    if lengths is None:
        notes.append(f"no sequences are known: every {DEFAULT_SEQUENCE} tokens count as one")
    return Conversion(str(out), "trace", told, layers, clean.experts, top_k, tokens, sequences, None, tuple(notes))


def _pieces(spool: Spool, clean: CleanTokens, keep: BoolArray, weights: bool) -> Iterator[NDArray[Any]]:
    for layer in clean.layers:
        for start, ids, weight in spool.rows(layer):
            chosen = weight if weights and weight is not None else ids
            yield chosen[keep[start : start + len(ids)]][:, clean.columns]


def _sequences(
    spool: Spool, clean: CleanTokens, most: int | None, notes: list[str]
) -> tuple[NDArray[np.int64] | None, BoolArray]:
    """([sequences] tokens kept of each, or None; [tokens] which are kept), within the limits of a trace."""
    lengths = spool.sequences()
    known = lengths if lengths is not None and len(lengths) > 1 else None
    size = 2 if spool.weighted else id_type(clean.experts).itemsize
    limit = MAX_ARRAY_BYTES // (len(clean.layers) * len(clean.columns) * size)
    limit = min(limit, most or limit)
    full = np.full(-(-spool.tokens // DEFAULT_SEQUENCE), DEFAULT_SEQUENCE) if known is None else known
    ends = np.minimum(np.cumsum(full), spool.tokens)
    starts = np.concatenate([[0], ends[:-1]])
    kept = np.add.reduceat(clean.keep, starts, dtype=np.int64)
    stride = 1
    while kept[::stride].sum() > limit and stride < len(kept):
        stride += 1
    if stride == 1:
        return (None if known is None else kept[kept > 0]), clean.keep
    chosen = np.zeros(len(kept), dtype=bool)
    chosen[::stride] = True
    if kept[chosen].sum() > limit:
        raise InputError("`tokens`", "", f"{limit} are fewer than the first sequence has", "keep more tokens")
    notes.append(f"kept every {stride}. sequence, {kept[chosen].sum():,} of {kept.sum():,} tokens: at most {limit:,}")
    token_kept = np.repeat(chosen, ends - starts) & clean.keep
    kept = kept[chosen & (kept > 0)]
    return kept, token_kept
