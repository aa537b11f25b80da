"""The first split choice: every feasible (TP, EP, PP, DP, batch) under HBM and the objectives, priced by cost model.

A candidate's best batch is its largest feasible one (placement.cost.step.throughput.ServingModel says why).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.hbm import MemoryModel, MemoryReport, memory_of
from placement.cost.memory.local import LocalParameters
from placement.cost.step.pass_times import PassModel
from placement.cost.step.throughput import Prediction, ServingModel, ServingPoint, predict
from placement.cost.training.constants import load_training, pass_constants
from placement.cost.training.step import training_step
from placement.errors import InputError
from placement.problem.engine_rules import Layout, most_sequences, role_problem
from placement.problem.pieces import StageTable, stage_table
from placement.problem.schedule import piece_count
from placement.problem.split import Split
from solvers.split.build import first_split
from solvers.split.degrees import Degrees, list_candidates, sparse_first
from solvers.split.infeasible import hbm_error, slo_error
from solvers.split.largest import Tried, largest_batch
from solvers.split.pins import check_pins, refuse_empty
from solvers.split.train import fitting_mode, uniform
from solvers.stages.choose import best_cut, cut_fits
from solvers.stop import DEFAULT, Stop
from specs.scenario import Pins, Scenario
from specs.workload import ServingWorkload

#: Splits reported beside the best.
RUNNERS_UP = 5
#: Training candidates beside these that are given a cut of their own.
CUTS = 24
#: Share of CP-SAT's default work on one cut, where a rank has several pieces.
CUT_WORK = 0.1


@dataclass(frozen=True)
class Dropped:
    """Why candidates were dropped, and how many."""

    reason: str
    count: int


@dataclass(frozen=True)
class RunnerUp:
    """A split that came after the best, with its predicted figures."""

    split: Split
    prediction: Prediction


@dataclass(frozen=True)
class SplitChoice:
    """The chosen split.

    Attributes:
        best, prediction, memory: the split with its figures; MoE layers by the balanced estimate.
        considered: candidate degrees that were priced, and listed: how many there are. Some are not where time ends.
        dropped: candidates that fail a constraint, by reason, most first.
        runners_up: the next best, best first.
        idle_gpus: GPUs that the best leaves over.
        thinned: some candidates were left out to bound the search (only on very large clusters or models).
        cut_gain: rate of the best over that of its degrees cut evenly with one recompute mode for all layers, less 1;
            None where those exceed HBM.
    """

    best: Split
    prediction: Prediction
    memory: MemoryReport
    considered: int
    listed: int
    dropped: tuple[Dropped, ...]
    runners_up: tuple[RunnerUp, ...]
    idle_gpus: int
    thinned: bool
    cut_gain: float | None = 0.0


def enumerate_splits(
    scenario: Scenario,
    pins: Pins | None = None,
    redundant: int | Literal["auto"] | None = None,
    stop: Stop = DEFAULT,
) -> SplitChoice:
    """The feasible split of the highest predicted tokens/s over the whole cluster, idle GPUs counted.

    Args:
        pins: degrees that are fixed; None takes the scenario's.
        redundant: redundant experts; "auto" is the smallest count that divides; None takes the scenario's.
        stop: its deadline ends the search once a split is found; a sparse grid of candidates then comes first.

    Raises:
        InputError: a pin that no split can have.
        InfeasibleError: nothing fits HBM, or nothing meets the objectives; the message says what comes nearest.
    """
    fixed = scenario.pins if pins is None else pins
    extra = scenario.redundant if redundant is None else redundant
    count = None if extra == "auto" else int(extra)
    check_pins(scenario, fixed, count)
    return _Search(scenario, fixed, count, stop).run()


@dataclass(frozen=True)
class _Priced:
    """A candidate with its rate of the whole cluster."""

    split: Split
    tokens_per_s: float

    @property
    def key(self) -> tuple[float, int, int, int, int, int]:
        """Best first: the rate (to ten digits), then fewer GPUs, then smaller degrees."""
        split = self.split
        return (-float(f"{self.tokens_per_s:.9e}"), split.gpus, split.pp, split.tp, split.ep, split.dp)


class _Search:
    """One enumeration's state: the best candidates so far, and what was dropped."""

    def __init__(self, scenario: Scenario, pins: Pins, redundant: int | None, stop: Stop) -> None:
        self.scenario, self.pins, self.redundant, self.stop = scenario, pins, redundant, stop
        self.efficiency = efficiency = efficiency_of(scenario)
        training = scenario.workload.kind == "training"
        self.pass_efficiency = pass_constants(efficiency, load_training()) if training else efficiency
        self.stages: dict[int, StageTable] = {}
        self.layers: tuple[tuple[int, int, int], LocalParameters, PassModel] | None = None
        self.top: list[_Priced] = []
        self.dropped: Counter[str] = Counter()
        self.closest: tuple[float, Split] | None = None
        #: Candidates that exceed HBM cut evenly, or must recompute: a cut of their own may be worth more.
        self.uncut: list[Split] = []
        self.hopeful: list[_Priced] = []
        self.gains: dict[Split, float | None] = {}
        self.best_ttft_s = self.best_tpot_s = self.joint_tpot_s = math.inf

    def run(self) -> SplitChoice:
        candidates = list_candidates(self.scenario, self.pins, self.redundant)
        order, considered = candidates.degrees, 0
        if self.stop.deadline is not None:
            order = sparse_first(order)
        for degrees in order:
            if self.top and self.stop.expired:
                break
            self._try(degrees)
            considered += 1
        if not self.top:
            self._cut_what_is_over()
        if not self.top:
            self._refuse()
        self._cut_the_best()
        return self._choice(considered, len(order), candidates.thinned)

    def _try(self, degrees: Degrees) -> None:
        scenario, workload = self.scenario, self.scenario.workload
        split = first_split(scenario, degrees, self.pins.batch)
        if split is None:
            self.dropped["the global batch does not divide over the ranks"] += 1
            return
        if role_problem(scenario, Layout.of(scenario, split), "aggregated"):
            self.dropped["is not loaded by the engine"] += 1
            return
        if split.batch > (most_sequences(scenario, split.tp, split.pp) or split.batch):
            self.dropped["exceeds what the engine takes at once"] += 1
            return
        if degrees.pp not in self.stages:
            self.stages[degrees.pp] = stage_table(scenario.model, piece_count(workload, degrees.pp))
        stages = self.stages[degrees.pp]
        key = (degrees.tp, degrees.ep, degrees.dp)
        if self.layers is None or self.layers[0] != key:
            # Candidates of like degrees follow each other, deepest last: they share all that is counted per layer.
            local = LocalParameters.of(scenario.model, split)
            self.layers = (key, local, PassModel(scenario, split, self.pass_efficiency))
        _, local, like = self.layers
        if workload.kind == "training":
            split, over = fitting_mode(scenario, workload, split, self.efficiency, stages, local)
        else:
            memory = MemoryModel(scenario, split, self.efficiency, stages, local)
            over = memory.total_bytes(split.batch) - memory.capacity_bytes
        if over > 0:
            self.dropped["exceeds HBM"] += 1
            self.uncut.append(split)
            if self.closest is None or over < self.closest[0]:
                self.closest = (over, split)
        elif workload.kind == "training":
            passes = like.at_depth(split, stages)
            step, _, _ = training_step(scenario, workload, split, None, self.efficiency, passes, stages.shapes)
            tokens = workload.global_batch * workload.sequence
            self._keep(_Priced(split, tokens / step.step_s))
            if workload.recompute == "auto" and split != (free := uniform(scenario, split, "none")):
                step, _, _ = training_step(scenario, workload, free, None, self.efficiency, passes, stages.shapes)
                self.hopeful.append(_Priced(split, tokens / step.step_s))
        else:
            passes = like.at_depth(split, stages)
            self._try_batches(
                workload, split, memory, ServingModel(scenario, workload, split, None, self.efficiency, passes)
            )

    def _try_batches(self, workload: ServingWorkload, split: Split, memory: MemoryModel, model: ServingModel) -> None:
        ranks = split.dp * split.instances
        first = model.at(split.batch)
        if not self._meets(workload, first):
            return
        batch = split.batch
        if self.pins.batch is None:
            found = self._largest_batch(workload, ranks, memory, model, first)
            if found is None:
                return
            batch = found
        rate = model.at(batch).tokens_per_s * ranks
        self._keep(_Priced(replace(split, batch=batch, microbatches=min(split.pp, batch)), rate))

    def _largest_batch(
        self, workload: ServingWorkload, ranks: int, memory: MemoryModel, model: ServingModel, first: ServingPoint
    ) -> int | None:
        """The largest batch within HBM and the objectives, or None where it can't come among the best; `first` is a
        batch of 1."""
        worst = self.top[-1].tokens_per_s if len(self.top) > RUNNERS_UP else 0.0
        limits = workload.ttft_ms * 1e-3, workload.tpot_ms * 1e-3

        def tried(point: ServingPoint) -> Tried:
            return Tried.of(point.tokens_per_s * ranks, (point.ttft_s, limits[0]), (point.tpot_s, limits[1]))

        return largest_batch(lambda n: tried(model.at(n)), tried(first), memory, self._most_sequences(memory), worst)

    def _meets(self, workload: ServingWorkload, point: ServingPoint) -> bool:
        """Whether a candidate's smallest batch meets the objectives; counts what it misses."""
        late, slow = point.ttft_s > workload.ttft_ms * 1e-3, point.tpot_s > workload.tpot_ms * 1e-3
        self.best_ttft_s = min(self.best_ttft_s, point.ttft_s)
        self.best_tpot_s = min(self.best_tpot_s, point.tpot_s)
        if not late:
            self.joint_tpot_s = min(self.joint_tpot_s, point.tpot_s)
        if late or slow:
            self.dropped["misses " + ("TTFT and TPOT" if late and slow else "TTFT" if late else "TPOT")] += 1
        return not (late or slow)

    def _most_sequences(self, memory: MemoryModel) -> int:
        """An upper bound of the batch: what the scheduler takes, and what the KV cache alone leaves room for."""
        most = int(self.efficiency.max_sequences_per_rank.value)
        most = min(most, most_sequences(self.scenario, memory.split.tp, memory.split.pp) or most)
        room, each = memory.capacity_bytes - memory.fixed_bytes, memory.least_kv_bytes_per_sequence
        return max(1, min(most, int(room / each) if each > 0 else most))

    def _keep(self, priced: _Priced) -> None:
        self.top.append(priced)
        self.top.sort(key=lambda entry: entry.key)
        del self.top[RUNNERS_UP + 1 :]

    def _cut_the_best(self) -> None:
        """Gives the best candidates the best cut of their own, and up to CUTS of those that without recompute would be
        better."""
        top, self.top = self.top, []
        for priced in top:
            if priced.split.cut is None and not (self.top and self.stop.expired):
                self._keep_cut(priced.split)
            else:
                self._keep(priced)
        self.hopeful.sort(key=lambda entry: entry.key)
        done = {priced.split for priced in top}
        for priced in self.hopeful[:CUTS]:
            if priced.tokens_per_s <= self.top[0].tokens_per_s or self.stop.expired:
                break
            if priced.split not in done:
                self._keep_cut(priced.split)

    def _cut_what_is_over(self) -> None:
        """Looks for a cut where no candidate fits HBM when it is cut evenly."""
        for split in self.uncut:
            if self.top and self.stop.expired:
                break
            if split.pp > 1 and cut_fits(self.scenario, split, self.efficiency):
                self._keep_cut(split)

    def _keep_cut(self, split: Split) -> None:
        choice = best_cut(self.scenario, split, self.efficiency, Stop(CUT_WORK))
        if choice is not None:
            self.gains[choice.split] = choice.gain
            self._keep(_Priced(choice.split, choice.tokens_per_s))

    def _choice(self, considered: int, listed: int, thinned: bool) -> SplitChoice:
        scenario, best = self.scenario, self.top[0].split
        dropped = sorted(self.dropped.items(), key=lambda item: (-item[1], item[0]))
        return SplitChoice(
            best=best,
            prediction=predict(scenario, best, None, self.efficiency),
            memory=memory_of(scenario, best, self.efficiency),
            considered=considered,
            listed=listed,
            dropped=tuple(Dropped(reason, count) for reason, count in dropped),
            runners_up=tuple(
                RunnerUp(entry.split, predict(scenario, entry.split, None, self.efficiency)) for entry in self.top[1:]
            ),
            idle_gpus=scenario.cluster.gpus - best.gpus,
            thinned=thinned,
            cut_gain=self.gains.get(best),
        )

    def _refuse(self) -> None:
        scenario, workload = self.scenario, self.scenario.workload
        if self.best_ttft_s < math.inf and workload.kind == "serving":
            raise slo_error(
                scenario, workload.ttft_ms * 1e-3, workload.tpot_ms * 1e-3, self.best_ttft_s, self.best_tpot_s,
                self.joint_tpot_s,
            )  # fmt: skip
        if self.closest is None and workload.kind == "training" and self.dropped:
            raise InputError(
                scenario.name, "workload.global_batch",
                f"{workload.global_batch} sequences in microbatches of {workload.microbatch} divide over no split that "
                f"can run schedule {workload.schedule}",
                "change global_batch, the microbatch, the schedule or a pin",
            )  # fmt: skip
        if self.closest is None:
            refuse_empty(scenario, self.pins, self.redundant)
        else:
            split = self.closest[1]
            report = memory_of(scenario, split, self.efficiency)
            raise hbm_error(scenario, self.pins, self.redundant, split, report, self.efficiency)
