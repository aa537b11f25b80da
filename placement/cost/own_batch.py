"""The largest batch that meets TTFT and TPOT with a placement and that the other half fills, and what binds there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.figures import Placement, moe_times
from placement.cost.layer.score import Served, layer_seconds, served
from placement.cost.memory.hbm import MemoryModel
from placement.cost.pose import layer_problems
from placement.cost.step.role_figures import at_batch, predict_role
from placement.cost.step.roles import Handed, prefill_point
from placement.cost.step.throughput import MoeTimes, Prediction, ServingModel
from placement.problem.data import LayerData
from placement.problem.engine_rules import most_sequences, role_phases
from placement.problem.layer import LayerProblem
from placement.problem.limits import Limit
from placement.problem.split import Split
from specs.scenario import Scenario
from specs.workload import Phase

#: A TTFT that nobody asks for.
_PATIENCE_S = 1e9
#: A decode half carries this share more than it is handed, if it can: other routing is a little slower.
RESERVE = 0.01


@dataclass(frozen=True)
class Operation:
    """How a role's instances are run with a placement.

    Attributes:
        batch: Sequences of an attention rank. requests_per_s: Of an instance that only prefills, else None.
        binds: What one more would break; at a batch of 1, what that breaks.
        largest: The largest batch within all limits, where a smaller one carries what the other half hands over.
    """

    batch: int
    requests_per_s: float | None
    binds: tuple[Limit, ...]
    largest: int | None = None


@dataclass(frozen=True)
class Operated:
    """What an operation yields on a routing."""

    times: MoeTimes
    prediction: Prediction


class BatchFit:
    """Figures of one role's split at any batch, on one routing; layer problems are kept by batch."""

    def __init__(
        self,
        scenario: Scenario,
        role: str,
        split: Split,
        statistics: Sequence[LayerData],
        *,
        cp: int = 1,
        failed_gpus: Sequence[int] = (),
    ) -> None:
        """See placement.cost.assess.Assessor; the workload is serving."""
        self.scenario, self.role, self.split, self.cp = scenario, role, split, cp
        self.statistics, self.failed_gpus = statistics, failed_gpus
        self.phases = role_phases(scenario, role)
        self._problems: dict[tuple[Phase, int], tuple[LayerProblem, ...]] = {}
        #: By the placement's identity, which is held with it.
        self._served: dict[int, tuple[Placement, tuple[Served, ...]]] = {}
        self._known: dict[tuple[int, Phase, int], float] = {}
        self._memory = MemoryModel(scenario, split, efficiency_of(scenario))
        self._engine = most_sequences(scenario, split.tp, split.pp)
        self._most = int(efficiency_of(scenario).max_sequences_per_rank.value)

    def times(self, placement: Placement, batch: int) -> MoeTimes:
        """Mean MoE-layer seconds by phase; prefill passes do not depend on the batch."""
        return moe_times({phase: self._seconds(placement, phase, batch) for phase in self.phases})

    def _seconds(self, placement: Placement, phase: Phase, batch: int) -> float:
        at = 0 if phase == "prefill" else batch
        if (phase, at) not in self._problems:
            self._problems[(phase, at)] = layer_problems(
                self.scenario, at_batch(self.split, batch), phase, self.statistics, failed_gpus=self.failed_gpus
            )
        key, problems = (id(placement), phase, at), self._problems[(phase, at)]
        if key not in self._known:
            each = self._layers(placement, problems)
            self._known[key] = float(np.mean([layer_seconds(*one) for one in zip(problems, each, strict=True)]))
        return self._known[key]

    def _layers(self, placement: Placement, problems: Sequence[LayerProblem]) -> tuple[Served, ...]:
        """What each layer's placement makes of the routing: problems of all phases and batches differ in rates."""
        if id(placement) not in self._served:
            layers = zip(problems, placement.slots, placement.fractions, strict=True)
            self._served[id(placement)] = (placement, tuple(served(*layer) for layer in layers))
        return self._served[id(placement)][1]

    def operated(self, placement: Placement, operation: Operation) -> Operated:
        """What an operation yields with a placement."""
        times = self.times(placement, operation.batch)
        made = predict_role(
            self.scenario, self.role, at_batch(self.split, operation.batch), times, cp=self.cp,
            requests_per_s=operation.requests_per_s,
        )  # fmt: skip
        return Operated(times, made)

    def broken(self, placement: Placement, batch: int) -> tuple[Limit, ...]:
        """The limits that a batch exceeds."""
        over: list[Limit] = []
        if self._memory.total_bytes(batch) > self._memory.capacity_bytes:
            over.append("HBM")
        if batch > min(self._most, self._engine or self._most):
            over.append("engine")
        if over:
            return tuple(over)
        workload = self.scenario.workload
        made = self.operated(placement, Operation(batch, None, ())).prediction
        if workload.kind == "serving":
            if made.ttft_s is not None and made.ttft_s > workload.ttft_ms * 1e-3:
                over.append("TTFT")
            if made.tpot_s is not None and made.tpot_s > workload.tpot_ms * 1e-3:
                over.append("TPOT")
        return tuple(over)

    def fit(self, placement: Placement, start: int, handed: Handed | None = None) -> Operation:
        """The largest batch within all limits, searched from `start`; of a prefill instance its most requests/s.

        Args:
            handed: What all instances of a decode role are given. Where the largest batch carries more, it never
                fills: the answer is the smallest that carries this, and RESERVE beyond.
        """
        if self.role == "prefill":
            return self._prefill(placement, start)
        if self.scenario.pins.batch is not None:
            return Operation(start, None, ("pin",))
        largest = self._largest(placement, start)
        return largest if handed is None else self._filled(placement, largest, handed)

    def requests_per_s(self, placement: Placement, operation: Operation) -> float:
        """Requests of all instances; 0 in training."""
        workload = self.scenario.workload
        made = self.operated(placement, operation).prediction.tokens_per_s
        return made / workload.osl if workload.kind == "serving" else 0.0

    def _filled(self, placement: Placement, largest: Operation, handed: Handed) -> Operation:
        """The smallest batch that carries what is handed over; the largest one where none below it does."""
        wanted = handed.requests_per_s * (1 + RESERVE)

        def carries(batch: int) -> bool:
            return self.requests_per_s(placement, Operation(batch, None, ())) >= wanted

        low, high = 0, largest.batch
        if not carries(high):
            return largest
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if carries(middle) else (middle, high)
        return largest if high == largest.batch else Operation(high, None, (handed.by,), largest.batch)

    def _largest(self, placement: Placement, start: int) -> Operation:
        """The largest batch within all limits. Times never fall as it grows: a limit once exceeded stays so."""
        low, high, step = 0, 0, 1
        binds: tuple[Limit, ...] = ()
        at = start
        while not high:
            over = self.broken(placement, at)
            if over:
                high, binds = at, over
            else:
                low, at, step = at, at + step, 2 * step
        step = 1
        while not low and high > 1:
            at, step = max(1, high - step), 2 * step
            over = self.broken(placement, at)
            if over:
                high, binds = at, over
            else:
                low = at
        while low and high - low > 1:
            middle = (low + high) // 2
            over = self.broken(placement, middle)
            if over:
                high, binds = middle, over
            else:
                low = middle
        return Operation(max(1, low), None, binds)

    def _prefill(self, placement: Placement, batch: int) -> Operation:
        workload = self.scenario.workload
        if workload.kind != "serving":
            raise ValueError("a training scenario has no prefill role")
        model = ServingModel(self.scenario, workload, self.split, self.times(placement, batch))
        point = prefill_point(model, workload.ttft_ms * 1e-3, self.cp)
        if point is None:
            return Operation(batch, 0.0, ("TTFT",))
        free = prefill_point(model, _PATIENCE_S, self.cp)
        full = free is not None and point.requests_per_s >= free.requests_per_s * (1 - 1e-12)
        return Operation(batch, point.requests_per_s, ("arrivals",) if full else ("TTFT",))
