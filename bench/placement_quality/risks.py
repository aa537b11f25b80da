"""Windows as scenarios, dispatch weights that engines can hold, and what a budget of moves brings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from bench.placement_quality.gains import Tell
from bench.placement_quality.measure import SOLVED, Solves
from bench.placement_quality.protocol import Phase, Setting, judged, problems
from bench.placement_quality.result import Part
from bench.targets import Target
from placement.cost.layer.risk import tail_mean
from placement.cost.layer.score import LayerScore, score_layer
from placement.problem.arrays import EMPTY, FloatArray, IntArray
from solvers.dispatch import rounded_fractions
from solvers.migration.allocate import allocate
from solvers.migration.run import layer_fronts
from solvers.stop import Stop

#: Share of the worst windows that the objective looks at: their mean, the worse half, the worst window.
TAILS = (1.0, 0.5, 0.0)
LEVELS = (4, 8, 16)
PHASES: tuple[Phase, ...] = ("prefill", "decode")
#: A smaller share of an expert's tokens is a solver's rounding.
SHARE = 1e-9
#: Budgets of moves, as shares of the slots, and the share of the full re-solve's gain that MOVED has to bring.
BUDGETS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0)
MOVED, GAIN = 0.05, 0.7


@dataclass(frozen=True)
class Robust:
    """Layers solved on three domains at once under one objective; microseconds of the domains' windows.

    `train_` is on the halves solved on, the rest on the held-out ones: their mean, worse half (CVaR) and worst.
    """

    strategy: str
    tail: float
    train_mean_us: float
    train_half_us: float
    train_worst_us: float
    mean_us: float
    half_us: float
    worst_us: float


def robust_part(solves: Solves, tell: Tell) -> Part:
    """Mean, CVaR and worst-window objectives over three domains: train against held-out."""
    found = []
    (case,) = solves.recorded.cases("joint", mixture=False)
    for tail, strategy in (*((tail, SOLVED) for tail in TAILS), (1.0, "eplb")):
        tell(f"robust: {strategy}, tail {tail:g}")
        setting = Setting(extra=0.5, tail=tail)
        answers = solves.answers("joint", case, setting, strategy, mixture=False)
        plain = replace(setting, tail=1.0)
        parts: list[list[float]] = []
        frames = problems(case.train, plain, solves.recorded.experts)
        for frame, layer, answer in zip(frames, case.test, answers, strict=True):
            row = []
            for problem in (frame, judged(frame, layer)):
                values = score_layer(problem, answer.slots, answer.fractions).window_value
                row += [tail_mean(values, problem.data.window_weight, share) * 1e6 for share in TAILS]
            parts.append(row)
        found.append(Robust(strategy, tail, *np.mean(parts, axis=0).tolist()))
    names = {1.0: "mean", 0.5: "CVaR of the worse half", 0.0: "worst window"}
    header = (
        "objective", "train mean us", "worse half", "worst", "held-out mean us", "worse half", "worst",
    )  # fmt: skip
    rows = tuple(
        (
            f"{'eplb' if r.strategy == 'eplb' else 'solved'}, {names[r.tail]}", f"{r.train_mean_us:.1f}",
            f"{r.train_half_us:.1f}", f"{r.train_worst_us:.1f}", f"{r.mean_us:.1f}", f"{r.half_us:.1f}",
            f"{r.worst_us:.1f}",
        )
        for r in found
    )  # fmt: skip
    title = "Three domains at once as scenarios, 50% extra slots, planned dispatch, prefill"
    return Part("robust", title, header, rows, found)


@dataclass(frozen=True)
class Rounded:
    """Fractions as whole multiples of 1 / levels: ratios of layer time and bytes to the unrounded, held out.

    Attributes:
        split: share of (home node, expert) pairs whose tokens go to more than one copy; rounding leaves the others as
            they are.
    """

    phase: str
    source: str
    levels: int
    split: float
    time_ratio: float
    bytes_ratio: float


def rounding_part(solves: Solves, tell: Tell) -> Part:
    """What integer dispatch weights cost, for the solved placement and for the balancer's with its solved dispatch."""
    found: list[Rounded] = []
    for phase, strategy in product(PHASES, (SOLVED, "eplb")):
        tell(f"rounding: {phase}, {strategy}")
        found += _rounded(solves, Setting(phase=phase, extra=0.5), strategy)
    rows = tuple(
        (
            f"{r.phase}, {r.source}", f"{r.split:.0%}", f"1/{r.levels}", f"{r.time_ratio:.4f}", f"{r.bytes_ratio:.4f}",
        )
        for r in found
    )  # fmt: skip
    header = ("placement", "experts split", "weights in", "time over unrounded", "bytes over unrounded")
    return Part("rounding", "Dispatch fractions as whole weights, 50% extra slots, held out", header, rows, found)


def _rounded(solves: Solves, setting: Setting, strategy: str) -> list[Rounded]:
    exact: list[LayerScore] = []
    whole: dict[int, list[LayerScore]] = {levels: [] for levels in LEVELS}
    split: list[float] = []
    for case in solves.recorded.cases("in-domain"):
        answers = solves.answers("in-domain", case, setting, strategy)
        exact += solves.judge(case, setting, [(a.slots, a.fractions) for a in answers])
        split += [_split(a.slots, a.fractions) for a in answers if a.fractions is not None]
        for levels, scores in whole.items():
            plans = [
                (a.slots, None if a.fractions is None else rounded_fractions(a.fractions, a.slots, levels))
                for a in answers
            ]
            scores += solves.judge(case, setting, plans)

    def ratio(scores: list[LayerScore], name: str) -> float:
        return float(np.mean([getattr(b, name) / getattr(a, name) for a, b in zip(exact, scores, strict=True)]))

    source = "solved" if strategy == SOLVED else strategy
    return [
        Rounded(
            setting.phase, source, levels, float(np.mean(split)), ratio(scores, "time_s"),
            ratio(scores, "cross_node_bytes_per_token"),
        )
        for levels, scores in whole.items()
    ]  # fmt: skip


def _split(slots: IntArray, fractions: FloatArray) -> float:
    """Share of (home node, expert) pairs that `fractions` [nodes, slots] sends to more than one slot."""
    used = slots != EMPTY
    copies = [np.bincount(slots[used], row[used] > SHARE) for row in fractions]
    return float(np.mean(np.array(copies) > 1))


@dataclass(frozen=True)
class Moved:
    """Share of the full re-solve's gain that a share of moved slots brings when the domain shifts from law to summary.

    Attributes:
        gain, held_out_gain: on the first halves of summary, solved on, and on the second. balancedness: held out.
    """

    phase: str
    dispatch: str
    extra: float
    budget: float
    moves: float
    gain: float
    held_out_gain: float
    balancedness: float


def migration_part(solves: Solves, tell: Tell) -> Part:
    """Moves against gain when the domain shifts."""
    found: list[Moved] = []
    for setting in (Setting(phase="decode", extra=0.5), Setting(phase="prefill", extra=0.5), Setting()):
        tell(f"migration: {setting.phase}, {setting.extra:.0%} extra")
        found += _moved(solves, setting)
    rows = tuple(
        (
            f"{m.phase}, {m.dispatch}, +{m.extra:.0%}", f"{m.budget:.0%}", f"{m.moves:.1%}", f"{m.gain:.1%}",
            f"{m.held_out_gain:.1%}", f"{m.balancedness:.3f}",
        )
        for m in found
    )  # fmt: skip
    targets = tuple(
        Target(
            f"{m.phase}, {m.extra:.0%} extra: gain with {MOVED:.0%} of slots moved, held out",
            100 * m.held_out_gain, 100 * GAIN, "%", True,
        )
        for m in found
        if m.budget == MOVED and m.extra > 0
    )  # fmt: skip
    header = ("setting", "budget", "moved", "gain", "held-out gain", "balancedness")
    return Part("migration", "From law to summary: share of the full re-solve's gain", header, rows, found, targets)


def _moved(solves: Solves, setting: Setting) -> list[Moved]:
    cases = {case.name: case for case in solves.recorded.cases("in-domain")}
    law, summary = cases["law"], cases["summary"]
    ran = solves.answers("in-domain", law, setting, SOLVED)
    posed = [
        problem.with_rules(current=answer.slots)
        for problem, answer in zip(problems(summary.train, setting, solves.recorded.experts), ran, strict=True)
    ]
    # The answers for one copy each were made under `even`, which is the same there.
    fractions = [answer.fractions for answer in ran]
    fronts = layer_fronts(posed, fractions, Stop(solves.work), solves.seed, solves.workers).layers
    allocation, slots = allocate(fronts), sum(len(answer.slots) for answer in ran)
    before = solves.judge(summary, setting, [(a.slots, a.fractions) for a in ran])
    last = [front.points[-1] for front in fronts]
    after = solves.judge(summary, setting, [(p.slots, p.fractions) for p in last])
    out = []
    for budget in BUDGETS:
        picks = allocation.points(int(budget * slots))
        if picks is None:
            continue
        points = [front.points[i] for front, i in zip(fronts, picks, strict=True)]
        judgement = solves.judge(summary, setting, [(p.slots, p.fractions) for p in points])
        first = sum(front.before.objective for front in fronts if front.before is not None)
        gain = _share(first - sum(p.score.objective for p in points), first - sum(p.score.objective for p in last))
        held = sum(s.time_s for s in before) - sum(s.time_s for s in judgement)
        whole = sum(s.time_s for s in before) - sum(s.time_s for s in after)
        out.append(
            Moved(
                setting.phase, setting.dispatch, setting.extra, budget, sum(p.moves for p in points) / slots,
                gain, _share(held, whole), float(np.mean([s.balancedness for s in judgement])),
            )
        )  # fmt: skip
    return out


def _share(part: float, whole: float) -> float:
    """`part` of a gain; none of it where there is nothing to gain."""
    return float(part / whole) if whole > 0 else 0.0
