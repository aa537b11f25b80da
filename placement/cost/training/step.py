"""The time of a training step (docs/cost-model.md, "Training")."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.layer.scenario_rates import topology_of
from placement.cost.memory.local import LocalParameters
from placement.cost.memory.recompute import mode_counts
from placement.cost.step.collectives import replica_all_reduce_s
from placement.cost.step.pass_times import LayerTimes, PassModel
from placement.cost.training.constants import TrainingConstants, load_training, pass_constants
from placement.cost.training.passes import LayerPasses, PassSeconds, layer_passes
from placement.cost.training.pipeline import PipelineTime, pipeline_time, sum_passes
from placement.problem.pieces import StageShape, stage_shapes
from placement.problem.schedule import copies, piece_count, pieces_of_rank
from placement.problem.split import Split
from specs.scenario import Scenario
from specs.workload import TrainingWorkload


@dataclass(frozen=True)
class TrainingStep:
    """One step.

    Attributes:
        step_s: the step; forward_s, backward_s: one microbatch on the slowest rank, messages counted.
        bubble_share: idle share of the pipeline part; (pp-1)/(m+pp-1) with equal stages under 1F1B.
        pipeline: the pipeline part by kind of pass, means over the ranks.
        gradients_s: reduction of gradients (and, with ZeRO, the gather of weights) that nothing hides.
        optimizer_s: reading and writing gradients, optimizer states and weights.
        microbatches: of an attention rank.
    """

    step_s: float
    forward_s: float
    backward_s: float
    bubble_share: float
    pipeline: PipelineTime
    gradients_s: float
    optimizer_s: float
    microbatches: int


class TrainingModel:
    """Times the steps of one split; immutable after construction."""

    def __init__(
        self,
        scenario: Scenario,
        workload: TrainingWorkload,
        split: Split,
        efficiency: Efficiency,
        moe_s: float | None = None,
        passes: PassModel | None = None,
        training: TrainingConstants | None = None,
        shapes: tuple[StageShape, ...] | None = None,
    ) -> None:
        """`passes` (under `pass_constants`) and `shapes` (of the pieces) are those of the split, where at hand."""
        self.scenario, self.workload, self.split = scenario, workload, split
        self.efficiency, self.training = efficiency, training or load_training()
        self.passes = passes or PassModel(scenario, split, pass_constants(efficiency, self.training))
        self.layer: LayerPasses
        self.forward: LayerTimes
        topology = topology_of(scenario, split)
        self.layer, self.forward = layer_passes(self.passes, topology, workload, self.training, moe_s)
        self.shapes = shapes or stage_shapes(scenario.model, piece_count(workload, split.pp), split.cut)

    def pieces(self) -> tuple[PassSeconds, ...]:
        """[pieces] passes of one microbatch through each piece of the model."""
        modes = mode_counts(self.scenario.model, self.workload, self.split, self.shapes)
        pairs = tuple(zip(self.shapes, modes, strict=True))
        seconds = {pair: self.layer.piece(*pair) for pair in set(pairs)}
        return tuple(seconds[pair] for pair in pairs)

    def step(self) -> TrainingStep:
        """The step."""
        split, workload = self.split, self.workload
        pieces = self.pieces()
        pipeline = pipeline_time(workload, split.pp, split.microbatches, pieces, self.training.communication_sms.value)
        ranks = [sum_passes(pieces[i] for i in pieces_of_rank(workload, split.pp, rank)) for rank in range(split.pp)]
        slowest = max(ranks, key=lambda passes: passes.serial_s)
        forward_s = slowest.forward_s + slowest.forward_messages_s
        gradients_s = self._gradients_s(pipeline.total_s)
        optimizer_s = self._optimizer_s()
        return TrainingStep(
            step_s=pipeline.total_s + gradients_s + optimizer_s + self.training.step_overhead_s.value,
            forward_s=forward_s,
            backward_s=slowest.serial_s - forward_s,
            bubble_share=pipeline.idle_s / pipeline.total_s,
            pipeline=pipeline,
            gradients_s=gradients_s,
            optimizer_s=optimizer_s,
            microbatches=split.microbatches,
        )

    def _held(self) -> list[tuple[float, float]]:
        """(Dense, routed experts') parameters that a GPU of each rank holds; ranks alike once."""
        local, workload, pp = LocalParameters.of(self.scenario.model, self.split), self.workload, self.split.pp
        ranks = {tuple(self.shapes[i] for i in pieces_of_rank(workload, pp, rank)) for rank in range(pp)}
        return [
            (sum(local.dense(shape) for shape in shapes), sum(local.experts(shape).count for shape in shapes))
            for shapes in ranks
        ]

    def _gradients_s(self, pipeline_s: float) -> float:
        """Traffic of gradients and weights over the replicas of the fullest rank, less what is hidden.

        ZeRO 0: an all-reduce of gradients. 1: half of one to scatter gradients, half to gather updated weights. 2:
        gradients are scattered after every microbatch. 3: weights are gathered before every pass, too. What goes with
        every microbatch runs beside the pipeline (PyTorch FSDP, arXiv 2304.11277); only what exceeds it counts.
        """
        workload, split = self.workload, self.split
        size, weight = workload.gradient_bytes_per_parameter, self.training.gathered_bytes.value
        exposed = 1.0 - min(1.0, self.training.gradient_overlap.value)
        slowest = 0.0
        for dense, experts in self._held():
            reduce_s = self._replicas_s(dense, experts, size) / 2
            gather_s = self._replicas_s(dense, experts, weight) / 2
            if workload.zero_stage == 0:
                time = 2 * reduce_s * exposed
            elif workload.zero_stage == 1:
                time = reduce_s * exposed + gather_s
            else:
                each = reduce_s + (2 * gather_s if workload.zero_stage == 3 else 0.0)
                after = gather_s if workload.zero_stage == 2 else 0.0
                time = max(reduce_s * exposed, split.microbatches * each - pipeline_s) + after
            slowest = max(slowest, time)
        return slowest

    def _replicas_s(self, dense: float, experts: float, size: float) -> float:
        """An all-reduce: of dense parameters over attention ranks and instances, of experts over instances."""
        split, cluster, twice = self.split, self.scenario.cluster, copies(self.workload)
        return replica_all_reduce_s(
            cluster, self.efficiency, split.dp * split.instances * twice, split.tp, dense * size
        ) + replica_all_reduce_s(
            cluster, self.efficiency, split.instances * twice, split.gpus_per_instance, experts * size
        )  # fmt: skip

    def _optimizer_s(self) -> float:
        """One read and one write of the optimizer states that a GPU holds after their ZeRO sharding, one read of their
        gradients and one write of their weights."""
        workload, split, twice = self.workload, self.split, copies(self.workload)
        replicas = split.instances * twice if workload.zero_stage >= 1 else 1
        attention = split.dp if workload.zero_stage >= 1 else 1
        worst = max(dense / (replicas * attention) + experts / replicas for dense, experts in self._held())
        each = 2 * workload.optimizer_bytes_per_parameter + workload.gradient_bytes_per_parameter
        return worst * (each + self.training.gathered_bytes.value) / self.passes.roofline.hbm_bytes_per_s


def training_step(
    scenario: Scenario,
    workload: TrainingWorkload,
    split: Split,
    moe_s: float | None,
    efficiency: Efficiency,
    passes: PassModel | None = None,
    shapes: tuple[StageShape, ...] | None = None,
) -> tuple[TrainingStep, PassModel, LayerTimes]:
    """The step, its timing model, and the parts of a microbatch's forward pass. See TrainingModel."""
    model = TrainingModel(scenario, workload, split, efficiency, moe_s, passes, None, shapes)
    return model.step(), model.passes, model.forward
