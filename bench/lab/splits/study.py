"""Splits of each role with their time by part: the chosen one, its neighbours, and tensor parallelism alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.lab.render import shown
from bench.lab.studies import Configured, configured, split_on, whole
from bench.lab.target import Drawing, Figure, LabCase, Outcome, Table
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.step.pass_times import PassModel
from placement.cost.step.serving_mix import planned_rates
from placement.problem.split import Split, degrees_text
from placement.records.plan import Plan
from placement.records.role import RolePlan
from specs.scenario import Scenario
from specs.workload import Phase

#: Parts of a step, the letter of each in bars, and what the step model's own parts count as.
COMPUTE, MEMORY, MESSAGES, OVERHEAD, BUBBLE = "compute", "KV reads", "communication", "launches", "bubble"
LETTERS = {COMPUTE: "#", MEMORY: "m", MESSAGES: "~", OVERHEAD: ".", BUBBLE: " "}
_PARTS = {
    "attention core": MEMORY, "tensor-parallel collectives": MESSAGES, "stage transfers": MESSAGES,
    "launches and element-wise": OVERHEAD,
}  # fmt: skip
FACTORS = (0.5, 2.0)
BAR = 44
MOST_ROWS = 8


@dataclass(frozen=True)
class Timed:
    """A split of a role and its time by part, in milliseconds of one step.

    Attributes:
        parts: Of a decode step, a prompt's prefill, or a microbatch's forward pass with its share of the bubble.
    """

    name: str
    made: Configured
    parts: dict[str, float]

    @property
    def step_ms(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True)
class RoleSplits:
    """The chosen split of a role first, then those that are next to it, best first; `plain`: tensor parallel alone."""

    role: RolePlan
    chosen: Timed
    neighbours: tuple[Timed, ...]
    plain: Timed | None


def study(case: LabCase[Any]) -> tuple[Plan, tuple[RoleSplits, ...]]:
    """The plan and the splits of each role."""

    def make() -> tuple[Plan, tuple[RoleSplits, ...]]:
        plan = case.plan()
        return plan, tuple(_splits(plan, role) for role in plan.roles)

    return case.planner.once(("splits", case.scenario.model_dump_json()), make)


def _splits(plan: Plan, role: RolePlan) -> RoleSplits:
    scenario, own = plan.scenario_of(role), role.split.split()
    chosen = _timed(scenario, role, own)
    found = {(t.made.split.tp, t.made.split.ep, t.made.split.pp, t.made.split.dp): t for t in _near(scenario, role)}
    found.pop((own.tp, own.ep, own.pp, own.dp), None)
    near = sorted(found.values(), key=lambda each: (not each.made.feasible, -each.made.tokens_per_s))
    return RoleSplits(role, chosen, tuple(near[:MOST_ROWS]), _plain(scenario, role))


def _near(scenario: Scenario, role: RolePlan) -> Iterator[Timed]:
    """Splits with one or two degrees halved or doubled, on the GPUs of the role."""
    own = role.split
    base = {"tp": own.tp, "ep": own.ep, "pp": own.pp, "dp": own.dp}
    changes = [{name: factor} for name in base for factor in FACTORS]
    changes += [
        {a: x, b: y} for a in base for b in base if a < b for x in FACTORS for y in FACTORS
    ]  # fmt: skip
    for change in changes:
        degrees = {name: base[name] * change.get(name, 1.0) for name in base}
        if all(value >= 1 and value == int(value) for value in degrees.values()):
            split = _made(scenario, role, {name: int(value) for name, value in degrees.items()})
            if split is not None:
                yield _timed(scenario, role, split)


def _made(scenario: Scenario, role: RolePlan, degrees: dict[str, int]) -> Split | None:
    """A split of these degrees on the role's GPUs; None where there is none."""
    return split_on(scenario, role.gpus, role.split.batch, degrees)


def _plain(scenario: Scenario, role: RolePlan) -> Timed | None:
    """Tensor parallel in a node and pipeline over nodes, no expert parallelism: the fewest stages that fit."""
    size = scenario.cluster.gpus_per_node
    for tp in sorted((t for t in (1, 2, 4, 8, 16) if t <= size), reverse=True):
        for pp in (1, 2, 4, 8, 16, 32):
            split = _made(scenario, role, {"tp": tp, "ep": 1, "pp": pp, "dp": 1})
            if split is not None and (found := _timed(scenario, role, split)).made.feasible:
                return found
    return None


def _timed(scenario: Scenario, role: RolePlan, split: Split) -> Timed:
    made = configured(scenario, role.role, split, role.cp)
    parts = dict.fromkeys(LETTERS, 0.0)
    for each in made.prediction.breakdown:
        if each.name == "MoE layers":
            sent = _messages_share(scenario, role, made.fitted)
            parts[MESSAGES] += each.seconds * sent * 1e3
            parts[COMPUTE] += each.seconds * (1 - sent) * 1e3
        else:
            parts[_PARTS.get(each.name, COMPUTE)] += each.seconds * 1e3
    step = made.prediction.step
    if step is not None and step.bubble_share < 1:
        parts[BUBBLE] = sum(parts.values()) * step.bubble_share / (1 - step.bubble_share)
    elif role.role != "prefill" and made.fitted.microbatches < split.pp:
        parts[BUBBLE] = sum(parts.values()) * (split.pp / made.fitted.microbatches - 1)
    return Timed(degrees_text(split.tp, split.ep, split.pp, split.dp, role.cp), made, parts)


def _messages_share(scenario: Scenario, role: RolePlan, split: Split) -> float:
    """Share of a balanced MoE layer's time that dispatch and combine take."""
    if split.ep == 1:
        return 0.0
    phase: Phase = {"prefill": "prefill", "training": "train"}.get(role.role, "decode")  # type: ignore[assignment]
    passes = PassModel(scenario, split, efficiency_of(scenario))
    layer = passes.decode_layer if phase == "decode" else passes.layer
    tokens = planned_rates(scenario, split, phase).tokens_per_gpu
    experts, messages = layer.experts_s(tokens), layer.messages_s(tokens)
    return messages / (experts + messages) if experts + messages > 0 else 0.0


def outcome(case: LabCase[Any], best: bool) -> Outcome:
    """The chosen splits, or tensor parallelism alone in every role that it fits."""
    plan, roles = study(case)
    if not best:
        sides = [each.plain or (each.neighbours or (each.chosen,))[-1] for each in roles]
        sides = [side if side.made.feasible else each.chosen for side, each in zip(sides, roles, strict=True)]
        rate = whole(plan, [side.made for side in sides])
        mine = whole(plan, [each.chosen.made for each in roles])
        if rate > mine:  # by the balanced estimate alone: the plan's own experts are placed
            sides, rate = [each.chosen for each in roles], mine
        return _told(sides, roles, rate)
    sides = [each.chosen for each in roles]
    made = _told(sides, roles, whole(plan, [side.made for side in sides]))
    tables = tuple(_table(each) for each in roles)
    drawings = tuple(Drawing(f"{each.role.role}: ms of a step by part", _bars(each)) for each in roles)
    notes = [_why(each) for each in roles]
    notes.append("Splits are compared with experts taken as balanced; the plan's own are placed.")
    if case.scenario.workload.kind == "training":
        notes.append("The chosen split has its stages cut and its recompute solved; those next to it are cut evenly.")
    return Outcome(
        made.label, made.step_ms, made.throughput, figures=made.figures, tables=tables, drawings=drawings,
        notes=tuple(notes), tie="tensor parallelism alone does not fit, or is what the planner chose",
        production=(
            f"placement solve --spec {case.scenario.name} --explain   # what looser limits would buy",
            f"placement solve --spec {case.scenario.name} --tp {2 * sides[-1].made.split.tp}   # pin a degree",
        ),
    )  # fmt: skip


def _told(sides: list[Timed], roles: tuple[RoleSplits, ...], rate: float) -> Outcome:
    last = sides[-1].made.prediction
    seconds = last.step.step_s if last.step is not None else last.tpot_s
    label = " + ".join(f"{each.role.role} {side.name}" for side, each in zip(sides, roles, strict=True))
    share = [side.parts[MESSAGES] / side.step_ms if side.step_ms else 0.0 for side in sides]
    figures = tuple(
        Figure(f"communication of {each.role.role}", 100 * value, "%", "lower")
        for each, value in zip(roles, share, strict=True)
    )
    return Outcome(label, None if seconds is None else seconds * 1e3, rate, figures=figures)


def _table(each: RoleSplits) -> Table:
    rows = [_row(timed) for timed in (each.chosen, *each.neighbours)]
    if each.plain is not None and each.plain.name not in [row[0] for row in rows]:
        rows.append(_row(each.plain))
    header = ("split", "tokens/s", "batch", "HBM GB", *LETTERS, "binds")
    return Table(f"{each.role.role}: the chosen split and those next to it (ms)", header, tuple(rows), 0)


def _row(timed: Timed) -> tuple[str, ...]:
    made, parts = timed.made, [f"{timed.parts[name]:.3g}" for name in LETTERS]
    rate = shown(round(made.tokens_per_s)) if made.feasible else "-"
    binds = "does not fit" if not made.feasible and not made.memory.fits else ", ".join(made.binds) or "-"
    return (timed.name, rate, str(made.fitted.batch), f"{made.memory.total_bytes / 1e9:.1f}", *parts, binds)


def _bars(each: RoleSplits) -> str:
    shown_rows = [each.chosen, *[t for t in each.neighbours if t.made.feasible][:4]]
    if each.plain is not None:
        shown_rows.append(each.plain)
    most = max(timed.step_ms for timed in shown_rows) or 1.0
    width = max(len(timed.name) for timed in shown_rows)
    lines = []
    for timed in shown_rows:
        bar, at = "", 0.0
        for name, letter in LETTERS.items():
            at += timed.parts[name]
            bar += letter * (round(BAR * at / most) - len(bar))
        lines.append(f"{timed.name:{width}} |{bar.ljust(BAR)}| {timed.step_ms:,.3g}")
    key = "   ".join(f"{letter} {name}" for name, letter in LETTERS.items() if letter.strip())
    return "\n".join([*lines, f"{'':{width}}  {key}"])


def _why(each: RoleSplits) -> str:
    """Why the chosen split wins, in a sentence."""
    chosen, rest = each.chosen, [t for t in each.neighbours if t.made.feasible]
    binds = ", ".join(chosen.made.binds) or "nothing"
    told = f"{each.role.role} {chosen.name}: {binds} binds"
    if not rest:
        return f"{told}; no split next to it fits."
    rival = rest[0]
    gain = chosen.made.tokens_per_s / rival.made.tokens_per_s - 1
    if gain < 0:
        return f"{told}; {rival.name} looks {-gain:.1%} better while experts are taken as balanced."
    return f"{told}; {rival.name} is {gain:.1%} behind{lag_told(chosen, rival, gain)}."


def lag_told(chosen: Timed, rival: Timed, gain: float) -> str:
    """The part of the step that most of a rival's lag lies in; "" where no part has half of it.

    Parts are compared as GPU time of a sequence: each split has its own batch, and TPOT may make all steps as long.
    """

    def spent(timed: Timed) -> dict[str, float]:
        split = timed.made.fitted
        return {name: ms * split.tp * split.microbatches / split.batch for name, ms in timed.parts.items()}

    mine, theirs = spent(chosen), spent(rival)
    more = max(LETTERS, key=lambda name: theirs[name] - mine[name])
    lag = gain * sum(mine.values())
    return f", most of it {more}" if theirs[more] - mine[more] >= lag / 2 else ""
