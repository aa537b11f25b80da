"""Parts of a trace by whole sequences: held-out splits and load windows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np

from placement.errors import InputError, ParameterError
from placement.problem.arrays import IntArray
from placement.routing.trace import LoadCounts, Trace

Part = Literal["all", "first-half", "second-half"]


def take_sequences(trace: Trace, chosen: IntArray) -> Trace:
    """Some sequences of a trace ([n] ascending numbers), as a trace of the same name and source.

    `meta.sequences` of the part lists their numbers as [start, stop] ranges.
    """
    edges = np.flatnonzero(np.diff(chosen) != 1) + 1
    ranges = [[int(run[0]), int(run[-1]) + 1] for run in np.split(chosen, edges)]
    ends = np.concatenate([[0], np.cumsum(trace.seq_lens)]).astype(np.int64)
    tokens = np.concatenate([np.arange(ends[start], ends[stop]) for start, stop in ranges])
    meta = {key: value for key, value in trace.meta.items() if key not in ("domains", "tokens_per_domain")}
    return replace(
        trace,
        topk_ids=trace.topk_ids[:, tokens],
        seq_lens=trace.seq_lens[chosen],
        topk_weights=None if trace.topk_weights is None else trace.topk_weights[:, tokens],
        meta={**meta, "sequences": ranges},
    )


def domain_edges(trace: Trace) -> IntArray:
    """[domains + 1] sequence numbers where domains begin and end: one domain, unless meta names several, one after the
    other (`domains`, `tokens_per_domain`)."""
    names, size = trace.meta.get("domains"), trace.meta.get("tokens_per_domain")
    whole = np.array([0, len(trace.seq_lens)], dtype=np.int64)
    if not isinstance(names, list) or not isinstance(size, int) or not names or size * len(names) != trace.tokens:
        return whole
    ends = np.concatenate([[0], np.cumsum(trace.seq_lens)])
    wanted = np.arange(len(names) + 1) * size
    return np.searchsorted(ends, wanted) if np.isin(wanted, ends).all() else whole


def split_by_sequence(trace: Trace) -> tuple[Trace, Trace]:
    """The first half of a trace's sequences (by count, rounded down), and the rest; of several domains, of each.

    By sequences, as tokens of one resemble each other: a split inside it would let a plan see its test.

    Raises:
        InputError: the trace (or a domain) has a single sequence.
    """
    edges = domain_edges(trace)
    first, second = [], []
    for start, stop in pairwise(map(int, edges)):
        if stop - start < 2:
            raise InputError(
                trace.name, "seq_lens", "a single sequence has no held-out part", "record several sequences, or use all"
            )
        at = (start + stop) // 2
        first.append(np.arange(start, at))
        second.append(np.arange(at, stop))
    return take_sequences(trace, np.concatenate(first)), take_sequences(trace, np.concatenate(second))


def select_part(trace: Trace, part: Part) -> Trace:
    """The whole trace, or one half of its sequences.

    Raises:
        InputError: a half of a single sequence, or an unknown part.
    """
    if part == "all":
        return trace
    if part not in ("first-half", "second-half"):
        raise InputError(trace.name, "part", f"{part!r} is unknown", "use all, first-half or second-half")
    return split_by_sequence(trace)[0 if part == "first-half" else 1]


def check_windows(routing: Trace | LoadCounts, windows: int) -> None:
    """Whether routing can be cut into so many load windows.

    Raises:
        ParameterError: It has fewer sequences, or brings windows of its own.
    """
    if isinstance(routing, LoadCounts):
        if windows > 1:
            problem = f"{routing.name} has load counts, which bring {len(routing.counts)} windows of their own"
            raise ParameterError("windows", problem, "leave it out")
    elif windows > len(routing.seq_lens):
        problem = f"{windows} windows of {len(routing.seq_lens)} sequences of {routing.name}"
        raise ParameterError("windows", problem, f"give at most {len(routing.seq_lens)}")


def window_edges(trace: Trace, windows: int) -> IntArray:
    """[windows + 1] token offsets that cut a trace into windows of whole sequences, in order, of about equal tokens.

    Each edge is the end of a sequence nearest to its even share, no window is empty.

    Raises:
        InputError: more windows than sequences, or none.
    """
    sequences = len(trace.seq_lens)
    if not 1 <= windows <= sequences:
        raise InputError(
            trace.name, "windows", f"{sequences} sequences cannot make {windows} windows",
            f"ask for 1 to {sequences} windows",
        )  # fmt: skip
    ends = np.concatenate([[0], np.cumsum(trace.seq_lens)]).astype(np.int64)
    edges = [0]
    for window in range(1, windows):
        first, last = edges[-1] + 1, sequences - (windows - window)
        distance = np.abs(ends[first : last + 1] - trace.tokens * window / windows)
        edges.append(first + int(np.argmin(distance)))
    return ends[[*edges, sequences]]
