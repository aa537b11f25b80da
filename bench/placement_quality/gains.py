"""Solved against the balancer: bytes by extra slots, layer times by phase, nodes, and one phase's plan in the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bench.placement_quality.measure import RIVAL, SOLVED, Comparison, Solves, mean, mean_figures
from bench.placement_quality.protocol import GPUS_PER_NODE, Phase, Protocol, Setting
from bench.placement_quality.result import Part
from bench.targets import Target
from placement.cost.layer.score import LayerScore
from placement.problem.moves import moves_between
from solvers.experts.relabel import relabel
from specs.engine import Dispatch

EXTRA = (0.0, 0.25, 0.5, 1.0)
#: Change of cross-node bytes against the balancer that is asked for, by dispatch and extra slots.
BYTES: dict[Dispatch, tuple[float, ...]] = {
    "planned": (-0.25, -0.36, -0.44, -0.56),
    "nearest": (-0.25, -0.31, -0.35, -0.45),
}
#: Balancedness may be this much lower than the balancer's.
BALANCE = 0.01
#: Ratio of layer times that is asked for: phase, extra slots, ratio.
TIMES: tuple[tuple[Phase, float, float], ...] = (
    ("prefill", 0.0, 1.2), ("prefill", 0.5, 1.4), ("decode", 0.0, 1.1), ("decode", 0.5, 1.25),
)  # fmt: skip
NODES = (2, 4, 8)
PHASES: tuple[tuple[Phase, Phase], ...] = (("prefill", "decode"), ("decode", "prefill"))
HEADER = ("setting", "bytes", "remote nodes", "eplb's", "balance", "eplb's", "layer us", "eplb's", "faster")

Tell = Callable[[str], None]


def bytes_part(solves: Solves, tell: Tell) -> Part:
    """Cross-node bytes at 0 to 100% extra slots by the chosen protocols: in-domain, a domain left out, all jointly.

    Bytes are the objective here, of the balancer's dispatch, too, under the balance floor; where time is, see
    `time_part`. Balance is held against the balancer's better one: dispatched for bytes or for time.
    """
    found: list[Comparison] = []
    targets: list[Target] = []
    for dispatch, limits in BYTES.items():
        for extra, limit in zip(EXTRA, limits, strict=True):
            setting = Setting(dispatch=dispatch, extra=extra, objective="traffic")
            by: dict[Protocol, Comparison] = {}
            for protocol in solves.protocols:
                tell(f"bytes: {dispatch}, {extra:.0%} extra, {protocol}")
                by[protocol] = solves.compare(protocol, setting)
            found += by.values()
            name = f"{dispatch}, {extra:.0%} extra slots"
            inside, outside = by.get("in-domain"), by.get("held-out")
            if inside is not None:
                # The balancer's best variant counts: dispatched for time it is the more balanced one.
                timed = solves.figures("in-domain", replace(setting, objective="time"), RIVAL)
                against = (inside, replace(inside, rival=timed))
                change = min(one.balancedness_change for one in against)
                targets.append(Target(f"{name}: bytes, in-domain", 100 * inside.bytes_change, 100 * limit, "%"))
                targets.append(Target(f"{name}: balancedness over eplb's", change, -BALANCE, "", True))
            if inside is not None and outside is not None:
                half = f"{name}: bytes, held-out domain, half of the in-domain gain"
                least = 50 * min(inside.bytes_change, limit)
                targets.append(Target(half, 100 * outside.bytes_change, least, "%"))
    title = "Least cross-node bytes per token, against eplb, 4 nodes x 4 GPUs, prefill at 4,096 tokens per GPU"
    rows = tuple(_row(one, f"{one.setting.dispatch}, +{one.setting.extra:.0%}, {one.protocol}") for one in found)
    return Part("bytes", title, HEADER, rows, found, tuple(targets))


@dataclass(frozen=True)
class Timed:
    """Layer times of one setting, solved with several seeds: figures are their means, speedups one a seed."""

    comparison: Comparison
    speedups: tuple[float, ...]


def time_part(solves: Solves, tell: Tell, seeds: int = 1) -> Part:
    """MoE-layer time, each phase solved as such, `planned` dispatch.

    Args:
        seeds: searches to take means over, each with a seed of its own; targets are held against the means.
    """
    found, targets = [], []
    each = solves.reseeded(seeds)
    for phase, extra, ratio in TIMES:
        tell(f"time: {phase}, {extra:.0%} extra")
        runs = [one.compare("in-domain", Setting(phase=phase, extra=extra)) for one in each]
        one = replace(
            runs[0], solved=mean_figures([run.solved for run in runs]), rival=mean_figures([run.rival for run in runs])
        )
        found.append(Timed(one, tuple(run.speedup for run in runs)))
        targets.append(Target(f"{phase}, {extra:.0%} extra slots: times faster", one.speedup, ratio, "x", True))
    title = f"MoE-layer time, H100 with 400 Gb/s InfiniBand, in-domain, planned dispatch, {_seeds(seeds)}"
    rows = tuple(
        (
            *_row(one.comparison, f"{one.comparison.setting.phase}, +{one.comparison.setting.extra:.0%}"),
            f"{min(one.speedups):.3f}-{max(one.speedups):.3f}x",
        )
        for one in found
    )  # fmt: skip
    return Part("time", title, (*HEADER, "by seed"), rows, found, tuple(targets))


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"means of {count} seeds"


def nodes_part(solves: Solves, tell: Tell) -> Part:
    """The gain by number of nodes, at the extra slots that divide."""
    found: list[Comparison] = []
    left_out = []
    for nodes in NODES:
        for extra in EXTRA:
            slots = round(solves.recorded.experts * (1 + extra))
            if slots % (nodes * GPUS_PER_NODE):
                left_out.append(f"{slots} slots on {nodes} nodes")
                continue
            tell(f"nodes: {nodes}, {extra:.0%} extra")
            setting = Setting(extra=extra, nodes=nodes, objective="traffic")
            found.append(solves.compare("in-domain", setting))
    title = "Cross-node bytes by nodes of 4 GPUs, in-domain, planned dispatch, prefill"
    if left_out:
        title += f" (left out: {', '.join(left_out)}, which do not divide)"
    rows = tuple(_row(one, f"{one.setting.nodes} nodes, +{one.setting.extra:.0%}") for one in found)
    return Part("nodes", title, HEADER, rows, found)


def _row(one: Comparison, label: str) -> tuple[str, ...]:
    return (
        label, f"{one.bytes_change:+.1%}",
        f"{one.solved.remote_nodes:.3f}", f"{one.rival.remote_nodes:.3f}", f"{one.solved.balancedness:.3f}",
        f"{one.rival.balancedness:.3f}", f"{one.solved.layer_us:.1f}", f"{one.rival.layer_us:.1f}",
        f"{one.speedup:.3f}x",
    )  # fmt: skip


@dataclass(frozen=True)
class Crossed:
    """Placements solved for each phase, judged in one phase, in-domain.

    Attributes:
        own_us, other_us, balancer_us: layer time of the placement solved for this phase, for the other one, and eplb's.
        own_balancedness, other_balancedness, own_remote, other_remote: their figures in this phase.
        shared: share of the slots that the two placements have in common, under the best names of GPUs.
    """

    phase: Phase
    extra: float
    own_us: float
    other_us: float
    balancer_us: float
    own_balancedness: float
    other_balancedness: float
    own_remote: float
    other_remote: float
    shared: float


def phases_part(solves: Solves, tell: Tell) -> Part:
    """Where a placement for decode and one for prefill differ, and what it costs to run one in the other's phase."""
    found = []
    for extra in (0.0, 0.5):
        for phase, other in PHASES:
            tell(f"phases: {phase}, {extra:.0%} extra")
            found.append(_crossed(solves, phase, other, extra))
    header = (
        "judged in",
        "own, us",
        "other, us",
        "eplb, us",
        "balance",
        "other's",
        "remote nodes",
        "other's",
        "shared slots",
    )
    rows = tuple(
        (
            f"{c.phase}, +{c.extra:.0%}", f"{c.own_us:.1f}", f"{c.other_us:.1f}", f"{c.balancer_us:.1f}",
            f"{c.own_balancedness:.3f}", f"{c.other_balancedness:.3f}", f"{c.own_remote:.3f}", f"{c.other_remote:.3f}",
            f"{c.shared:.0%}",
        )
        for c in found
    )  # fmt: skip
    return Part(
        "phases",
        "A phase's own placement and the other phase's, judged in it (in-domain, planned)",
        header,
        rows,
        found,
    )


def _crossed(solves: Solves, phase: Phase, other: Phase, extra: float) -> Crossed:
    setting = Setting(phase=phase, extra=extra)
    gpus = setting.nodes * GPUS_PER_NODE
    own: list[LayerScore] = []
    crossed: list[LayerScore] = []
    shared: list[float] = []
    for case in solves.recorded.cases("in-domain"):
        mine = solves.answers("in-domain", case, setting, SOLVED)
        its = solves.answers("in-domain", case, replace(setting, phase=other), SOLVED)
        own += solves.judge(case, setting, [(a.slots, a.fractions) for a in mine])
        crossed += solves.judge(case, setting, [(a.slots, a.fractions) for a in its])
        for a, b in zip(mine, its, strict=True):
            named = relabel(b.slots, a.slots, solves.recorded.experts, setting.nodes, gpus)
            shared.append(1 - moves_between(a.slots, named, len(a.slots) // gpus) / len(a.slots))
    rival = solves.figures("in-domain", setting, RIVAL)

    return Crossed(
        phase, extra, mean(own, "time_s") * 1e6, mean(crossed, "time_s") * 1e6, rival.layer_us,
        mean(own, "balancedness"), mean(crossed, "balancedness"), mean(own, "remote_nodes_per_token"),
        mean(crossed, "remote_nodes_per_token"), float(np.mean(shared)),
    )  # fmt: skip
