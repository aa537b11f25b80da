"""Checks of a whole plan file: everything it claims is derived again. Nothing here is shared with the solvers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from placement.check.layer import slot_faults
from placement.cost.assess import Assessor
from placement.cost.layer.scenario_rates import topology_of
from placement.cost.layer.score import score_layer
from placement.cost.memory.hbm import memory_of
from placement.cost.step.serving_mix import planned_rates
from placement.errors import InputError, ParameterError
from placement.problem.arrays import EMPTY
from placement.problem.data import LayerData
from placement.problem.pieces import piece_rows
from placement.problem.split import Split, cut_problem, make_split
from placement.records.convert import own_placement, placement_of, predicted_record
from placement.records.plan import CERTIFICATE_UNITS, Plan, StrategyRecord
from placement.routing.holdout import Routing, read_sources, routing_of, synthetic_source

#: Relative difference that two computations of one figure may have.
TOLERANCE = 1e-6
#: Strategies that every plan is held against.
BASELINES = ("hash", "linear", "round_robin", "greedy", "eplb")
_FIGURES = (
    "balancedness", "nodes_per_token", "remote_nodes_per_token", "cross_node_bytes_per_token", "moe_layer_us",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One check: whether it passed (None: it could not be made), and what was found."""

    name: str
    passed: bool | None
    detail: str


class _FailureError(Exception):
    """A check that fails; the message says how."""


def verify_plan(plan: Plan, traces: Sequence[str] = ()) -> tuple[Check, ...]:
    """Every check of `plan`, in a fixed order. See placement.check.plan.verify_plan."""
    routing, why_not = _routing(plan, traces)
    named: tuple[tuple[str, Callable[[], str]], ...] = (
        ("split", lambda: _check_split(plan)),
        ("topology", lambda: _check_topology(plan)),
        ("stages", lambda: _check_stages(plan)),
        ("placements", lambda: _check_placements(plan)),
        ("baselines", lambda: _check_baselines(plan)),
        ("memory", lambda: _check_memory(plan)),
        ("certificate", lambda: _check_certificate(plan)),
    )
    checks = [_made(name, check) for name, check in named]
    sound = all(check.passed for check in checks[:4])
    for name, against in (("objectives", _check_objectives), ("figures", _check_figures)):
        if routing is None:
            checks.append(Check(name, None, why_not))
        elif not sound:
            checks.append(Check(name, None, "not made: the plan's shape is broken"))
        else:
            checks.append(_made(name, lambda against=against: against(plan, routing)))  # type: ignore[misc]
    return tuple(checks)


def _made(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (_FailureError, InputError) as failure:
        return Check(name, False, str(failure))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _FailureError(otherwise)


def _near(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is None and second is None
    return math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=1e-12)


def _split(plan: Plan) -> Split:
    return plan.split.split()


def _check_split(plan: Plan) -> str:
    split, scenario = _split(plan), plan.scenario.spec
    made = make_split(scenario, split.tp, split.ep, split.pp, split.dp, split.batch, split.redundant, split.instances)
    made = replace(made, cut=split.cut, recompute=split.recompute)
    problem = cut_problem(scenario, split)
    _require(not problem, problem)
    _require(made == split, f"its degrees make {made}, not {split}")
    for name in ("tp", "ep", "pp", "dp", "batch"):
        pinned = getattr(scenario.pins, name)
        _require(pinned in (None, getattr(split, name)), f"{name} is pinned to {pinned}, not {getattr(split, name)}")
    if scenario.redundant != "auto":
        _require(scenario.redundant == split.redundant, f"redundant is {split.redundant}, not {scenario.redundant}")
    _require(plan.dispatch == scenario.dispatch, f"dispatch is {plan.dispatch}, the scenario's {scenario.dispatch}")
    _require(plan.message_rule == scenario.message_rule, f"message_rule is not the scenario's {scenario.message_rule}")
    serving = scenario.workload.kind == "serving"
    _require(serving == (plan.phase != "train"), f"phase {plan.phase} is none of a {scenario.workload.kind} workload")
    return f"{split.gpus} of {scenario.cluster.gpus} GPUs; every degree divides what it splits"


def _check_topology(plan: Plan) -> str:
    derived, record = topology_of(plan.scenario.spec, _split(plan)), plan.topology
    for name in ("gpus", "gpus_per_node", "gpus_per_tray"):
        mine, its = getattr(derived, name), getattr(record, name)
        _require(mine == its, f"topology.{name} is {its}, the split gives {mine}")
    tokens = planned_rates(plan.scenario.spec, _split(plan), plan.phase).tokens_per_gpu
    _require(
        _near(tokens, plan.tokens_per_gpu), f"tokens_per_gpu is {plan.tokens_per_gpu:g}, the split gives {tokens:g}"
    )
    return f"{derived.gpus} expert-parallel ranks on {derived.nodes} nodes"


def _check_stages(plan: Plan) -> str:
    split, model = _split(plan), plan.scenario.spec.model
    rows = piece_rows(plan.scenario.spec, split)
    _require(len(plan.stages) == len(rows), f"{len(plan.stages)} stages, but the split has {len(rows)}")
    for i, (stage, row) in enumerate(zip(plan.stages, rows, strict=True)):
        derived = (*row, split.gpus_per_stage)
        found = (stage.stage, stage.first_layer, stage.layers, stage.gpus)
        _require(
            derived == found, f"stage {i} is {found}, the split gives {derived} (stage, first layer, layers, GPUs)"
        )
    return f"{len(plan.stages)} stages hold all {model.layers} layers"


def _every_placement(plan: Plan) -> Iterator[tuple[str, tuple[int, ...]]]:
    for layer in plan.layers:
        yield f"layer {layer.layer}", layer.physical_to_logical
    for strategy in plan.strategies:
        for layer, row in zip(plan.layers, strategy.placements or (), strict=False):
            yield f"{strategy.name}, layer {layer.layer}", row


def _check_placements(plan: Plan) -> str:
    split, experts = _split(plan), plan.scenario.spec.model.moe.experts
    gpus, count = plan.topology.gpus, 0
    capacity = [0 if gpu in plan.failed_gpus else plan.slots_per_gpu for gpu in range(gpus)]
    for where, row in _every_placement(plan):
        faults = slot_faults(np.array(row, dtype=np.int64), experts, plan.slots_per_gpu, gpus, capacity)
        _require(not faults, f"{where}: {'; '.join(faults)}")
        count += 1
    if plan.scenario.spec.keep_groups:
        _check_groups(plan)
    _require(experts + split.redundant == split.slots, f"{experts} experts + {split.redundant} are not {split.slots}")
    lost = f"; {len(plan.failed_gpus)} failed GPUs are left empty" if plan.failed_gpus else ""
    return f"{count} placements: every expert is held, no GPU holds one twice{lost}"


def _check_groups(plan: Plan) -> None:
    """All copies of a group's experts lie on one node, in the plan's own layers."""
    moe, span = plan.scenario.spec.model.moe, plan.slots_per_gpu * plan.topology.gpus_per_node
    for layer in plan.layers:
        home: dict[int, int] = {}
        for slot, expert in enumerate(layer.physical_to_logical):
            if expert == EMPTY:
                continue
            group, node = expert * moe.groups // moe.experts, slot // span
            _require(
                home.setdefault(group, node) == node,
                f"layer {layer.layer}: group {group} lies on nodes {home[group]} and {node}",
            )


def _check_baselines(plan: Plan) -> str:
    missing = [name for name in BASELINES if plan.strategy(name) is None]
    _require(not missing, f"no figures of {', '.join(missing)}")
    own = [strategy.name for strategy in plan.strategies if strategy.placements is None]
    _require(len(own) == 1, f"{len(own)} strategies stand for the plan's own placement, not one")
    return f"{len(plan.strategies)} strategies, {own[0]} is the plan's own"


def _check_memory(plan: Plan) -> str:
    derived, record = memory_of(plan.scenario.spec, _split(plan)), plan.memory
    total = math.fsum(line.bytes for line in record.lines)
    _require(_near(total, record.total_bytes), f"its lines sum to {total:.0f} bytes, not {record.total_bytes:.0f}")
    _require(_near(record.capacity_bytes, derived.capacity_bytes), f"HBM is {derived.capacity_bytes:.0f} bytes")
    headroom = record.capacity_bytes - record.total_bytes
    _require(abs(headroom - record.headroom_bytes) <= 1 + TOLERANCE * record.capacity_bytes, "its headroom is wrong")
    found = {line.name: line.bytes for line in record.lines}
    for line in derived.lines:
        _require(
            _near(found.get(line.name), line.bytes),
            f"{line.name} is {found.get(line.name)}, derived {line.bytes:.0f} bytes",
        )
    _require(len(found) == len(derived.lines), "it has lines that no part of the model needs")
    _require(total <= record.capacity_bytes, f"needs {total:.0f} bytes, HBM has {record.capacity_bytes:.0f}")
    return f"{total / 1e9:.1f} of {record.capacity_bytes / 1e9:.1f} GB on the fullest GPU"


def _gap(objective: float, bound: float) -> float | None:
    return objective / bound - 1.0 if bound > 0 else None


def _check_one(where: str, objective: float, bound: float, gap: float | None, status: str) -> None:
    _require(bound <= objective * (1 + TOLERANCE), f"{where}: bound {bound:g} is above objective {objective:g}")
    derived = _gap(objective, bound)
    same = derived is None if gap is None else derived is not None and abs(derived - gap) <= TOLERANCE
    _require(same, f"{where}: gap is {gap}, objective and bound give {derived}")
    closed = derived is not None and derived <= 2 * TOLERANCE
    _require(status != "optimal" or closed, f"{where}: says optimal with a gap of {derived}")


def _check_certificate(plan: Plan) -> str:
    record = plan.certificate
    name, unit = CERTIFICATE_UNITS[plan.objective]
    _require(record.unit == name, f"unit is {record.unit}, of objective {plan.objective} it is {name}")
    for layer in plan.layers:
        _check_one(f"layer {layer.layer}", layer.objective, layer.bound, layer.gap, layer.status)
    objective, bound = (
        float(np.mean([getattr(layer, name) for layer in plan.layers])) * unit for name in ("objective", "bound")
    )
    _require(_near(record.objective, objective), f"objective is {record.objective:g}, the layers' mean {objective:g}")
    _require(_near(record.bound, bound), f"bound is {record.bound:g}, the layers' mean {bound:g}")
    _check_one("certificate", record.objective, record.bound, record.gap, record.status)
    _require(
        record.status == "feasible" or all(layer.status == "optimal" for layer in plan.layers),
        "says optimal, but a layer is not",
    )
    gap = "no bound" if record.gap is None else f"gap {record.gap:.2%}"
    return f"bound <= objective in {len(plan.layers)} layers; {gap}"


def _routing(plan: Plan, traces: Sequence[str]) -> tuple[Routing | None, str]:
    """The routing that the plan was made from, if it can be had; else why not."""
    scenario, record, inputs = plan.scenario.spec, plan.provenance.routing, plan.provenance.inputs
    if inputs and not traces:
        return None, f"not made: give the recorded routing ({', '.join(i.name for i in inputs)})"
    if traces and not inputs:
        raise ParameterError("traces", "the plan was solved on synthetic routing", "leave `traces` out")
    sources = read_sources(scenario.model, traces) if traces else (synthetic_source(scenario, plan.provenance.seed),)
    for source, wanted in zip(sources, inputs, strict=False):
        if source.record is not None and source.record.sha256 != wanted.sha256:
            raise InputError(
                "`traces`", source.record.name, f"is not the {wanted.name} the plan was solved on (SHA-256 differs)",
                f"give in this order: {', '.join(i.name for i in inputs)}",
            )  # fmt: skip
    if len(traces) != len(inputs):
        raise InputError(
            "`traces`", "", f"{len(traces)} files, but the plan was solved on {len(inputs)}",
            f"give in this order: {', '.join(i.name for i in inputs)}",
        )  # fmt: skip
    held_out = record.solved_on != "all"
    routing = routing_of(
        sources, scenario.model.moe.top_k, held_out, record.windows_per_trace,
        record.judged_windows_per_trace, record.mixture,
    )  # fmt: skip
    return routing, ""


def _assessor(plan: Plan, statistics: Sequence[LayerData], tail: float) -> Assessor:
    return Assessor(
        plan.scenario.spec, _split(plan), plan.phase, statistics, plan.objective, tail, plan.failed_gpus
    )  # fmt: skip


def _check_objectives(plan: Plan, routing: Routing) -> str:
    """Each layer's objective on the routing it was solved on."""
    assessor = _assessor(plan, routing.solved_on, plan.tail)
    problems = assessor.problems
    placement = own_placement(plan)
    for i, layer in enumerate(plan.layers):
        score = score_layer(problems[plan.phase][i], placement.slots[i], placement.fractions[i])
        _require(
            _near(score.objective, layer.objective),
            f"layer {layer.layer}: objective is {layer.objective:.9g}, scored {score.objective:.9g}",
        )
    return f"{len(plan.layers)} layers score as they say on the routing they were solved on"


def _check_figures(plan: Plan, routing: Routing) -> str:
    assessor = _assessor(plan, routing.judged_on, 1.0)
    for strategy in plan.strategies:
        assessment = assessor.assess(placement_of(plan, strategy))
        for name in _FIGURES:
            _same(strategy, name, getattr(assessment.figures, name))
        for name, seconds in (("decode_us", assessment.times.decode_s), ("prefill_us", assessment.times.prefill_s)):
            # Plans of before there were these have none.
            if getattr(strategy, name) is not None:
                _same(strategy, name, None if seconds is None else seconds * 1e6)
        _same(strategy, "tokens_per_s", assessment.prediction.tokens_per_s)
        if strategy.placements is None:
            _check_predicted(plan, predicted_record(assessment.prediction).model_dump())
    return f"{len(plan.strategies)} strategies and the predicted figures come out the same"


def _same(strategy: StrategyRecord, name: str, derived: float | None) -> None:
    found = getattr(strategy, name)
    _require(_near(found, derived), f"{strategy.name}: {name} is {found}, derived {derived}")


def _check_predicted(plan: Plan, derived: dict[str, object]) -> None:
    for name in ("tokens_per_s", "tokens_per_s_per_gpu", "ttft_ms", "tpot_ms", "step_ms"):
        figure, other = getattr(plan.predicted, name), derived[name]
        value = other["value"] if isinstance(other, dict) else None
        _require(
            _near(None if figure is None else figure.value, value),
            f"predicted.{name} is {None if figure is None else figure.value}, derived {value}",
        )
