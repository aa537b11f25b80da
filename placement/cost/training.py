"""The time of a training step under 1F1B (docs/cost-model.md, "Training")."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.collectives import replica_all_reduce_s
from placement.cost.efficiency import Efficiency
from placement.cost.local import LocalParameters
from placement.cost.steps import LayerTimes, PassModel
from placement.split import Split
from specs.schema import Scenario, TrainingWorkload


@dataclass(frozen=True)
class TrainingStep:
    """One step.

    Attributes:
        step_s: the step; forward_s, backward_s: one microbatch on the slowest stage.
        bubble_share: idle share of the pipeline part, (pp-1)/(m+pp-1) with equal stages.
        gradients_s: all-reduce of gradients; optimizer_s: reading and writing optimizer states and weights.
        microbatches: of an attention rank.
    """

    step_s: float
    forward_s: float
    backward_s: float
    bubble_share: float
    gradients_s: float
    optimizer_s: float
    microbatches: int


def training_step(
    scenario: Scenario,
    workload: TrainingWorkload,
    split: Split,
    moe_s: float | None,
    efficiency: Efficiency,
    passes: PassModel | None = None,
) -> tuple[TrainingStep, PassModel, LayerTimes]:
    """The step, its timing model, and the parts of a microbatch's forward pass.

    A microbatch holds whole sequences, so its attention core costs as many sequences as it has. A pipeline of m
    microbatches takes the sum of one microbatch over the stages, then m - 1 times the slowest stage.
    """
    passes = passes or PassModel(scenario, split, efficiency)
    tokens = workload.microbatch * workload.sequence
    times = passes.prompt(tokens, workload.sequence, tokens, moe_s)
    whole = _with_backward(times, passes, tokens, workload, efficiency)
    _, forward_s = passes.stage_seconds(times)
    total_s, slowest_s = passes.stage_seconds(whole)
    pipeline_s = total_s + (split.microbatches - 1) * slowest_s
    busy_s = split.microbatches * slowest_s
    gradients_s = _gradients_s(scenario, workload, split, efficiency, passes)
    optimizer_s = _optimizer_s(scenario, workload, split, passes)
    step = TrainingStep(
        step_s=pipeline_s + gradients_s + optimizer_s + efficiency.step_overhead_s.value,
        forward_s=forward_s,
        backward_s=slowest_s - forward_s,
        bubble_share=1 - busy_s / pipeline_s,
        gradients_s=gradients_s,
        optimizer_s=optimizer_s,
        microbatches=split.microbatches,
    )
    return step, passes, times


def _with_backward(
    times: LayerTimes, passes: PassModel, tokens: float, workload: TrainingWorkload, efficiency: Efficiency
) -> LayerTimes:
    """Forward, backward and (recompute "full") repeated forward of a microbatch.

    Backward products cost `backward_flops` forward ones; messages go back once. An MoE layer's time is divided into
    messages and experts as the balanced estimate divides it.
    """
    again = 2.0 if workload.recompute == "full" else 1.0
    product, message = again + efficiency.backward_flops.value, again + 1.0
    ranked = tokens / passes.split.tp * passes.split.etp
    moved, computed = passes.layer.messages_s(ranked), passes.layer.experts_s(ranked)
    mixed = (moved * message + computed * product) / (moved + computed)
    return LayerTimes(
        projections=times.projections * product,
        core_full=times.core_full * product,
        core_sliding=times.core_sliding * product,
        router=times.router * product,
        shared=times.shared * product,
        dense_ffn=times.dense_ffn * product,
        moe=times.moe * mixed,
        moe_collectives=times.moe_collectives * message,
        dense_collectives=times.dense_collectives * message,
        overhead=times.overhead * product,
        head=times.head * product,
        transfer=times.transfer * 2,
    )


def _gradients_s(
    scenario: Scenario, workload: TrainingWorkload, split: Split, efficiency: Efficiency, passes: PassModel
) -> float:
    """All-reduce of the fullest stage's gradients: dense ones over dp x instances, experts' over instances."""
    size = workload.gradient_bytes_per_parameter
    slowest, local = 0.0, LocalParameters.of(scenario.model, split)
    for shape, _ in passes.stages:
        dense, experts = local.dense(shape), shape.moe * local.experts
        time = replica_all_reduce_s(
            scenario.cluster, efficiency, split.dp * split.instances, split.tp, dense * size
        ) + replica_all_reduce_s(scenario.cluster, efficiency, split.instances, split.gpus_per_instance, experts * size)
        slowest = max(slowest, time)
    return slowest


def _optimizer_s(scenario: Scenario, workload: TrainingWorkload, split: Split, passes: PassModel) -> float:
    """One read and one write of the optimizer states that a GPU holds, after their ZeRO sharding."""
    shards = workload.zero_stage >= 1
    worst, local = 0.0, LocalParameters.of(scenario.model, split)
    for shape, _ in passes.stages:
        dense, experts = local.dense(shape), shape.moe * local.experts
        held = dense / (split.dp * split.instances if shards else 1) + experts / (split.instances if shards else 1)
        worst = max(worst, held)
    return 2 * worst * workload.optimizer_bytes_per_parameter / passes.roofline.hbm_bytes_per_s
