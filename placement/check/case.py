"""A plan with its routing, as the checks of a plan need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from placement.check.certificate import Proof, Witnesses, proof_of
from placement.cost.assess import Assessor
from placement.cost.own_batch import BatchFit
from placement.cost.step.role_figures import at_batch, predict_role
from placement.cost.step.throughput import MoeTimes, Prediction
from placement.errors import ParameterError
from placement.problem.arrays import IntArray
from placement.problem.data import LayerData
from placement.problem.layer import LayerProblem
from placement.problem.split import Split
from placement.records.plan import InputRecord, Plan
from placement.records.role import RolePlan
from placement.routing.holdout import Routing, Source, read_sources, routing_of, synthetic_source
from placement.routing.trace import LoadCounts, Trace
from specs.scenario import Scenario

#: Relative difference that two computations of one figure may have; an objective this near its bound is optimal.
TOLERANCE = 1e-6


class MissingError(Exception):
    """A check that can't be made; the message says why."""


@dataclass(frozen=True)
class PlanCase:
    """A role of a plan with its routing, and what several checks need of both.

    Attributes:
        index: Of the role. why_not: Why nothing can be derived, or "". witnesses: What proves the bounds.
    """

    plan: Plan
    index: int
    sources: tuple[Source, ...]
    why_not: str
    witnesses: Witnesses = field(default_factory=Witnesses)

    @property
    def role(self) -> RolePlan:
        return self.plan.roles[self.index]

    @cached_property
    def scenario(self) -> Scenario:
        return self.plan.scenario_of(self.role)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """[layers] slots of a GPU in each."""
        return self.role.widths(self.scenario)

    def capacity(self, i: int) -> IntArray:
        """[gpus] usable slots in the i-th MoE layer."""
        lost = np.isin(np.arange(self.role.topology.gpus), self.role.failed_gpus)
        return np.where(lost, 0, self.widths[i])

    @cached_property
    def split(self) -> Split:
        return self.role.split.split()

    @property
    def posed(self) -> Split:
        """The split at the batch that experts were placed for."""
        batch = self.role.posed_batch
        return self.split if batch == self.split.batch else at_batch(self.split, batch)

    @property
    def least_loaded(self) -> Prediction:
        """Of the split with balanced routing, one sequence an attention rank, and prompts that meet no other."""
        role = self.role
        return predict_role(self.scenario, role.role, at_batch(self.split, 1), cp=role.cp, requests_per_s=0.0)

    def predict(self, times: MoeTimes) -> Prediction:
        """Of the role, with MoE layers of these times."""
        role = self.role
        return predict_role(self.scenario, role.role, self.split, times, cp=role.cp, requests_per_s=role.requests_per_s)

    @cached_property
    def routing(self) -> Routing:
        if self.why_not:
            raise MissingError(self.why_not)
        record = self.plan.provenance.routing
        return routing_of(
            self.sources, self.scenario.model.moe.computed_top_k, record.solved_on != "all",
            record.windows_per_trace, record.judged_windows_per_trace, self.plan.tail >= 1.0,
        )  # fmt: skip

    @cached_property
    def problems(self) -> tuple[LayerProblem, ...]:
        """Those that were solved, one an MoE layer."""
        assessor = self._assessor(self.posed, self.routing.solved_on, self.plan.tail)
        return assessor.problems[self.role.phase]

    @cached_property
    def proofs(self) -> tuple[Proof, ...]:
        """What proves the bound of each layer, if anything does."""
        pairs = enumerate(zip(self.role.layers, self.problems, strict=True))
        return tuple(proof_of(layer, problem, self.witnesses, self.index, i) for i, (layer, problem) in pairs)

    @cached_property
    def judge(self) -> Assessor:
        return self.assessor_on(self.routing.judged_on)

    def assessor_on(self, statistics: Sequence[LayerData]) -> Assessor:
        """Judges placements of the role on a routing."""
        return self._assessor(self.split, statistics, 1.0)

    @cached_property
    def fits(self) -> tuple[BatchFit, BatchFit]:
        """Figures at any batch, on the routing solved on and on the one that judges."""
        role = self.role
        solved, judged = (
            BatchFit(self.scenario, role.role, self.split, on, cp=role.cp, failed_gpus=role.failed_gpus)
            for on in (self.routing.solved_on, self.routing.judged_on)
        )
        return solved, judged

    def _assessor(self, split: Split, statistics: Sequence[LayerData], tail: float) -> Assessor:
        plan, role = self.plan, self.role
        return Assessor(
            self.scenario, split, role.phase, statistics, plan.objective, tail, role.failed_gpus, role.role, role.cp,
            role.requests_per_s,
        )  # fmt: skip


def sources_of(plan: Plan, traces: Sequence[Trace | LoadCounts | str | Path]) -> tuple[tuple[Source, ...], str]:
    """The routing that the plan was made from, under the names that it has there; if it is not at hand, why not."""
    scenario, inputs = plan.scenario.spec, plan.provenance.inputs
    if inputs and not traces:
        return (), f"needs the recorded routing ({', '.join(i.name for i in inputs)})"
    if not inputs and not traces:
        return (synthetic_source(scenario, plan.provenance.seed),), ""
    if not inputs:
        raise ParameterError("traces", "the plan was solved on synthetic routing", "leave `traces` out")
    return _given(inputs, read_sources(scenario.model, traces)), ""


def _given(inputs: Sequence[InputRecord], sources: Sequence[Source]) -> tuple[Source, ...]:
    """The source of each input, by its content and under its name there: files may have been renamed."""
    mend = f"give what it was solved on: {', '.join(wanted.name for wanted in inputs)}"
    if len(sources) != len(inputs):
        problem = f"{len(sources)} files, but the plan was solved on {len(inputs)}"
        raise ParameterError("traces", problem, mend)
    left, found = list(sources), []
    for wanted in inputs:
        same = [each for each in left if each.record is not None and each.record.sha256 == wanted.sha256]
        if not same:
            raise ParameterError("traces", f"{wanted.name} is not among the files (SHA-256 differs)", mend)
        # Arrays of one file have one digest.
        one = next((each for each in same if each.routing.name == wanted.name), same[0])
        left = [each for each in left if each is not one]
        record = one.record and one.record.model_copy(update={"name": wanted.name})
        found.append(Source(replace(one.routing, name=wanted.name), record))
    return tuple(found)
