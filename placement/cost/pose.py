"""The layer problems of a scenario under a split, and the split's own view of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from placement.cost.layer.scenario_rates import rank_speeds, topology_of
from placement.cost.step.serving_mix import planned_rates, planned_rule
from placement.errors import InputError
from placement.problem.arrays import IntArray
from placement.problem.data import LayerData
from placement.problem.hardware import LayerHardware
from placement.problem.layer import LayerObjective, LayerProblem, LayerRules, Objective
from placement.problem.split import Split
from specs.blocks.ffn import Moe
from specs.blocks.run import Block
from specs.scenario import Scenario
from specs.workload import PlannedPhase


def layer_problems(
    scenario: Scenario,
    split: Split,
    phase: PlannedPhase,
    statistics: Sequence[LayerData],
    objective: Objective = "time",
    tail: float = 1.0,
    failed_gpus: Sequence[int] = (),
    capacities: Sequence[IntArray] | None = None,
) -> tuple[LayerProblem, ...]:
    """One problem per MoE layer.

    Args:
        phase: what the prices are of; tokens per GPU are the split's own in that phase.
        statistics: routing of each MoE layer.
        tail: see LayerObjective.
        failed_gpus: expert-parallel ranks that are lost: without capacity, and no token's home.
        capacities: [layers][gpus] slots of each GPU, where they are not the split's.

    Raises:
        InputError: the split's ranks do not fill nodes, or fill one where traffic between nodes is the objective; the
            GPU states no rate for a data type; or groups that have to be kept do not divide over the nodes.
    """
    model = scenario.model
    blocks = [model.layout[i] for i in model.moe_blocks]
    rates = {block: planned_rates(scenario, split, phase, block) for block in dict.fromkeys(blocks)}
    topology = topology_of(scenario, split)
    if objective == "traffic" and topology.nodes == 1:
        raise InputError(
            scenario.name, "objective", f"'traffic' counts bytes between nodes, but the {topology.gpus} GPUs of the "
            "plan's expert parallelism are on one node", "use objective 'time', or pin an ep that spans nodes",
        )  # fmt: skip

    def problem(layer: LayerData, block: Block, moe: Moe, slots: int, own: IntArray | None) -> LayerProblem:
        group, capacity = None, None
        if scenario.keep_groups:
            if moe.groups % topology.nodes:
                raise InputError(
                    scenario.name, "keep_groups",
                    f"{moe.groups} expert groups do not divide over {topology.nodes} nodes",
                    "pin an ep that spans fewer nodes, or unset keep_groups",
                )  # fmt: skip
            group = np.arange(moe.experts) * moe.groups // moe.experts
        if own is not None:
            slots, capacity = int(own.max()), own
        if failed_gpus:
            capacity = np.full(topology.gpus, slots)
            capacity[list(failed_gpus)] = 0
        speeds = rank_speeds(scenario, split, rates[block], moe, slots)
        hardware = LayerHardware(topology, slots, rates[block], capacity, speeds)
        rules = LayerRules(scenario.dispatch_in_use, planned_rule(scenario, split, phase, rates[block]), group)
        return LayerProblem(layer.of_experts(moe.experts), hardware, rules, LayerObjective(objective, tail))

    own: Sequence[IntArray | None] = capacities or [None] * len(blocks)
    return tuple(map(problem, statistics, blocks, model.moes, split.widths(model), own))


def planned_phases(scenario: Scenario) -> tuple[PlannedPhase, ...]:
    """What a plan for the scenario can be made for, the default first."""
    return ("serving", "decode", "prefill") if scenario.workload.kind == "serving" else ("train",)
