"""What is found of a plan: checks that were made or could not be, and what nothing but the plan says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from placement.check.case import PlanCase
from placement.check.certificate import Proof
from placement.records.role import RUNNING, LayerRecord
from placement.routing.holdout import Routing
from specs.documents import shown


@dataclass(frozen=True)
class Check:
    """One finding on a plan.

    Attributes:
        name: what was looked at.
        kind: "checked": derived again and compared; "claimed": nothing but the plan says so; "missing": not made, as
            the routing is not at hand or an earlier check failed.
        passed: whether what was checked holds; None of the other kinds.
        detail: what was found, or what is open and why.
        fields: paths of the plan that a finding leaves open, with all that lies under them; [] is any index.
    """

    name: str
    kind: Literal["checked", "claimed", "missing"]
    passed: bool | None
    detail: str
    fields: tuple[str, ...] = ()


def claims(case: PlanCase, proofs: Sequence[Proof]) -> Iterator[Check]:
    """What nothing but the plan says, and bounds whose witness is missing; `proofs`: of the layers, or ()."""
    layers, rows = case.role.layers, case.role.strategies

    def claim(name: str, detail: str, fields: Iterable[str]) -> Check:
        return Check(name, "claimed", None, detail, tuple(fields))

    yield claim("question", "as it stands; whether another split or batch is better is not tried", ("scenario", "tail"))
    open_ = [proof.kind for proof in proofs] or ["claimed"] * len(layers)
    for kind in ("claimed", "missing"):
        rest = [i for i, found in enumerate(open_) if found == kind]
        if rest:
            optimal = sum(layers[i].status == "optimal" for i in rest)
            told = f"{len(rest)} of {len(layers)} bounds; with them the gap, and {optimal} layers called optimal"
            if proofs:
                told += f"; {by_source(layers, rest)}"
            yield Check("proofs", kind, None, told, tuple(f"layers[{i}].bound" for i in rest))
    rivals = {row.name: i for i, row in enumerate(rows) if row.name in ("eplb", RUNNING)}
    yield claim(
        "rivals", f"{', '.join(rivals)}: scored as they stand, not built again",
        (f"strategies[{i}].placements" for i in rivals.values()),
    )  # fmt: skip
    yield claim("run", "strategy, effort, balance floor, versions, terminations and timings", _run_fields(case))


def by_source(layers: Sequence[LayerRecord], rest: Sequence[int]) -> str:
    """Which layers, by the argument that their bounds name."""
    sources = dict.fromkeys(layers[i].bound_source for i in rest)
    told = ((source, [layers[i].layer for i in rest if layers[i].bound_source == source]) for source in sources)
    return "; ".join(
        f"{shown(source, 80)} (layer{'s' * (len(numbers) > 1)} {_ranges(numbers)})" for source, numbers in told
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending whole numbers, runs as first-last."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _run_fields(case: PlanCase) -> Iterator[str]:
    """What is said of the solver's run and shows in nothing else."""
    yield from (f"provenance.{name}" for name in ("strategy", "work", "balance_floor", "versions"))
    for name in ("params", "gap", "cut_short", "cautions"):
        if getattr(case.plan.provenance, name) not in (None, (), {}):
            yield f"provenance.{name}"
    yield from ("layers[].bound_source", "layers[].termination", "timings")
    if case.plan.provenance.inputs:
        yield "provenance.seed"
    if not case.why_not and not _as_cut(case.routing, len(case.sources)):
        yield from ("provenance.routing.windows_per_trace", "provenance.routing.judged_windows_per_trace")


def _as_cut(routing: Routing, sources: int) -> bool:
    """Whether there are as many windows as were asked for; load counts and short traces bring their own."""
    solved, judged = len(routing.solved_on[0].window_weight), len(routing.judged_on[0].window_weight)
    solved -= routing.record.mixture and solved > 1
    asked = (routing.record.windows_per_trace, routing.record.judged_windows_per_trace)
    return not routing.counts_only and (solved, judged) == (sources * asked[0], sources * asked[1])
