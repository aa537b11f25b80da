"""What is solved on and what judges: recorded traces of three domains, in-domain, on a domain left out, and jointly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from bench.recorded import DOMAINS, read_domain
from placement.cost.layer.scenario_rates import layer_rates
from placement.errors import InputError
from placement.problem.data import LayerData
from placement.problem.hardware import LayerHardware
from placement.problem.layer import LayerObjective, LayerProblem, LayerRules, Objective
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from placement.routing.holdout import WINDOWS
from placement.routing.parts import split_by_sequence, take_sequences
from placement.routing.statistics import layer_statistics, with_mixture
from placement.routing.trace import Trace
from specs.engine import Dispatch

SCENARIO = "deepseek_v2_lite_h100_ib"
#: Tokens of a GPU in one pass.
TOKENS: dict[str, float] = {"prefill": 4096.0, "decode": 128.0}
GPUS_PER_NODE = 4
#: Parts of a domain's sequences for the learning curve; the domain with fewest has six sequences.
FOLDS = 6

Phase = Literal["prefill", "decode"]
#: in-domain: first half of a domain's sequences, judged on the second. held-out: the two other domains, judged on the
#: third. joint: first halves of all three, judged on the second halves.
Protocol = Literal["in-domain", "held-out", "joint"]
PROTOCOLS: tuple[Protocol, ...] = ("in-domain", "held-out", "joint")


@dataclass(frozen=True)
class Setting:
    """One layer problem's frame: `extra` redundant experts as a share of the experts, on `nodes` nodes of 4 GPUs."""

    phase: Phase = "prefill"
    dispatch: Dispatch = "planned"
    extra: float = 0.0
    nodes: int = 4
    tail: float = 1.0
    objective: Objective = "time"


@dataclass(frozen=True)
class Case:
    """Statistics of some layers: what is solved on, and what judges. `name` says which domain judges."""

    name: str
    train: tuple[LayerData, ...]
    test: tuple[LayerData, ...]


class Recorded:
    """The recorded traces, cut by protocol, for the chosen layers."""

    def __init__(self, folder: str, layers: Sequence[int]) -> None:
        """Reads the traces.

        Args:
            layers: positions of MoE layers.

        Raises:
            InputError: the folder does not hold the traces, or a layer is not in them.
        """
        self.layers = tuple(layers)
        self._traces = tuple(read_domain(folder, name) for name in DOMAINS)
        self._halves = tuple(split_by_sequence(trace) for trace in self._traces)
        most = self._traces[0].layers
        if not self.layers or max(self.layers) >= most:
            raise InputError("--layers", "", f"{len(self.layers)} layers of {most}", f"give 1 to {most}")

    @property
    def experts(self) -> int:
        return self._traces[0].experts

    def cases(self, protocol: Protocol, mixture: bool = True) -> tuple[Case, ...]:
        """The cases of a protocol: one a domain, or one for all under `joint`.

        Args:
            mixture: the windows solved on have their mixture beside them, as in `placement solve`.
        """
        if protocol == "joint":
            firsts, seconds = [a for a, _ in self._halves], [b for _, b in self._halves]
            return (self._case("joint", firsts, 1, seconds, mixture),)
        out = []
        for i, name in enumerate(DOMAINS):
            if protocol == "in-domain":
                first, second = self._halves[i]
                out.append(self._case(name, [first], WINDOWS, [second], mixture))
            else:
                others = [trace for j, trace in enumerate(self._traces) if j != i]
                out.append(self._case(name, others, -(-WINDOWS // len(others)), [self._traces[i]], mixture))
        return tuple(out)

    def folded(self, folds: int) -> tuple[Case, ...]:
        """Every sixth (FOLDS) of each domain's sequences as judge, solved on the `folds` next ones, 1 to FOLDS - 1.

        Sequences are dealt in turn, as neighbours may be of one subject.
        """
        out = []
        for judge in range(FOLDS):
            for name, trace in zip(DOMAINS, self._traces, strict=True):
                solved = _dealt(trace, [judge + 1 + i for i in range(folds)])
                windows = min(WINDOWS, len(solved.seq_lens))
                case = f"{name}, {folds} parts, judge {judge}"
                out.append(self._case(case, [solved], windows, [_dealt(trace, [judge])], True))
        return tuple(out)

    def folded_tokens(self, folds: int) -> float:
        """Mean tokens of a domain in `folds` parts."""
        return folds / FOLDS * float(np.mean([trace.tokens for trace in self._traces]))

    def _case(self, name: str, train: list[Trace], windows: int, test: list[Trace], mixture: bool) -> Case:
        solved, judged = layer_statistics(train, windows), layer_statistics(test)
        chosen = [solved[i] for i in self.layers]
        return Case(
            name,
            tuple(with_mixture(layer) for layer in chosen) if mixture else tuple(chosen),
            tuple(judged[i] for i in self.layers),
        )


def _dealt(trace: Trace, parts: Sequence[int]) -> Trace:
    """Of sequences dealt in turn to FOLDS parts, those of some (modulo FOLDS)."""
    part = np.arange(len(trace.seq_lens)) % FOLDS
    return take_sequences(trace, np.flatnonzero(np.isin(part, np.array(parts) % FOLDS)))


@lru_cache
def rates(phase: Phase) -> LayerRates:
    """Prices of H100 with one 400 Gb/s InfiniBand port per GPU, at TOKENS tokens per GPU."""
    from solvers.split.enumerate import enumerate_splits
    from specs.loading import load_scenario

    scenario = load_scenario(SCENARIO)
    return layer_rates(scenario, enumerate_splits(scenario).best, phase, TOKENS[phase])


def problems(statistics: Sequence[LayerData], setting: Setting, experts: int) -> tuple[LayerProblem, ...]:
    """One problem a layer.

    Raises:
        InputError: the slots do not divide over the GPUs.
    """
    gpus = setting.nodes * GPUS_PER_NODE
    slots = round(experts * (1 + setting.extra))
    if slots % gpus:
        raise InputError("setting", "extra", f"{slots} slots on {gpus} GPUs", "choose a share that divides")
    return tuple(
        LayerProblem(
            layer,
            LayerHardware(Topology(gpus, GPUS_PER_NODE), slots // gpus, rates(setting.phase)),
            LayerRules(setting.dispatch),
            LayerObjective(setting.objective, setting.tail),
        )
        for layer in statistics
    )


def judged(problem: LayerProblem, layer: LayerData) -> LayerProblem:
    """The same frame on other routing."""
    return replace(problem, data=replace(layer, drift=problem.data.drift))


def spaced(layers: int, of: int) -> tuple[int, ...]:
    """`layers` positions spread evenly over `of`."""
    return tuple(int(i) for i in np.unique(np.linspace(0, of - 1, min(layers, of)).round()))
