"""Plans one role: fits its batch, places its experts, and judges every strategy at one batch and at its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from placement.cost.assess import Assessor
from placement.cost.memory.hbm import memory_of
from placement.cost.own_batch import BatchFit, Operation
from placement.cost.pose import layer_problems
from placement.cost.step.role_figures import at_batch, moe_stake
from placement.cost.step.serving_mix import planned_rates, planned_rule
from placement.planning.by_layer import shared_by_layer
from placement.planning.case import Case
from placement.planning.choose import ChosenRole
from placement.planning.guard import Guarded, guarded, left_out
from placement.planning.judgement import certificate_of, judge, layer_record, witness_of
from placement.planning.strategies import Answers, place, place_baselines, placement_of_answers
from placement.planning.worth import Carried, carried, enough, handed
from placement.problem.layer import LayerProblem, Objective
from placement.problem.split import Split
from placement.records.convert import memory_record, served_record, stage_records, topology_record
from placement.records.layout import EngineRecord, SplitRecord
from placement.records.role import RoleName, RolePlan
from placement.records.witness import RoleWitness
from placement.routing.holdout import Routing
from solvers.registry import BALANCER
from solvers.result import Termination
from solvers.stop import Stop
from specs.scenario import Scenario
from specs.workload import PlannedPhase

_ENDED_EARLY = (Termination.TIME, Termination.INTERRUPTED)
#: Share of the time left for placing experts that they have at most: the judgement takes what it needs.
PLACING = 0.9
#: A layer this far from its bound is searched, however little it is worth.
MOST_GAP = 0.2


@dataclass(frozen=True)
class PlannedRole:
    """A role of a plan.

    Attributes:
        late: Layers whose search ended early. unfitted: Strategies without an own batch.
        guarded: Layers that are the balancer's so that no window loses. lost: See `left_out`.
        witness: What proves its bounds.
        carried: What its instances carry on the routing solved on.
    """

    plan: RolePlan
    late: int
    unfitted: int
    guarded: int
    lost: dict[str, float]
    witness: RoleWitness
    carried: Carried


def plan_role(
    case: Case,
    chosen: ChosenRole,
    routing: Routing,
    objective: Objective,
    stop: Stop,
    compiled: Callable[[Stop], None],
    others: Sequence[Carried] = (),
) -> PlannedRole:
    """The plan of one role; `compiled` waits until kernels are, `others` are the plan's other roles."""
    kind: RoleName = chosen.role if case.scenario.workload.kind == "serving" else "training"
    scenario, phase = chosen.scenario, _phase(case, chosen)
    posed, fit = chosen.split, None
    if kind != "training":
        fit = BatchFit(scenario, kind, chosen.split, routing.solved_on, cp=chosen.cp)
        posed = at_batch(posed, _posed_batch(case, chosen, routing, fit, stop))
    stake = moe_stake(scenario, kind, posed, chosen.cp)
    near = _near_enough(case, stake, objective, stop)

    def problems_of(split: Split) -> tuple[LayerProblem, ...]:
        return layer_problems(scenario, split, phase, routing.solved_on, objective, tail=case.tail)

    if case.redundant_by_layer:
        placed = _by_layer(case, posed, problems_of, scenario, near, compiled)
        posed, problems, answers = placed.split, placed.problems, placed.answers
        stake = moe_stake(scenario, kind, posed, chosen.cp)
        fit = fit and BatchFit(scenario, kind, posed, routing.solved_on, cp=chosen.cp)
    else:
        problems = problems_of(posed)
        ample = None if fit is None or objective != "time" else partial(_ample, case, chosen, fit, posed.batch, others)
        answers = _place(case, problems, near, compiled, ample)
    kept, lost = Guarded(answers[case.own], 0), dict[str, float]()
    if case.strategy == "auto":
        kept = guarded(problems, answers[case.own], answers[BALANCER])
        answers[case.own] = kept.answers
        lost = left_out(problems, case.strategy, routing, near, case.effort.seed, case.effort.threads)
    placements = {name: placement_of_answers(layers) for name, layers in answers.items()}
    own, operations, split = answers[case.own], dict[str, Operation](), posed
    if fit is not None:
        case.report.stage("fitting batches", len(placements))
        for name, placement in placements.items():
            # What others could hold is told where there is time for it.
            if name == case.own or not stop.expired:
                operations[name] = fit.fit(placement, posed.batch, handed(chosen, others, name))
            case.report.advance()
        split = at_batch(posed, operations[case.own].batch)
    operation = operations.get(case.own)
    assessor = Assessor(
        scenario, split, phase, routing.judged_on, objective, role=kind, cp=chosen.cp,
        requests_per_s=operation.requests_per_s if operation else None,
    )  # fmt: skip
    judged = None if fit is None else BatchFit(scenario, kind, split, routing.judged_on, cp=chosen.cp)
    judgement = judge(assessor, placements, case.own, case.report, judged, operations)
    rates = planned_rates(scenario, posed, phase)
    plan = RolePlan(
        role=kind,
        cluster=chosen.cluster,
        phase=phase,
        dispatch=scenario.dispatch_in_use,
        message_rule=planned_rule(scenario, posed, phase, rates),
        messages=EngineRecord.of(scenario, split, kind).messages,
        split=SplitRecord.of(split),
        cp=chosen.cp,
        posed_batch=posed.batch,
        requests_per_s=operation.requests_per_s if operation else None,
        binds=operation.binds if operation else (),
        largest_batch=operation.largest if operation else None,
        stages=stage_records(scenario, split),
        topology=topology_record(scenario, split),
        slots_per_gpu=split.slots_per_gpu,
        tokens_per_gpu=rates.tokens_per_gpu,
        layers=tuple(layer_record(index, one) for index, one in zip(scenario.model.moe_layers, own, strict=True)),
        memory=memory_record(memory_of(scenario, split)),
        predicted=judgement.predicted,
        stake=stake,
        strategies=judgement.strategies,
        certificate=certificate_of(own, objective),
        served=served_record(assessor, placements[case.own]),
    )
    late = sum(answer.termination in _ENDED_EARLY for answer in own)
    unfitted = len(placements) - len(operations) if fit else 0
    carries = Carried(chosen)
    if fit is not None and operation is not None:
        gap = plan.certificate.gap if objective == "time" else None
        most = replace(operation, batch=operation.largest or operation.batch)
        given = {name: (each.requests_per_s or 0.0) * split.instances for name, each in operations.items()}
        carries = carried(chosen, fit.requests_per_s(placements[case.own], most), gap, stake)
        carries = replace(carries, given=given)
    return PlannedRole(plan, late, unfitted, kept.replaced, lost, witness_of(plan, own), carries)


@dataclass(frozen=True)
class _Placed:
    """Answers of each strategy to the layers under a split, by the name of its row."""

    split: Split
    problems: tuple[LayerProblem, ...]
    answers: dict[str, Answers]

    def total(self, name: str) -> float:
        """The objective of all layers under a strategy."""
        return sum(answer.score.objective for answer in self.answers[name])


def _by_layer(
    case: Case,
    split: Split,
    problems_of: Callable[[Split], tuple[LayerProblem, ...]],
    scenario: Scenario,
    stop: Stop,
    compiled: Callable[[Stop], None],
) -> _Placed:
    """Layers with redundant experts of their own each, or even ones where those take no longer once they are solved.

    What slots are worth to a layer is what the load balancer makes of them.
    """
    even = replace(split, layer_redundant=None)
    problems = problems_of(even)
    half = stop.share_of_time(0.5)
    alike = _Placed(even, problems, _place(case, problems, half, compiled))

    def costs(one: Split) -> list[float]:
        answers = place(problems_of(one), BALANCER, half, case.effort, case.report, certify=False)
        return [answer.score.objective for answer in answers]

    shared = shared_by_layer(scenario, even, costs)
    if shared.layer_redundant is None:
        return alike
    problems = problems_of(shared)
    own = _Placed(shared, problems, _place(case, problems, stop, compiled))
    return own if own.total(case.own) < alike.total(case.own) else alike


def _phase(case: Case, chosen: ChosenRole) -> PlannedPhase:
    """What the role's placement is priced for."""
    return chosen.role if chosen.role in ("prefill", "decode") else case.phase


def _posed_batch(case: Case, chosen: ChosenRole, routing: Routing, fit: BatchFit, stop: Stop) -> int:
    """The batch that experts are placed for: the load balancer's own."""
    scenario, batch = chosen.scenario, chosen.split.batch
    if chosen.role == "prefill" or chosen.fitted or scenario.pins.batch is not None:
        return batch
    phase = _phase(case, chosen)
    problems = layer_problems(scenario, chosen.split, phase, routing.solved_on)
    balancer = place(problems, BALANCER, stop, case.effort, case.report, certify=False)
    return fit.fit(placement_of_answers(balancer), batch).batch


def _near_enough(case: Case, stake: float, objective: Objective, stop: Stop) -> Stop:
    """The stop whose gap is one of a layer's time: as much as the budget's gap of tokens/s is worth."""
    if objective != "time" or case.effort.budget.gap <= 0:
        return stop
    return replace(stop, gap=min(MOST_GAP, case.effort.budget.gap / max(stake, 1e-9)))


def _ample(
    case: Case, chosen: ChosenRole, fit: BatchFit, batch: int, others: Sequence[Carried], answers: Answers
) -> bool:
    """Whether answers carry all that the rest of the plan does, to within the budget's gap."""
    placement = placement_of_answers(answers)
    rate = fit.requests_per_s(placement, fit.fit(placement, batch))
    return enough(Carried(chosen, rate), others, case.effort.budget.gap)


def _place(
    case: Case,
    problems: Sequence[LayerProblem],
    stop: Stop,
    compiled: Callable[[Stop], None],
    ample: Callable[[Answers], bool] | None = None,
) -> dict[str, Answers]:
    """Each baseline's answers and the plan's own, by the name of their row. The baselines come first, and are quick.

    Args:
        ample: Whether the plan has nothing to gain over answers; a gap of 0 searches all the same.
    """
    placing = stop.share_of_time(PLACING)
    answers = place_baselines(problems, placing, case.effort, case.report, case.own if case.certify else "")
    if case.own in answers:
        return answers

    def own(until: Stop) -> Answers:
        compiled(until)
        return place(problems, case.strategy, until, case.effort, case.report, case.balance_floor, case.certify)

    if placing.gap > 0 and ample is not None and ample(answers[BALANCER]):
        quick = own(replace(placing, gap=math.inf))
        # The heuristics taken need not be as quick as the load balancer, and a batch may miss its limit by little.
        if ample(quick):
            return answers | {case.own: quick}
    return answers | {case.own: own(placing)}
