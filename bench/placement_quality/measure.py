"""Placements solved once each, and their figures on the routing that judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from bench.placement_quality.protocol import PROTOCOLS, Case, Protocol, Recorded, Setting, judged, problems
from placement.cost.layer.score import LayerScore, score_layer
from placement.problem.arrays import FloatArray, IntArray
from solvers.experts.layers import LayerAnswer, plan_layers
from solvers.stop import Stop

#: The balancer that others are held against.
RIVAL = "eplb"
SOLVED = "auto"


@dataclass(frozen=True)
class Figures:
    """Means over layers and cases, on held-out routing and on the routing solved on (`train_`)."""

    remote_nodes: float
    bytes_per_token: float
    balancedness: float
    layer_us: float
    train_remote_nodes: float
    train_balancedness: float
    train_layer_us: float


def mean_figures(found: Sequence[Figures]) -> Figures:
    """Field by field."""
    return Figures(*(float(np.mean([getattr(one, part.name) for one in found])) for part in fields(Figures)))


@dataclass(frozen=True)
class Comparison:
    """Solved against the balancer in one setting: same slots, dispatch and scorer."""

    protocol: Protocol
    setting: Setting
    solved: Figures
    rival: Figures

    @property
    def bytes_change(self) -> float:
        """Cross-node bytes per token, relative to the balancer's."""
        return self.solved.bytes_per_token / self.rival.bytes_per_token - 1

    @property
    def balancedness_change(self) -> float:
        return self.solved.balancedness - self.rival.balancedness

    @property
    def speedup(self) -> float:
        """MoE-layer time of the balancer over the solved one's."""
        return self.rival.layer_us / self.solved.layer_us


class Solves:
    """Solves layers, each setting and case once."""

    def __init__(
        self, recorded: Recorded, work: float, seed: int, workers: int, protocols: Sequence[Protocol] = PROTOCOLS
    ) -> None:
        self.recorded, self.protocols = recorded, tuple(protocols)
        self.work, self.seed, self.workers = work, seed, workers
        self._known: dict[tuple[Protocol, bool, str, Setting, str], tuple[LayerAnswer, ...]] = {}

    def reseeded(self, count: int) -> tuple[Solves, ...]:
        """This one and others of the next seeds, `count` in all."""
        others = range(self.seed + 1, self.seed + count)
        return (self, *(Solves(self.recorded, self.work, seed, self.workers, self.protocols) for seed in others))

    def answers(
        self, protocol: Protocol, case: Case, setting: Setting, strategy: str, mixture: bool = True
    ) -> tuple[LayerAnswer, ...]:
        """The layers' answers on what the case is solved on."""
        # With one copy of each expert every dispatch is the same.
        key = (protocol, mixture, case.name, setting if setting.extra else _single(setting), strategy)
        if key not in self._known:
            posed = problems(case.train, key[3], self.recorded.experts)
            self._known[key] = plan_layers(posed, strategy, Stop(self.work), self.seed, self.workers, certify=False)
        return self._known[key]

    def figures(self, protocol: Protocol, setting: Setting, strategy: str) -> Figures:
        """Means over layers and the protocol's cases."""
        return self.means(protocol, self.recorded.cases(protocol), setting, strategy)

    def means(self, protocol: Protocol, cases: Sequence[Case], setting: Setting, strategy: str) -> Figures:
        """Means over layers and some cases, whose names tell them apart within the protocol."""
        train: list[LayerScore] = []
        test: list[LayerScore] = []
        for case in cases:
            answers = self.answers(protocol, case, setting, strategy)
            train += [answer.score for answer in answers]
            test += self.judge(case, setting, [(a.slots, a.fractions) for a in answers])
        return Figures(
            mean(test, "remote_nodes_per_token"), mean(test, "cross_node_bytes_per_token"),
            mean(test, "balancedness"), mean(test, "time_s") * 1e6, mean(train, "remote_nodes_per_token"),
            mean(train, "balancedness"), mean(train, "time_s") * 1e6,
        )  # fmt: skip

    def compare(self, protocol: Protocol, setting: Setting) -> Comparison:
        """Solved against the balancer."""
        return Comparison(
            protocol, setting, self.figures(protocol, setting, SOLVED), self.figures(protocol, setting, RIVAL)
        )

    def judge(
        self, case: Case, setting: Setting, placements: Sequence[tuple[IntArray, FloatArray | None]]
    ) -> list[LayerScore]:
        """Each layer's score on the routing that judges."""
        frames = problems(case.train, setting, self.recorded.experts)
        return [
            score_layer(judged(frame, layer), slots, fractions if setting.dispatch == "planned" else None)
            for frame, layer, (slots, fractions) in zip(frames, case.test, placements, strict=True)
        ]


def _single(setting: Setting) -> Setting:
    return replace(setting, dispatch="even")


def mean(scores: Sequence[LayerScore], name: str) -> float:
    """Of a field of the scores."""
    return float(np.mean([getattr(score, name) for score in scores]))
