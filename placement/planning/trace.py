"""Recordings of routing: converted, described, split and merged."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from placement.engines.content import read_content, whole_rows
from placement.errors import InputError, ParameterError
from placement.planning.progress import COMPILING, OnProgress, Progress, Reporter
from placement.problem.arrays import IntArray
from placement.problem.hardware import LayerHardware
from placement.problem.layer import LayerObjective, LayerProblem
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from placement.routing.parts import split_by_sequence, take_sequences, window_edges
from placement.routing.portrait import Locality, TraceReport, loads, nodes_per_token, portraits
from placement.routing.reader import read_trace
from placement.routing.recordings.converting import Conversion, convert
from placement.routing.recordings.detect import FORMATS, find_format
from placement.routing.recordings.shape import ModelShape
from placement.routing.recordings.vllm import LogSeries, read_log
from placement.routing.statistics import layer_statistics
from placement.routing.trace import LoadCounts, Trace
from placement.routing.writer import write_counts, write_trace
from solvers.ahead import is_compiled
from solvers.registry import get_solver
from solvers.stop import Stop
from specs.loading import load_model
from specs.model import Model

#: Nodes that locality is judged on, in this order of preference; they have to divide the experts.
NODES = (4, 2, 3, 5, 7)
#: Layers that locality is judged on, evenly spread, and the work of the search in each.
_LOCAL_LAYERS, _LOCAL_WORK = 8, 0.2
#: Only bytes between nodes count.
_RATES = LayerRates(256.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0)
#: What engines call a table of slots.
_MAP_KEYS = ("physical_to_logical_map", "last_physical_to_logical_map", "phy2log")
AnyRouting = Trace | LoadCounts | str | Path


def convert_recording(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    model: str | Path | Model | None = None,
    form: str | None = None,
    axes: str | None = None,
    windows: int = 16,
    tokens: int | None = None,
    slot_map: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> Conversion:
    """Converts what an engine recorded into a trace or load counts.

    Args:
        files: One recording: a file, the files of all ranks, or a folder of TensorRT-LLM.
        out: The .npz file to write.
        model: That was recorded: a name of the catalog, a file, a Hugging Face folder, or a model. By its sizes axes,
            dense layers, shared experts and padding are recognized surely; without it, by what they look like.
        form: The format, one of FORMATS; None: by what is in the files.
        axes: Of an array, where they can't be told: such as "layers,tokens,k" or "windows,layers,experts".
        windows: Most windows of load counts.
        slot_map: The map that SGLang ran, of per-pass and per-token dumps that do not hold it (or another): a file with
            `physical_to_logical_map`, as `--init-expert-location` takes it, or with rows of slots alone.
        tokens: Keep at most so many tokens, in whole sequences that are evenly spread. None: what a trace may hold.
        on_progress: Called at the start of each stage and after each MB of it.

    Raises:
        InputError: Files that can't be read, or are no recording of this model; the message has the cause.
        MissingExtraError: A format that needs a package which is not installed.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise ParameterError("files", "no file was given", "name a recording")
    order = None if axes is None else tuple(part.strip() for part in axes.split(","))
    shape = (
        ModelShape() if model is None else ModelShape.of(model if isinstance(model, Model) else load_model(str(model)))
    )
    tell = None if on_progress is None else lambda stage, done, total: on_progress(Progress(stage, done, total))
    slots = None if slot_map is None else _slot_table(slot_map)
    return convert(
        paths, out, shape, form=form, axes=order, windows=windows, most_tokens=tokens, slots=slots, tell=tell
    )


def _slot_table(path: str | Path) -> IntArray:
    """[layers, slots] expert of each slot, in a file of an engine."""
    content = read_content(path)
    held = content.mapping() if content.kind in ("json", "arrays") else {}
    key = next((name for name in _MAP_KEYS if name in held), "")
    value = held.get(key, content.data) if held else content.data
    rows = whole_rows(content, value, key or "the map")
    if len({len(row) for row in rows}) > 1:
        raise content.refuse(key or "the map", "has layers of unlike length", "give the map of one deployment")
    return np.array(rows, dtype=np.int64)


def trace_statistics(
    routing: AnyRouting,
    *,
    model: str | Path | Model | None = None,
    windows: int = 8,
    top_k: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> TraceReport:
    """What routing is like: skew, drift, co-activation, attainable locality, whether it looks degenerate.

    Args:
        routing: A trace or load counts, as an object or file; or a recording, which is converted first.
        model: See convert_recording. windows: That a trace is cut into for drift.
        top_k: Experts of a token, where counts don't say it. seed: Of the placements for locality.
        on_progress: Called at the start of each stage and after each step.

    Raises:
        InputError: A file that can't be read.
    """
    found, notes = _read(routing, model, on_progress)
    if model is not None and top_k is None:
        top_k = (model if isinstance(model, Model) else load_model(str(model))).moe.computed_top_k
    if top_k is not None and not 1 <= top_k <= found.experts:
        raise ParameterError("top_k", f"{top_k} of {found.experts} experts", "give the model's own")
    layers = portraits(found, windows, top_k)
    if isinstance(found, LoadCounts):
        said = found.meta.get("top_k")
        return TraceReport(
            found.name, found.source, "counts", found.layers, found.experts,
            top_k or (said if type(said) is int else None), None, None, len(found.counts), layers, loads(found), None,
            notes,
        )  # fmt: skip
    used = min(windows, len(found.seq_lens))
    return TraceReport(
        found.name, found.source, "trace", found.layers, found.experts, found.top_k, found.tokens,
        len(found.seq_lens), used, layers, loads(found), _locality(found, seed, Reporter(on_progress)), notes,
    )  # fmt: skip


def balancedness_log(path: str | Path) -> LogSeries | None:
    """What EPLB logged, where a file is such a log; else None.

    Raises:
        InputError: A file that can't be read.
    """
    file = Path(path)
    if "::" in file.name or find_format([file]) != FORMATS["vllm-log"]:
        return None
    return read_log(file)


def _read(
    routing: AnyRouting, model: str | Path | Model | None, on_progress: OnProgress | None
) -> tuple[Trace | LoadCounts, tuple[str, ...]]:
    """(routing, what was left out): an object, a trace's file, or a recording, which is converted first."""
    if not isinstance(routing, str | Path):
        return routing, ()
    try:
        return read_trace(routing), ()
    except InputError:
        if "::" in str(routing):
            raise
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / f"{Path(routing).stem[:100] or 'trace'}.npz"
            notes = convert_recording([routing], out, model=model, on_progress=on_progress).notes
            try:
                return read_trace(out), notes
            except InputError as error:  # the file that it was converted to is nobody's
                raise InputError(str(routing), error.field, error.problem, error.mend) from None


def _locality(trace: Trace, seed: int, report: Reporter) -> Locality | None:
    nodes = next((n for n in NODES if trace.experts % n == 0 and trace.experts > n), None)
    if nodes is None or len(trace.seq_lens) < 2 or trace.top_k < 2:
        return None
    chosen = sorted(set(np.linspace(0, trace.layers - 1, min(_LOCAL_LAYERS, trace.layers)).astype(int).tolist()))
    part = replace(trace, topk_ids=trace.topk_ids[chosen], topk_weights=None)
    solved_on, judged_on = (layer_statistics([half]) for half in split_by_sequence(part))
    if not is_compiled():
        report.stage(COMPILING)
    report.stage("placing experts", len(chosen))
    found = []
    hardware = LayerHardware(Topology(nodes, 1), trace.experts // nodes, _RATES)
    for data, held_out in zip(solved_on, judged_on, strict=True):
        problem = LayerProblem(data, hardware, objective=LayerObjective("traffic"))
        figures = []
        for name in ("greedy", "search"):
            slots = get_solver(name).solve(problem, Stop(_LOCAL_WORK), seed).slots
            if slots is None or held_out.sets is None:
                raise ValueError(f"{name} places every layer without replicas")
            figures.append(nodes_per_token(held_out.sets, _node_of(slots, hardware)))
        found.append(figures)
        report.advance()
    spread, together = np.mean(found, axis=0)
    return Locality(nodes, len(chosen), float(spread), float(together))


def _node_of(slots: IntArray, hardware: LayerHardware) -> IntArray:
    """[experts] node of each, of a placement with one copy each."""
    out = np.empty(len(slots), dtype=np.int64)
    out[slots] = hardware.gpu_of_slot
    return out


def split_trace(
    routing: AnyRouting, *, share: float | None = None, windows: int | None = None
) -> tuple[Trace | LoadCounts, ...]:
    """Parts of routing, in order: two by a share of the sequences, or several of about equally many tokens.

    Args:
        routing: A trace or load counts, as an object or file. share: Of the sequences (of counts: of the windows) that
            the first part gets. windows: How many parts, instead.

    Raises:
        InputError: Routing that can't be read, or has too few sequences or windows.
        ParameterError: Not exactly one of `share` and `windows`.
    """
    if (share is None) == (windows is None):
        raise ParameterError("share", "and `windows` are both given, or neither", "give one of them")
    if share is not None and not 0 < share < 1:
        raise ParameterError("share", f"{share:g} is no share", "give a number between 0 and 1")
    found = read_trace(routing) if isinstance(routing, str | Path) else routing
    pieces = len(found.counts) if isinstance(found, LoadCounts) else len(found.seq_lens)
    what = "window" if isinstance(found, LoadCounts) else "sequence"
    wanted = 2 if windows is None else windows
    if not 1 <= wanted <= pieces:
        raise InputError(found.name, "", f"has {pieces} {what}s, for {wanted} parts", f"ask for 1 to {pieces}")
    if share is not None:
        at = min(pieces - 1, max(1, round(share * pieces)))
        edges = np.array([0, at, pieces])
    elif isinstance(found, LoadCounts):
        edges = np.linspace(0, pieces, wanted + 1).astype(np.int64)
    else:
        ends = np.concatenate([[0], np.cumsum(found.seq_lens)])
        edges = np.searchsorted(ends, window_edges(found, wanted))
    return tuple(_part(found, int(start), int(stop)) for start, stop in pairwise(edges))


def _part(routing: Trace | LoadCounts, start: int, stop: int) -> Trace | LoadCounts:
    if isinstance(routing, Trace):
        return take_sequences(routing, np.arange(start, stop))
    return replace(routing, counts=routing.counts[start:stop], meta={**routing.meta, "windows": [start, stop]})


def merge_traces(routings: Sequence[AnyRouting]) -> Trace | LoadCounts:
    """One trace (or load counts) of several of one model, one after the other.

    Args:
        routings: Traces, or load counts, as objects or files.

    Raises:
        InputError: Routing that can't be read, of unlike models, or of both kinds.
    """
    found = [read_trace(each) if isinstance(each, str | Path) else each for each in routings]
    if not found:
        raise ParameterError("files", "no file was given", "name at least one trace")
    traces = [each for each in found if isinstance(each, Trace)]
    counts = [each for each in found if isinstance(each, LoadCounts)]
    if traces and counts:
        raise InputError(counts[0].name, "", "holds load counts, the others token choices", "merge files of one kind")
    first = found[0]
    for each in found[1:]:
        for name, told in (("layers", "MoE layers"), ("experts", "experts a layer"), ("top_k", "experts a token")):
            mine, other = getattr(each, name, None), getattr(first, name, None)
            if mine != other:
                raise InputError(each.name, "", f"has {mine} {told}, {first.name} has {other}", "merge one model's")
    meta: dict[str, Any] = {"merged": [each.name for each in found]}
    source = "; ".join(dict.fromkeys(each.source for each in found))[:500]
    if counts:
        meta = {**({"top_k": top} if len({c.meta.get("top_k") for c in counts}) == 1
                   and (top := counts[0].meta.get("top_k")) else {}), **meta}  # fmt: skip
        return LoadCounts(np.concatenate([each.counts for each in counts]), "merged", source, meta=meta)
    weights = [each.topk_weights for each in traces if each.topk_weights is not None]
    return Trace(
        topk_ids=np.concatenate([each.topk_ids for each in traces], axis=1),
        seq_lens=np.concatenate([each.seq_lens for each in traces]),
        experts=traces[0].experts,
        name="merged",
        source=source,
        topk_weights=np.concatenate(weights, axis=1) if len(weights) == len(traces) else None,
        meta=meta,
    )


def save_routing(path: str | Path, routing: Trace | LoadCounts) -> None:
    """Writes a trace or load counts to an .npz file.

    Raises:
        InputError: The file can't be written.
    """
    if isinstance(routing, Trace):
        write_trace(path, routing)
    else:
        write_counts(path, routing)
