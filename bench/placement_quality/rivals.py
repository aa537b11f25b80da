"""Every strategy side by side on recorded routing, and on synthetic routing swept over its knobs."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import product

import numpy as np

from bench.placement_quality.gains import Tell
from bench.placement_quality.measure import SOLVED, Figures, Solves
from bench.placement_quality.protocol import Setting, judged, problems
from bench.placement_quality.result import Part
from bench.targets import Target
from placement.cost.layer.score import score_layer
from placement.routing.parts import split_by_sequence
from placement.routing.statistics import layer_statistics
from placement.routing.synthesize import synthesize
from solvers.experts.layers import plan_layers
from solvers.params import DEFAULTS
from solvers.registry import BASELINES
from solvers.stop import Stop
from specs.engine import Dispatch

#: The sweep: largest load over the mean, strength of co-activation, nodes of 4 GPUs, extra slots.
SKEWS, COACTIVATIONS, NODES, EXTRA = (1.5, 3.0, 6.0), (0.0, 1.0, 2.0), (2, 4), (0.0, 0.25, 0.5)
EXPERTS, TOP_K, TOKENS = 64, 6, 6000


@dataclass(frozen=True)
class Ranked:
    """One strategy's figures, in-domain, `nearest` dispatch, prefill."""

    strategy: str
    extra: float
    figures: Figures


def rivals_part(solves: Solves, tell: Tell) -> Part:
    """Baselines, the hypergraph partitioner if it is installed, and the solved placement."""
    found = []
    partition = ("partition",) if importlib.util.find_spec("mtkahypar") is not None else ()
    for extra in (0.0, 0.5):
        for strategy in (*BASELINES, *partition, SOLVED):
            tell(f"rivals: {strategy}, {extra:.0%} extra")
            setting = Setting(extra=extra, dispatch="nearest")
            found.append(Ranked(strategy, extra, solves.figures("in-domain", setting, strategy)))
    header = ("strategy", "remote nodes", "balancedness", "layer us", "train remote nodes", "train layer us")
    rows = tuple(
        (
            f"{'solved' if r.strategy == SOLVED else r.strategy}, +{r.extra:.0%}", f"{r.figures.remote_nodes:.3f}",
            f"{r.figures.balancedness:.3f}", f"{r.figures.layer_us:.1f}", f"{r.figures.train_remote_nodes:.3f}",
            f"{r.figures.train_layer_us:.1f}",
        )
        for r in found
    )  # fmt: skip
    without = "" if partition else " (partition left out: mtkahypar is not installed)"
    return Part("rivals", f"Every strategy, in-domain, nearest dispatch, prefill{without}", header, rows, found)


@dataclass(frozen=True)
class Swept:
    """One synthetic scenario: the solved placement's layer time over the best baseline's.

    Attributes:
        best: the baseline that is best on the routing solved on. ratio: there, at most 1 if never worse.
        held_out_ratio: over the best baseline on the held-out half.
    """

    skew: float
    coactivation: float
    nodes: int
    extra: float
    dispatch: Dispatch
    best: str
    ratio: float
    held_out_ratio: float


def sweep_part(solves: Solves, tell: Tell) -> Part:
    """Skew x co-activation x nodes x slots: never worse than any baseline."""
    found = []
    for i, (skew, coactivation) in enumerate(product(SKEWS, COACTIVATIONS)):
        tell(f"sweep: skew {skew:g}, co-activation {coactivation:g}")
        trace = synthesize(
            layers=1, experts=EXPERTS, top_k=TOP_K, tokens=TOKENS, sequences=24, skew=skew, coactivation=coactivation,
            seed=solves.seed + i,
        )  # fmt: skip
        first, second = (layer_statistics([part]) for part in split_by_sequence(trace))
        for nodes, extra in product(NODES, EXTRA):
            dispatch: Dispatch = "planned" if nodes == 4 else "nearest"
            setting = Setting(dispatch=dispatch, extra=extra, nodes=nodes)
            posed = problems(first, setting, EXPERTS)
            test = judged(posed[0], second[0])
            train_us, test_us = {}, {}
            for name in (*BASELINES, SOLVED):
                (answer,) = plan_layers(posed, name, Stop(solves.work), solves.seed, certify=False)
                train_us[name] = answer.score.time_s
                test_us[name] = score_layer(test, answer.slots, answer.fractions).time_s
            best = min(BASELINES, key=lambda name: train_us[name])
            found.append(
                Swept(
                    skew, coactivation, nodes, extra, dispatch, best, train_us[SOLVED] / train_us[best],
                    test_us[SOLVED] / min(test_us[name] for name in BASELINES),
                )
            )  # fmt: skip
    # Layer times that count as alike are ordered by balance.
    worse = sum(s.ratio > 1 + DEFAULTS.near_time for s in found)
    held = sum(s.held_out_ratio > 1 + 1e-9 for s in found)
    header = ("scenario", "dispatch", "best baseline", "time over its", "held out, over the best there")
    rows = tuple(
        (
            f"skew {s.skew:g}, co-activation {s.coactivation:g}, {s.nodes} nodes, +{s.extra:.0%}", s.dispatch, s.best,
            f"{s.ratio:.3f}", f"{s.held_out_ratio:.3f}",
        )
        for s in found
    )  # fmt: skip
    mean, held_mean = (float(np.mean([getattr(s, name) for s in found])) for name in ("ratio", "held_out_ratio"))
    title = (
        f"{len(found)} synthetic scenarios: time over the best baseline's, mean {mean:.3f}, held out {held_mean:.3f} "
        f"(worse in {held})"
    )
    targets = (
        Target(f"{len(found)} scenarios: over {DEFAULTS.near_time:.1%} worse than a baseline, as solved", worse, 0, ""),
        Target(f"{len(found)} scenarios: worse than a baseline, held out", held, 0, ""),
    )
    return Part("sweep", title, header, rows, found, targets)
