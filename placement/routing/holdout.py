"""The routing that a plan is solved on and the routing it is judged on: recorded traces, load counts, or synthetic."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from placement.errors import InputError, ParameterError
from placement.problem.data import LayerData
from placement.records.plan import InputRecord, RoutingRecord
from placement.routing.parts import select_part, split_by_sequence
from placement.routing.reader import check_fits, read_trace
from placement.routing.recordings.detect import recording_told
from placement.routing.statistics import counts_statistics, layer_statistics, with_mixture
from placement.routing.synthesize import synthesize
from placement.routing.trace import LoadCounts, Trace
from specs.documents import shown
from specs.model import Model
from specs.scenario import Scenario

#: Windows that a plan is solved on where nothing else is asked for. Measured on one recorded domain (4 nodes x 4 GPUs,
#: held out): three windows and their mixture instead of one keep the messages and lift balancedness by 0.02.
WINDOWS = 3


@dataclass(frozen=True)
class Source:
    """Routing from one file or from the synthesizer, with the file's record (None for synthetic)."""

    routing: Trace | LoadCounts
    record: InputRecord | None


@dataclass(frozen=True)
class Routing:
    """Statistics of every MoE layer, of the part that is solved on and of the part that judges.

    Attributes:
        solved_on: one LayerData per MoE layer; of several windows, with their mixture in front.
        judged_on: likewise, without the mixture.
        record, inputs: what the plan file says of them.
        counts_only: no co-activation is known.
    """

    solved_on: tuple[LayerData, ...]
    judged_on: tuple[LayerData, ...]
    record: RoutingRecord
    inputs: tuple[InputRecord, ...]
    counts_only: bool


def load_trace(path: str | Path) -> Trace | LoadCounts:
    """Recorded routing in a file: a Trace if it holds `topk_ids`, else LoadCounts (docs/routing.md).

    Raises:
        InputError: A file that can't be read.
    """
    return replace(_read(path), sha256=_digest(str(path)))


def read_sources(model: Model, traces: Sequence[Trace | LoadCounts | str | Path]) -> tuple[Source, ...]:
    """Recorded routing of `model`, from objects or files, by name and then content: no plan depends on their order.

    Raises:
        InputError: A file that can't be read, routing of another model, or traces mixed with counts.
    """
    found: list[tuple[str, str, Trace | LoadCounts]] = []
    moe = model.moe
    for trace in traces:
        if isinstance(trace, Trace | LoadCounts):
            check_fits(trace, moe.experts, len(model.moe_layers), moe.computed_top_k, model.name)
            found.append((trace.name, trace.sha256 or _digest_of(trace), trace))
        else:
            routing = _read(trace, moe.experts, len(model.moe_layers), moe.computed_top_k, model.name)
            found.append((routing.name, _digest(str(trace)), routing))
    if len({type(routing) for _, _, routing in found}) > 1:
        raise ParameterError("traces", "traces with token choices are mixed with load counts", "give files of one kind")
    kind: Literal["trace", "counts"] = "trace" if found and isinstance(found[0][2], Trace) else "counts"
    return tuple(
        Source(routing, InputRecord(kind=kind, name=shown(name, 500), sha256=digest))
        for name, digest, routing in sorted(found, key=lambda each: each[:2])
    )


def synthetic_source(scenario: Scenario, seed: int, workers: int = 1) -> Source:
    """Synthetic routing by the scenario's knobs, made by so many threads."""
    model, knobs = scenario.model, scenario.routing
    trace = synthesize(
        layers=len(model.moe_layers),
        experts=[moe.experts for moe in model.moes],
        top_k=model.moe.computed_top_k,
        tokens=knobs.tokens,
        sequences=knobs.sequences,
        skew=knobs.skew,
        coactivation=knobs.coactivation,
        seed=seed,
        groups=model.moe.groups,
        top_groups=model.moe.top_groups,
        model_name=model.name,
        workers=workers,
    )
    return Source(trace, None)


def routing_of(
    sources: Sequence[Source],
    top_k: int,
    holdout: bool | None = None,
    windows: int | None = None,
    judged_windows: int | None = None,
    mixture: bool = True,
) -> Routing:
    """Statistics of sources, all recorded or one synthetic.

    Args:
        holdout: True: the first half of each trace's sequences is solved on, the second judges. None: so, if every
            source is a trace that has such halves. False: all of it does both.
        windows: load windows of each trace to solve on (load counts bring their own). None: WINDOWS in all, so that a
            plan does not lean on one stretch of routing.
        judged_windows: of each trace that judges; None: as many as were asked for with `windows`, else one.
        mixture: whether the windows solved on have their mixture beside them (see with_mixture).

    Raises:
        InputError: nothing can be held out although it was asked for.
    """
    traces = [source.routing for source in sources if isinstance(source.routing, Trace)]
    counts = [source.routing for source in sources if isinstance(source.routing, LoadCounts)]
    if counts and holdout:
        raise ParameterError("holdout", "load counts have no sequences", "give traces, or leave `holdout` out")
    solve_windows = windows or -(-WINDOWS // max(1, len(traces)))
    judged_windows = judged_windows or windows or 1
    split = bool(holdout) or (holdout is None and not counts and all(map(_has_halves, traces)))
    if counts:
        solved_on = judged_on = counts_statistics(_joined(counts), top_k)
        tokens = judged_tokens = round(sum(float(c.counts[:, 0].sum()) for c in counts) / top_k)
    elif split:
        parts = [(select_part(trace, "first-half"), select_part(trace, "second-half")) for trace in traces]
        solved_on = layer_statistics([first for first, _ in parts], solve_windows)
        judged_on = layer_statistics([second for _, second in parts], judged_windows)
        tokens, judged_tokens = (sum(part[i].tokens for part in parts) for i in (0, 1))
    else:
        judged_on = layer_statistics(traces, judged_windows)
        solved_on = layer_statistics(traces, solve_windows)
        tokens = judged_tokens = sum(trace.tokens for trace in traces)
    if any(trace.synthetic for trace in traces):
        # However many are made, they tell less of the routing to come than recorded ones.
        solved_on, judged_on = (tuple(replace(one, tokens=None) for one in each) for each in (solved_on, judged_on))
    if mixture and not counts:
        solved_on = tuple(with_mixture(layer) for layer in solved_on)
    record = RoutingRecord(
        source=_told([source.routing for source in sources]),
        synthetic=any(source.routing.synthetic for source in sources),
        solved_on="first-half" if split else "all",
        judged_on="second-half" if split else "all",
        windows_per_trace=solve_windows,
        judged_windows_per_trace=judged_windows,
        mixture=mixture,
        tokens_solved=tokens,
        tokens_judged=judged_tokens,
    )
    inputs = tuple(source.record for source in sources if source.record is not None)
    return Routing(solved_on, judged_on, record, inputs, bool(counts))


def _read(path: str | Path, *model: Any) -> Trace | LoadCounts:
    """See read_trace; of what an engine recorded it says how to convert it."""
    try:
        return read_trace(path, *model)
    except InputError:
        told = recording_told(path)
        if told is None:
            raise
        mend = "convert it: placement trace convert FILE --out trace.npz"
        raise InputError(str(path), "", f"is a recording ({told}), not a trace", mend) from None


def _joined(counts: Sequence[LoadCounts]) -> LoadCounts:
    """Counts of several files as windows of one."""
    first = counts[0]
    return LoadCounts(np.concatenate([part.counts for part in counts]), first.name, first.source)


def _has_halves(trace: Trace) -> bool:
    try:
        split_by_sequence(trace)
    except InputError:
        return False
    return True


def _told(routing: Sequence[Trace | LoadCounts]) -> str:
    """Where routing comes from, for people."""
    synthetic = any(each.synthetic for each in routing)
    parts = [shown(each.source, 200) if synthetic else shown(each.name, 80) for each in routing]
    if synthetic:
        parts = list(dict.fromkeys(parts))
    text = ("; " if synthetic else ", ").join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")
    if synthetic:
        return text
    kind = "recorded trace" if isinstance(routing[0], Trace) else "recorded load counts"
    return f"{kind}{'s' if len(routing) > 1 and isinstance(routing[0], Trace) else ''} {text}"


def _digest(path: str) -> str:
    """SHA-256 of the file behind a path; FILE::KEY names an array of FILE."""
    file = path if Path(path).is_file() else path.rpartition("::")[0]
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of(routing: Trace | LoadCounts) -> str:
    """SHA-256 of the arrays of routing that came from no file."""
    arrays = (routing.topk_ids, routing.seq_lens) if isinstance(routing, Trace) else (routing.counts,)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
