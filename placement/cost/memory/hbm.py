"""HBM of the fullest GPU, line by line (docs/cost-model.md, "Memory"). A line is the bytes on one GPU."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.calibration.efficiency import Efficiency, load_efficiency
from placement.cost.layer.scenario_rates import message_bytes
from placement.cost.memory.activations import (
    kept_bytes,
    serving_activation_bytes,
    serving_logit_bytes,
    training_working_bytes,
)
from placement.cost.memory.draft import draft_kv_bytes, draft_weights, speculation_of
from placement.cost.memory.local import LocalParameters, Share, stored_bytes, total_of
from placement.cost.step.passes import decode_microbatches
from placement.problem.engine_rules import prefill_tokens, reserve_bytes
from placement.problem.pieces import StageShape, StageTable, stage_table
from placement.problem.schedule import copies, piece_count, pieces_of_rank
from placement.problem.split import Split
from specs.blocks.base import PLAIN_BYTES
from specs.fields import bytes_of
from specs.scenario import Scenario
from specs.workload import ServingWorkload, TrainingWorkload


@dataclass(frozen=True)
class MemoryLine:
    """One use of HBM."""

    name: str
    bytes: float


@dataclass(frozen=True)
class MemoryReport:
    """HBM of one GPU of the fullest stage.

    Attributes:
        stage: index of that stage; in training of the rank, which may hold several pieces of the model.
        lines: the uses, in a fixed order.
        capacity_bytes: what the GPU has.
    """

    stage: int
    lines: tuple[MemoryLine, ...]
    capacity_bytes: float

    @property
    def total_bytes(self) -> float:
        return sum(line.bytes for line in self.lines)

    @property
    def headroom_bytes(self) -> float:
        """Capacity less total; negative where it does not fit."""
        return self.capacity_bytes - self.total_bytes

    @property
    def fits(self) -> bool:
        return self.headroom_bytes >= 0

    def line(self, name: str) -> float:
        """Bytes of the line called `name`; 0 where there is none."""
        return sum(line.bytes for line in self.lines if line.name == name)

    @property
    def largest(self) -> MemoryLine:
        """The largest line: what to shrink first."""
        return max(self.lines, key=lambda line: line.bytes)


class MemoryModel:
    """Memory of one split's degrees for any batch; immutable after construction."""

    def __init__(
        self,
        scenario: Scenario,
        split: Split,
        efficiency: Efficiency | None = None,
        stages: StageTable | None = None,
        local: LocalParameters | None = None,
    ) -> None:
        """`stages` and `local` are those of the split, where the caller has them at hand."""
        self.scenario, self.split = scenario, split
        self.efficiency = efficiency or load_efficiency()
        self.capacity_bytes = scenario.cluster.least_gpu.hbm_bytes
        self._local = local or LocalParameters.of(scenario.model, split)
        workload = scenario.workload
        self._drafts = speculation_of(scenario) is not None
        #: Tokens of a sequence in a decode step.
        self._each = workload.step_tokens if workload.kind == "serving" else 1
        widths = None if split.layer_redundant is None else split.widths(scenario.model)
        table = stages or stage_table(scenario.model, piece_count(workload, split.pp), split.cut, widths)
        self.shapes = table.shapes
        self._fixed: dict[int, tuple[MemoryLine, ...]] = {}
        self._kv_per_sequence: dict[int, float] = {}
        if workload.kind == "training":
            # A rank's place counts, too: what is in flight there.
            kept = kept_bytes(scenario.model, workload, split, self.shapes)
            alike: dict[tuple[StageShape, ...], tuple[MemoryLine, ...]] = {}
            for rank in range(split.pp):
                pieces = pieces_of_rank(workload, split.pp, rank)
                shapes = tuple(self.shapes[piece] for piece in pieces)
                if shapes not in alike:
                    alike[shapes] = self._training_lines(workload, shapes)
                working = training_working_bytes(scenario.model, workload, split, shapes[-1].last, self.efficiency)
                held = sum(kept[piece] for piece in pieces)
                self._fixed[rank] = (*alike[shapes], MemoryLine("activations", held + working))
        else:
            # Stages alike in layers and ends store the same.
            for stage in table.distinct:
                shape = self.shapes[stage]
                self._fixed[stage] = tuple(MemoryLine(name, share.bytes) for name, share in self._weights(shape))
                self._kv_per_sequence[stage] = self._kv_bytes(workload, shape)
        self._reserve = reserve_bytes(scenario, split)
        self._fixed_bytes = {stage: sum(line.bytes for line in lines) for stage, lines in self._fixed.items()}

    @property
    def least_kv_bytes_per_sequence(self) -> float:
        """Bytes of KV cache that one more sequence adds at least to the fullest GPU."""
        return min(self._kv_per_sequence.values(), default=0.0)

    @property
    def fixed_bytes(self) -> float:
        """A lower bound of the fullest GPU's bytes at any batch."""
        return max(self._fixed_bytes.values()) + self._reserve

    def report(self, batch: int | None = None) -> MemoryReport:
        """Lines of the fullest stage with `batch` sequences per attention rank (the split's own by default)."""
        sequences = self.split.batch if batch is None else batch
        stage = max(self._fixed, key=lambda s: self._stage_bytes(s, sequences))
        lines = list(self._fixed[stage])
        if self.scenario.workload.kind == "serving":
            activations = self._activations(sequences) + self._logits(stage, sequences)
            lines.append(MemoryLine("KV cache", sequences * self._kv_per_sequence[stage]))
            lines.append(MemoryLine("activations", activations))
        lines.append(MemoryLine("communication buffers", self._buffers(sequences)))
        lines.append(MemoryLine("framework reserve", self._left(sequences)))
        return MemoryReport(stage, tuple(lines), self.capacity_bytes)

    def total_bytes(self, batch: int) -> float:
        """Bytes of the fullest stage. In serving it never falls as `batch` grows; in training it is the split's own."""
        shared = self._activations(batch) + self._buffers(batch) + self._left(batch)
        return max(self._stage_bytes(stage, batch) for stage in self._fixed) + shared

    def _stage_bytes(self, stage: int, batch: int) -> float:
        """What differs between stages."""
        kv = batch * self._kv_per_sequence.get(stage, 0.0)
        return self._fixed_bytes[stage] + kv + self._logits(stage, batch)

    def _logits(self, stage: int, batch: int) -> float:
        """Logits of a decode step (training counts its own among a stage's activations)."""
        if self.scenario.workload.kind == "training" or not self.shapes[stage].last:
            return 0.0
        return serving_logit_bytes(self.scenario.model, self.split, batch, self._each)

    def _activations(self, batch: int) -> float:
        workload = self.scenario.workload
        if workload.kind == "training":
            return 0.0
        budget = prefill_tokens(self.scenario, workload, self.split.tp)
        return serving_activation_bytes(self.scenario.model, self.split, batch, self._each, budget, self.efficiency)

    def _left(self, batch: int) -> float:
        """What of the reserve is left: activations and buffers may lie inside it."""
        if self.scenario.reserve_gib is not None or not self.scenario.engine.reserve.holds_activations:
            return self._reserve
        return max(0.0, self._reserve - self._activations(batch) - self._buffers(batch))

    def _kv_bytes(self, workload: ServingWorkload, shape: StageShape) -> float:
        """KV bytes of a sequence at its full length, on one GPU of a stage."""
        length, tp = workload.isl + workload.osl, self.split.tp
        drafted = draft_kv_bytes(self.scenario, length, tp) if shape.last else 0.0
        return total_of(stored_bytes(self.scenario.model, length, tp), shape.counts) + drafted

    def _weights(self, shape: StageShape) -> list[tuple[str, Share]]:
        """(line, weights on one GPU)."""
        local, last, ends = self._local, shape.last, self._local.ends(shape)
        final = Share(local.final_norm, local.final_norm * PLAIN_BYTES) if last else Share()
        drafts = [("draft weights", draft_weights(self.scenario, self.split, local))] if last and self._drafts else []
        return [
            ("attention weights", local.part("attention", shape.counts)),
            ("norms", local.part("norms", shape.counts) + final),
            ("dense FFN weights", local.part("dense", shape.counts)),
            ("router", local.part("router", shape.counts)),
            ("expert weights", local.experts(shape)),
            ("shared experts", local.part("shared", shape.counts)),
            ("embedding and head", Share(ends, ends * bytes_of(self.scenario.model.types.embedding))),
            *drafts,
        ]

    def part_bytes(self, shape: StageShape) -> float:
        """Bytes that layers and ends of a shape store: weights, with states in training or KV cache in serving."""
        workload = self.scenario.workload
        if workload.kind == "training":
            return sum(line.bytes for line in self._training_lines(workload, (shape,)))
        weights = sum(share.bytes for _, share in self._weights(shape))
        return weights + self.split.batch * self._kv_bytes(workload, shape)

    def shared_bytes(self, last: bool) -> float:
        """Bytes of a GPU that no cut moves: reserve, buffers, one working set; with `last` also the head's logits."""
        workload, batch = self.scenario.workload, self.split.batch
        total = self._buffers(batch) + self._left(batch)
        if workload.kind == "training":
            return total + training_working_bytes(self.scenario.model, workload, self.split, last, self.efficiency)
        logits = serving_logit_bytes(self.scenario.model, self.split, batch, self._each) if last else 0.0
        return total + self._activations(batch) + logits

    def _training_lines(self, workload: TrainingWorkload, shapes: tuple[StageShape, ...]) -> tuple[MemoryLine, ...]:
        """Weights, gradients and optimizer states of a rank that holds pieces of these shapes, under the ZeRO stage."""
        zero, split = workload.zero_stage, self.split
        lines, gradients, optimizer = [], 0.0, 0.0
        for parts in zip(*(self._weights(shape) for shape in shapes), strict=True):
            name, count = parts[0][0], sum(share.count for _, share in parts)
            # An expert's replicas are one per instance; everything else is replicated over attention ranks too.
            sharers = split.instances * copies(workload) * (1 if name == "expert weights" else split.dp)
            size = sum(share.bytes for _, share in parts)
            lines.append(MemoryLine(name, size / (sharers if zero >= 3 else 1)))
            gradients += count * workload.gradient_bytes_per_parameter / (sharers if zero >= 2 else 1)
            optimizer += count * workload.optimizer_bytes_per_parameter / (sharers if zero >= 1 else 1)
        return (
            *lines,
            MemoryLine("gradients", gradients),
            MemoryLine("optimizer states", optimizer),
        )

    def _buffers(self, batch: int) -> float:
        """All-to-all buffers of experts, and those of tensor-parallel collectives."""
        workload, tp = self.scenario.workload, self.split.tp
        # Tokens of a GPU in a decode step, and in the largest pass.
        if workload.kind == "training":
            step, bulk = 0.0, workload.microbatch * workload.sequence / tp
        else:
            step = batch * self._each / decode_microbatches(self.split.pp, batch) / tp
            bulk = max(prefill_tokens(self.scenario, workload, tp) / tp, step)
        model, split, constants = self.scenario.model, self.split, self.efficiency
        copies = constants.buffer_copies.value
        total = 0.0
        if split.ep > 1:
            sent = max(moe.sent_width(model.hidden) for moe in model.moe_kinds)
            pair = message_bytes(sent, self.scenario.dispatch_type, constants)
            pair += message_bytes(sent, model.types.combine, constants)
            # Low-latency kernels keep room for every token at every physical expert; bulk ones for a token's copies.
            total += copies * pair * split.slots * min(step, constants.low_latency_tokens.value)
            total += copies * pair * bulk * min(model.moe.computed_top_k, split.ep)
        if split.tp > 1 or split.etp > 1:
            total += copies * bulk * max(split.tp, split.etp) * model.hidden * PLAIN_BYTES
        return total


def memory_of(scenario: Scenario, split: Split, efficiency: Efficiency | None = None) -> MemoryReport:
    """HBM by line of one GPU in the fullest stage.

    Lines: attention weights, norms, dense FFN weights, router, expert weights, shared experts, embedding and head; KV
    cache (serving), or gradients and optimizer states (training); activations; communication buffers; framework
    reserve.
    """
    return MemoryModel(scenario, split, efficiency).report()
