"""Checks of one role of a plan: what can be derived again is derived."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from pydantic import BaseModel

from placement.check.baselines import greedy, hash_order, in_turn, round_robin
from placement.check.case import TOLERANCE, MissingError, PlanCase
from placement.check.findings import RUNNING, SOLVED, by_source
from placement.check.layer import slot_faults
from placement.cost.layer.dispatch import planned_shares
from placement.cost.layer.scenario_rates import topology_of
from placement.cost.layer.score import score_layer
from placement.cost.memory.hbm import memory_of
from placement.cost.step.role_figures import moe_stake
from placement.cost.step.roles import context_degrees
from placement.cost.step.serving_mix import planned_rates, planned_rule
from placement.cost.step.throughput import MoeTimes
from placement.problem.arrays import EMPTY, FloatArray, IntArray
from placement.problem.engine_rules import Layout, load_problem, most_sequences
from placement.problem.split import make_split
from placement.records.convert import (
    memory_record,
    operation_record,
    own_placement,
    placement_of,
    predicted_record,
    served_record,
    stage_records,
    strategy_record,
    topology_record,
)
from placement.records.layout import EngineRecord, SplitRecord
from placement.records.role import CERTIFICATE_UNITS, RolePlan
from specs.documents import shown

#: Strategies that every plan is held against, in the order of their rows.
BASELINES = ("hash", "linear", "round_robin", "greedy", "eplb")


class FailureError(Exception):
    """A check that fails; the message says how."""


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FailureError(otherwise)


def same(path: str, found: object, derived: object) -> None:
    """Fails at the first place where records, or numbers by more than TOLERANCE, differ."""
    if isinstance(found, BaseModel) and isinstance(derived, BaseModel):
        for name in type(derived).model_fields:
            same(f"{path}.{name}", getattr(found, name), getattr(derived, name))
    elif isinstance(found, tuple) and isinstance(derived, tuple) and found != derived:
        require(len(found) == len(derived), f"{path} has {len(found)} entries, derived {len(derived)}")
        for i, (mine, its) in enumerate(zip(found, derived, strict=True)):
            same(f"{path}[{i}]", mine, its)
    else:
        alike = found == derived
        if isinstance(found, float) and isinstance(derived, float):
            alike = math.isclose(found, derived, rel_tol=TOLERANCE, abs_tol=1e-12)
        require(alike, f"{path} is {shown(str(found), 200)}, derived {shown(str(derived), 200)}")


def _check_split(case: PlanCase) -> str:
    plan, role, scenario, split = case.plan, case.role, case.scenario, case.split
    same("scenario.name", plan.scenario.name, scenario.name)
    made = make_split(scenario, split.tp, split.ep, split.pp, split.dp, split.batch, split.redundant, split.instances)
    same("split", role.split, SplitRecord.of(replace(made, **{name: getattr(split, name) for name in _GIVEN})))
    _check_layer_redundant(case)
    for name in ("tp", "ep", "pp", "dp", "batch"):
        pinned = getattr(scenario.pins, name)
        require(pinned in (None, getattr(split, name)), f"{name} is pinned to {pinned}, not {getattr(split, name)}")
    if scenario.redundant != "auto":
        same("split.redundant", split.redundant, scenario.redundant)
    problem = load_problem(scenario, Layout.of(scenario, split))
    require(not problem, problem)
    most = most_sequences(scenario, split.tp, split.pp)
    require(most is None or split.batch <= most, f"batch {split.batch} is more than the {most} that the engine takes")
    same("messages", role.messages, EngineRecord.of(scenario, split, role.role).messages)
    shared = context_degrees(scenario, split) if role.role == "prefill" else [1]
    require(role.cp in shared, f"cp {role.cp} is none of {', '.join(map(str, shared))}")
    same("dispatch", role.dispatch, scenario.dispatch_in_use)
    serving = scenario.workload.kind == "serving"
    fitted = serving and role.role != "prefill"
    require(fitted or role.posed_batch == split.batch, f"posed_batch {role.posed_batch} is not the batch of the split")
    require(serving == (role.phase != "train"), f"phase {role.phase} is none of a {scenario.workload.kind} workload")
    return f"{split.gpus} of {scenario.cluster.gpus} GPUs; every degree divides what it splits"


#: What make_split is not told of a split, and what is checked by itself.
_GIVEN = ("cut", "recompute", "layer_redundant")


def _check_layer_redundant(case: PlanCase) -> None:
    """Layers that share redundant experts: equal slots on every GPU, and no more in a stage than even layers have."""
    role, split, model = case.role, case.split, case.scenario.model
    if split.layer_redundant is None:
        return
    require(len(split.layer_redundant) == len(role.layers), "layer_redundant has not one number a layer")
    held: dict[int, int] = {}
    for layer, moe, extra in zip(role.layers, model.moes, split.layer_redundant, strict=True):
        slots, where = len(layer.physical_to_logical), f"layer {layer.layer}: {extra} redundant experts"
        require(slots % split.ep == 0, f"{where}: {slots} slots do not divide over {split.ep} GPUs")
        beyond = slots - moe.experts - extra
        exact = moe.experts == model.moe.experts
        require(beyond == 0 if exact else 0 <= beyond < split.ep, f"{where} in {slots} slots of {moe.experts} experts")
        stage = next(s.stage for s in role.stages if s.first_layer <= layer.layer < s.first_layer + s.layers)
        held[stage] = held.get(stage, 0) + extra - split.redundant
    for stage, beyond in held.items():
        require(beyond <= 0, f"layers of stage {stage} have {beyond} redundant experts too many")


def _check_topology(case: PlanCase) -> str:
    role, scenario, split = case.role, case.scenario, case.posed
    made = topology_of(scenario, split)
    rates = planned_rates(scenario, split, role.phase)
    same("topology", role.topology, topology_record(scenario, split))
    same("tokens_per_gpu", role.tokens_per_gpu, rates.tokens_per_gpu)
    if case.plan.choice is not None:
        same("stake", role.stake, moe_stake(scenario, role.role, split, role.cp))
    same("message_rule", role.message_rule, planned_rule(scenario, split, role.phase, rates))
    return f"{made.gpus} expert-parallel ranks on {made.nodes} nodes"


def _check_stages(case: PlanCase) -> str:
    rows = stage_records(case.scenario, case.split)
    same("stages", case.role.stages, rows)
    held = "1 stage holds" if len(rows) == 1 else f"{len(rows)} stages hold"
    return f"{held} all {case.scenario.model.whole_layers} layers"


def _every_placement(role: RolePlan) -> Iterator[tuple[int, str, IntArray, FloatArray | None]]:
    """Position of its layer, where it stands, slots and fractions of each placement in the file."""
    rows = [("", own_placement(role))]
    rows += [(f"{row.name}, ", placement_of(role, row)) for row in role.strategies if row.placements is not None]
    for name, placement in rows:
        both = zip(role.layers, placement.slots, placement.fractions, strict=True)
        for i, (layer, slots, fractions) in enumerate(both):
            yield i, f"{name}layer {layer.layer}", slots, fractions


def _check_placements(case: PlanCase) -> str:
    role, count, topology = case.role, 0, topology_of(case.scenario, case.split)
    for i, where, slots, fractions in _every_placement(role):
        experts, capacity = case.scenario.model.moes[i].experts, _capacity(case, i)
        planned = role.dispatch == "planned" and capacity.sum() > experts
        faults = slot_faults(slots, experts, case.widths[i], topology.gpus, capacity)
        require(not faults, f"{where}: {'; '.join(faults)}")
        wrong = "are missing" if planned else "mean nothing without replicas under planned dispatch"
        require(planned == (fractions is not None), f"{where}: dispatch_fractions {wrong}")
        if planned:
            planned_shares(slots, experts, topology, fractions)
        count += 1
    if case.scenario.keep_groups:
        _check_groups(case)
    lost = f"; {len(role.failed_gpus)} failed GPUs are left empty" if role.failed_gpus else ""
    return f"{count} placements: every expert is held, no GPU holds one twice{lost}"


def _capacity(case: PlanCase, i: int) -> IntArray:
    """[gpus] usable slots in the i-th MoE layer."""
    lost = np.isin(np.arange(case.role.topology.gpus), case.role.failed_gpus)
    return np.where(lost, 0, case.widths[i])


def _check_groups(case: PlanCase) -> None:
    """All copies of a group's experts lie on one node, in the plan's own layers."""
    for moe, width, layer in zip(case.scenario.model.moes, case.widths, case.role.layers, strict=True):
        home: dict[int, int] = {}
        span = width * case.role.topology.gpus_per_node
        for slot, expert in enumerate(layer.physical_to_logical):
            if expert == EMPTY:
                continue
            group, node = expert * moe.groups // moe.experts, slot // span
            require(
                home.setdefault(group, node) == node,
                f"layer {layer.layer}: group {group} lies on nodes {home[group]} and {node}",
            )


def _check_baselines(case: PlanCase) -> str:
    """The rows and their order; hash and linear hang on nothing but the experts."""
    role, asked = case.role, case.plan.provenance.strategy
    names = [row.name for row in role.strategies]
    own = asked if asked in BASELINES else SOLVED
    ran = [RUNNING] if asked == "migrate" and RUNNING in names else []
    wanted = [*BASELINES, *ran, *([] if own in BASELINES else [own])]
    require(names == wanted, f"strategies are {', '.join(names) or 'none'}, not {', '.join(wanted)}")
    alone = [row.name for row in role.strategies if row.placements is None]
    require(alone == [own], f"the plan's own placement stands for {', '.join(alone) or 'none'}, not {own}")
    orders: tuple[tuple[str, Callable[[int], IntArray]], ...] = (("hash", hash_order), ("linear", np.arange))
    for name, order in orders:
        built = [
            in_turn(order(moe.experts), _capacity(case, i), case.widths[i])
            for i, moe in enumerate(case.scenario.model.moes)
        ]
        _check_rebuilt(role, name, built)
    return f"{len(names)} strategies, {own} is the plan's own; hash and linear as built again"


def _check_rebuilt(role: RolePlan, name: str, built: Sequence[IntArray]) -> None:
    """A strategy's placements are those built again, one a layer."""
    row = next(row for row in role.strategies if row.name == name)
    for layer, slots, derived in zip(role.layers, placement_of(role, row).slots, built, strict=True):
        require(np.array_equal(slots, derived), f"{name}, layer {layer.layer}: is not what {name} places")


def _check_memory(case: PlanCase) -> str:
    made = memory_of(case.scenario, case.split)
    same("memory", case.role.memory, memory_record(made))
    require(made.fits, f"needs {made.total_bytes:.0f} bytes, HBM has {made.capacity_bytes:.0f}")
    return f"{made.total_bytes / 1e9:.1f} of {made.capacity_bytes / 1e9:.1f} GB on the fullest GPU"


def _check_limits(case: PlanCase) -> str:
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


def _check_certificate(case: PlanCase) -> str:
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


def _check_prediction(case: PlanCase) -> str:
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
            same("predicted", role.predicted, predicted_record(made))
    return "tokens/s of every strategy and all predicted figures follow from their MoE-layer times"


def _check_routing(case: PlanCase) -> str:
    record, routing = case.plan.provenance, case.routing
    same("provenance.routing", record.routing, routing.record)
    same("provenance.inputs", record.inputs, routing.inputs)
    return f"{routing.record.source}: parts, windows and tokens as told"


def _check_objectives(case: PlanCase) -> str:
    """Each layer's objective on the routing it was solved on."""
    role, placement = case.role, own_placement(case.role)
    for i, layer in enumerate(role.layers):
        score = score_layer(case.problems[i], placement.slots[i], placement.fractions[i])
        same(f"layers[{i}].objective", layer.objective, score.objective)
    return f"{len(role.layers)} layers score as they say on the routing they were solved on"


def _check_figures(case: PlanCase) -> str:
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
            same("predicted", role.predicted, predicted_record(assessment.prediction))
    same("served", role.served, served_record(case.judge, own_placement(role)))
    return f"{len(role.strategies)} strategies and the predicted figures come out the same"


def _check_batches(case: PlanCase) -> str:
    """Every strategy's own batch is the largest within the limits on the routing solved on; judged on the other."""
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
        made = fit.fit(placement, told.batch)
        operated = judge.operated(placement, made)
        derived = operation_record(operated.prediction, made.batch, operated.times, made.requests_per_s)
        same(f"strategies[{i}].at_own_batch", told, derived)
        if row.placements is None:
            same("split.batch", role.split.batch, made.batch)
            same("requests_per_s", role.requests_per_s, made.requests_per_s)
            same("binds", role.binds, made.binds)
    return f"{len(role.strategies)} strategies, each at the largest batch within the limits"


def _check_heuristics(case: PlanCase) -> str:
    """The baselines that look at loads."""
    for name, build in (("round_robin", round_robin), ("greedy", greedy)):
        _check_rebuilt(case.role, name, [build(problem) for problem in case.problems])
    return "round_robin and greedy as built again from the loads"


def _check_bounds(case: PlanCase) -> str:
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


_PLACED = ("layers[].physical_to_logical", "layers[].dispatch_fractions")
#: Name, check, and the fields that it leaves open where it can't be made.
CHECKS: tuple[tuple[str, Callable[[PlanCase], str], tuple[str, ...]], ...] = (
    ("split", _check_split, ()),
    ("topology", _check_topology, ()),
    ("stages", _check_stages, ()),
    ("placements", _check_placements, ()),
    ("baselines", _check_baselines, ()),
    ("memory", _check_memory, ()),
    ("limits", _check_limits, ()),
    ("certificate", _check_certificate, ()),
    ("prediction", _check_prediction, ("predicted", "strategies[].tokens_per_s")),
    ("routing", _check_routing, ("provenance.routing", "provenance.inputs")),
    ("objectives", _check_objectives, ("layers[].objective", *_PLACED)),
    ("figures", _check_figures, ("strategies", *_PLACED)),
    ("batches", _check_batches, ("strategies[].at_own_batch", "binds", "requests_per_s")),
    ("heuristics", _check_heuristics, ("strategies[2].placements", "strategies[3].placements")),
    ("bounds", _check_bounds, ("layers[].bound",)),
)
#: Those that others rest on: where one fails, no figure is derived from the routing, and without a split nothing is.
BASE = ("split", "topology", "stages", "placements", "baselines", "routing")
