"""Checks of a role's structure: what its split, its placements and its memory must be, whatever the routing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from placement.check.case import PlanCase
from placement.check.failure import require, same
from placement.check.layer import slot_faults
from placement.cost.layer.dispatch import planned_shares
from placement.cost.layer.scenario_rates import topology_of
from placement.cost.memory.hbm import memory_of
from placement.cost.step.role_figures import moe_stake
from placement.cost.step.roles import context_degrees
from placement.cost.step.serving_mix import planned_rates, planned_rule
from placement.problem.arrays import EMPTY, FloatArray, IntArray
from placement.problem.engine_rules import Layout, load_problem, most_sequences
from placement.problem.split import make_split
from placement.records.convert import memory_record, own_placement, placement_of, stage_records, topology_record
from placement.records.layout import EngineRecord, SplitRecord
from placement.records.role import RolePlan

#: What make_split is not told of a split, and what is checked by itself.
_GIVEN = ("cut", "recompute", "layer_redundant")


def check_split(case: PlanCase) -> str:
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
    problem = load_problem(scenario, Layout.of(scenario, split), role.role)
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


def _check_layer_redundant(case: PlanCase) -> None:
    """Layers that share redundant experts: equal slots on every GPU, and no more in a stage than even layers have."""
    role, split, model = case.role, case.split, case.scenario.model
    if split.layer_redundant is None:
        return
    require(len(split.layer_redundant) == len(role.layers), "layer_redundant has not one number a layer")
    held: dict[int, int] = {}
    rows = zip(role.layers, model.moes, split.layer_redundant, role.stages_of_layers, strict=True)
    for layer, moe, extra, stage in rows:
        slots, where = len(layer.physical_to_logical), f"layer {layer.layer}: {extra} redundant experts"
        require(slots % split.ep == 0, f"{where}: {slots} slots do not divide over {split.ep} GPUs")
        beyond = slots - moe.experts - extra
        exact = moe.experts == model.moe.experts
        require(beyond == 0 if exact else 0 <= beyond < split.ep, f"{where} in {slots} slots of {moe.experts} experts")
        held[stage] = held.get(stage, 0) + extra - split.redundant
    for stage, beyond in held.items():
        require(beyond <= 0, f"layers of stage {stage} have {beyond} redundant experts too many")


def check_topology(case: PlanCase) -> str:
    role, scenario, split = case.role, case.scenario, case.posed
    made = topology_of(scenario, split)
    rates = planned_rates(scenario, split, role.phase)
    same("topology", role.topology, topology_record(scenario, split))
    same("tokens_per_gpu", role.tokens_per_gpu, rates.tokens_per_gpu)
    if case.plan.choice is not None:
        same("stake", role.stake, moe_stake(scenario, role.role, split, role.cp))
    same("message_rule", role.message_rule, planned_rule(scenario, split, role.phase, rates))
    return f"{made.gpus} expert-parallel ranks on {made.nodes} nodes"


def check_stages(case: PlanCase) -> str:
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


def check_placements(case: PlanCase) -> str:
    role, count, topology = case.role, 0, topology_of(case.scenario, case.split)
    for i, where, slots, fractions in _every_placement(role):
        experts, capacity = case.scenario.model.moes[i].experts, case.capacity(i)
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


def check_memory(case: PlanCase) -> str:
    made = memory_of(case.scenario, case.split)
    same("memory", case.role.memory, memory_record(made))
    require(made.fits, f"needs {made.total_bytes:.0f} bytes, HBM has {made.capacity_bytes:.0f}")
    return f"{made.total_bytes / 1e9:.1f} of {made.capacity_bytes / 1e9:.1f} GB on the fullest GPU"
