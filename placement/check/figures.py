"""Checks of a role's figures: objectives, bounds, predictions and limits are derived again."""

from __future__ import annotations

from placement.check.case import TOLERANCE, MissingError, PlanCase
from placement.check.failure import FailureError, require, same
from placement.check.findings import by_source
from placement.cost.layer.score import score_layer
from placement.cost.step.roles import Handed, InstancePoint, RoleRate, handed_over, kv_bytes_per_request
from placement.cost.step.throughput import MoeTimes, Prediction
from placement.records.convert import (
    operation_record,
    own_placement,
    placement_of,
    predicted_record,
    served_record,
    strategy_record,
)
from placement.records.plan import FiguresRecord, Plan
from placement.records.role import CERTIFICATE_UNITS, PredictedRecord, RolePlan


def check_limits(case: PlanCase) -> str:
    """Some batch meets the objectives with balanced routing; what the routing that judges misses is told.

    That the plan's own batch meets them on the routing solved on is a check of its own.
    """
    workload, predicted = case.scenario.workload, case.role.predicted
    if workload.kind != "serving":
        return "training has none"
    least, missed = predicted_record(case.least_loaded), []
    for name, judged, figure, limit in (
        ("TTFT", predicted.ttft_ms, least.ttft_ms, workload.ttft_ms),
        ("TPOT", predicted.tpot_ms, least.tpot_ms, workload.tpot_ms),
    ):
        if judged is None and figure is None and case.role.role in ("prefill", "decode"):
            continue
        if judged is None or figure is None:
            raise FailureError(f"no {name} is predicted")
        require(
            figure.value <= limit * (1 + TOLERANCE),
            f"{name} is {figure.value:g} ms with balanced routing at a batch of 1, over {limit:g} ms",
        )
        if judged.value > limit:
            missed.append(f"; MISSED on the routing that judges: {name} {judged.value:g} ms")
    return f"TTFT within {workload.ttft_ms:g} ms, TPOT within {workload.tpot_ms:g} ms{''.join(missed)}"


def _gap(objective: float, bound: float) -> float | None:
    return objective / bound - 1.0 if bound > 0 else None


def check_certificate(case: PlanCase) -> str:
    """Arithmetic: gaps, statuses and means follow from the layers' objectives and bounds."""
    layers, record = case.role.layers, case.role.certificate
    name, unit = CERTIFICATE_UNITS[case.plan.objective]
    for i, layer in enumerate(layers):
        objective, bound = layer.objective, layer.bound
        require(bound <= objective, f"layer {layer.layer}: bound {bound:g} is above objective {objective:g}")
        same(f"layers[{i}].gap", layer.gap, _gap(objective, bound))
        closed = objective <= bound * (1 + TOLERANCE)
        same(f"layers[{i}].status", layer.status, "optimal" if closed else "feasible")
    objective, bound = (
        sum(getattr(layer, value) for layer in layers) / len(layers) * unit for value in ("objective", "bound")
    )
    same("certificate.objective", record.objective, objective)
    same("certificate.bound", record.bound, bound)
    same("certificate.gap", record.gap, _gap(record.objective, record.bound))
    same("certificate.unit", record.unit, name)
    optimal = all(layer.status == "optimal" for layer in layers)
    same("certificate.status", record.status, "optimal" if optimal else "feasible")
    gap = "no bound" if record.gap is None else f"gap {record.gap:.2%}"
    return f"bound <= objective in {len(layers)} layers; {gap}, as these give it"


def _phases_told(role: RolePlan) -> bool:
    """Whether rows hold the MoE times of each phase; plans of before these were told hold none."""
    return role.phase == "train" or any((row.decode_us, row.prefill_us) != (None, None) for row in role.strategies)


def _derived(role: RolePlan, made: Prediction) -> PredictedRecord:
    """A prediction as the role's plan holds it: without intervals where the plan is older than these."""
    record = predicted_record(made)
    if role.predicted.tokens_per_s.interval is not None:
        return record
    figures = {name: getattr(record, name) for name in FiguresRecord.model_fields}
    bare = {name: figure and figure.model_copy(update={"interval": None}) for name, figure in figures.items()}
    return record.model_copy(update=bare)


def check_prediction(case: PlanCase) -> str:
    """What follows from the MoE times that the rows hold, whatever the routing."""
    role = case.role
    if not _phases_told(role):
        raise MissingError("the strategies hold no decode_us and prefill_us")

    def seconds(us: float | None) -> float | None:
        return None if us is None else us * 1e-6

    for i, row in enumerate(role.strategies):
        trained = row.moe_layer_us if role.phase == "train" else None
        times = MoeTimes(seconds(row.prefill_us), seconds(row.decode_us), seconds(trained))
        made = case.predict(times)
        same(f"strategies[{i}].tokens_per_s", row.tokens_per_s, made.tokens_per_s)
        if row.placements is None:
            same("predicted", role.predicted, _derived(role, made))
    return "tokens/s of every strategy and all predicted figures follow from their MoE-layer times"


def check_routing(case: PlanCase) -> str:
    record, routing = case.plan.provenance, case.routing
    same("provenance.routing", record.routing, routing.record)
    same("provenance.inputs", record.inputs, routing.inputs)
    return f"{routing.record.source}: parts, windows and tokens as told"


def check_objectives(case: PlanCase) -> str:
    """Each layer's objective on the routing it was solved on."""
    role, placement = case.role, own_placement(case.role)
    for i, layer in enumerate(role.layers):
        score = score_layer(case.problems[i], placement.slots[i], placement.fractions[i])
        same(f"layers[{i}].objective", layer.objective, score.objective)
    return f"{len(role.layers)} layers score as they say on the routing they were solved on"


def check_figures(case: PlanCase) -> str:
    """Every strategy's figures, and the plan's, on the routing that judges."""
    role = case.role
    for i, row in enumerate(role.strategies):
        placement = placement_of(role, row)
        assessment = case.judge.assess(placement)
        derived = strategy_record(row.name, assessment, None if row.placements is None else placement)
        derived = derived.model_copy(update={"at_own_batch": row.at_own_batch})
        if not _phases_told(role):
            derived = derived.model_copy(update={"decode_us": None, "prefill_us": None})
        same(f"strategies[{i}]", row, derived)
        if row.placements is None:
            same("predicted", role.predicted, _derived(role, assessment.prediction))
    same("served", role.served, served_record(case.judge, own_placement(role)))
    return f"{len(role.strategies)} strategies and the predicted figures come out the same"


def check_batches(case: PlanCase) -> str:
    """Every strategy's own batch is the largest within the limits on the routing solved on, or all that the other half
    fills; judged on the other."""
    role = case.role
    if role.role == "training":
        require(all(row.at_own_batch is None for row in role.strategies) and not role.binds, "training has no limits")
        return "training has none"
    if all(row.at_own_batch is None for row in role.strategies):
        raise MissingError("the strategies hold no batches of their own")
    fit, judge = case.fits
    for i, row in enumerate(role.strategies):
        placement, told = placement_of(role, row), row.at_own_batch
        if told is None and row.placements is not None and case.plan.provenance.cut_short:
            continue
        if told is None:
            raise FailureError(f"strategies[{i}] has no batch of its own")
        require(role.role != "prefill" or told.batch == role.split.batch, f"strategies[{i}] prefills another batch")
        made = fit.fit(placement, told.batch, _handed(case, row.name))
        operated = judge.operated(placement, made)
        derived = operation_record(operated.prediction, made.batch, operated.times, made.requests_per_s)
        same(f"strategies[{i}].at_own_batch", told, derived)
        if row.placements is None:
            same("split.batch", role.split.batch, made.batch)
            same("requests_per_s", role.requests_per_s, made.requests_per_s)
            same("binds", role.binds, made.binds)
            same("largest_batch", role.largest_batch, made.largest)
    filled = "" if role.largest_batch is None else " that the other half fills"
    return f"{len(role.strategies)} strategies, each at the largest batch within the limits{filled}"


def _handed(case: PlanCase, strategy: str) -> Handed | None:
    """What the plan's roles that prefill hand to the only one that decodes, as their own checks found it."""
    plan, given = case.plan, list[RoleRate]()
    if case.role.role != "decode" or sum(role.role == "decode" for role in plan.roles) > 1:
        return None
    for role in plan.roles:
        row = role.strategy(strategy)
        if role.role == "prefill":
            if row is None or row.at_own_batch is None or not row.at_own_batch.requests_per_s:
                return None
            given.append(_rate(plan, role, row.at_own_batch.requests_per_s))
    if not given:
        return None
    return handed_over(given, _rate(plan, case.role, 0.0), kv_bytes_per_request(case.scenario))


def _rate(plan: Plan, role: RolePlan, requests_per_s: float) -> RoleRate:
    """A role whose instances are given, or serve, so many requests/s each."""
    count, nic = role.split.instances, plan.scenario_of(role).cluster.slow.bytes_per_s
    return RoleRate(
        "prefill" if role.role == "prefill" else "decode",
        count,
        role.gpus // count,
        InstancePoint(requests_per_s, None, None),
        nic,
    )


def check_bounds(case: PlanCase) -> str:
    """What loads and prices prove: no objective is below it, and no bound that they should prove is above."""
    layers, proofs = case.role.layers, case.proofs
    for layer, proof in zip(layers, proofs, strict=True):
        require(proof.kind != "wrong", f"layer {layer.layer}: {proof.told}")
        require(
            layer.objective >= proof.least * (1 - TOLERANCE),
            f"layer {layer.layer}: objective {layer.objective:g} is below {proof.least:g}, which is proven",
        )
    known = [i for i, proof in enumerate(proofs) if proof.kind == "checked"]
    gap = _gap(sum(layer.objective for layer in layers), sum(proof.least for proof in proofs))
    told = "no gap is proven" if gap is None else f"a gap of {gap:.2%} is proven here"
    by = f": {by_source(layers, known)}" if known else ""
    return f"{len(known)} of {len(layers)} bounds hold, {told}{by}"
