"""Seconds of one pass of tokens through a layer of each kind, and through each pipeline stage."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.layer.balanced import BalancedLayer
from placement.cost.layer.scenario_rates import layer_rates, topology_of
from placement.cost.memory.local import local_attention_parameters, stored_tokens
from placement.cost.step.collectives import all_gather_s, stage_transfer_s
from placement.cost.step.compute import Product, Roofline, decode_attention_s, prefill_attention_s
from placement.cost.step.kernels import KernelTables
from placement.problem.engine_rules import message_rule
from placement.problem.pieces import StageShape, StageTable, stage_table
from placement.problem.schedule import piece_count
from placement.problem.split import Split
from specs.engine import MessageRule
from specs.fields import DataType
from specs.parameters import dense_ffn_parameters, router_parameters, shared_parameters
from specs.scenario import Scenario
from specs.workload import Phase

WIDE_BYTES = 2.0


@dataclass(frozen=True)
class LayerTimes:
    """Seconds of one layer's parts for one pass.

    Attributes:
        projections: attention's products; router, shared, dense_ffn: the other dense products.
        core_full, core_sliding: attention cores.
        moe: dispatch, experts and combine.
        moe_collectives, dense_collectives: tensor-parallel gathers and scatters of a layer of either kind.
        overhead: launches and element-wise work, of every layer.
        head: the output head of the last stage.
        transfer: hidden states to the next stage.
    """

    projections: float
    core_full: float
    core_sliding: float
    router: float
    shared: float
    dense_ffn: float
    moe: float
    moe_collectives: float
    dense_collectives: float
    overhead: float
    head: float
    transfer: float

    def stage_s(self, shape: StageShape) -> float:
        """Seconds of a stage."""
        time = shape.layers * (self.projections + self.overhead)
        time += shape.full * self.core_full + shape.sliding * self.core_sliding
        time += shape.moe * (self.router + self.shared + self.moe + self.moe_collectives)
        time += shape.dense * (self.dense_ffn + self.dense_collectives)
        return time + (self.head if shape.last else self.transfer)


class PassModel:
    """Times passes under one split; immutable after construction.

    Every product and rate is worked out once, so that a search over batches costs a few multiplications each.
    """

    def __init__(
        self,
        scenario: Scenario,
        split: Split,
        efficiency: Efficiency | None = None,
        kernels: KernelTables | None = None,
    ) -> None:
        """`kernels`: measured expert times, used where they cover the split."""
        self.scenario = scenario
        self.efficiency = efficiency or efficiency_of(scenario)
        model, cluster, tp = scenario.model, scenario.cluster, split.tp
        self.roofline = Roofline.of(cluster.gpu, self.efficiency)
        types = model.types
        self._projections = self._product(local_attention_parameters(model, tp), types.attention)
        self._dense = self._product(dense_ffn_parameters(model) / tp, types.dense)
        self._shared = self._product(shared_parameters(model) / tp, types.dense)
        self._router = self._product(router_parameters(model), "bf16" if "bf16" in cluster.gpu.peak_tflops else "fp16")
        self._head = self._product(model.vocabulary * model.hidden / tp, types.embedding)
        # The tables know one copy of each expert.
        curve = kernels.curve(scenario, split) if kernels is not None and split.redundant == 0 else None
        phase: Phase = "train" if scenario.workload.kind == "training" else "prefill"
        rates, topology = layer_rates(scenario, split, phase, 1.0, self.efficiency), topology_of(scenario, split)

        def layer(rule: MessageRule) -> BalancedLayer:
            made = BalancedLayer.of(
                rates, topology, split.slots_per_gpu, model.moe.experts, model.moe.top_k, rule,
                self.efficiency.routing_shape.value,
            )  # fmt: skip
            return replace(made, curve=curve)

        #: The MoE layer of prefill or training passes, and that of decode: their messages differ.
        self.layer = layer(message_rule(scenario, split, phase))
        self.decode_layer = layer(message_rule(scenario, split, "decode"))
        training = scenario.workload.kind == "training"
        #: Times that a GPU reads or writes each token's hidden state in a layer; training shares tokens over tp.
        self._moves = (
            self.efficiency.elementwise_passes.value / tp if training else self.efficiency.serving_passes.value
        )
        self._hidden_bytes = model.hidden * WIDE_BYTES
        pieces = piece_count(scenario.workload, split.pp)
        self._lay(split, stage_table(model, pieces, split.cut))

    def at_depth(self, split: Split, stages: StageTable) -> PassModel:
        """The model of a split that differs in pp, batch and instances alone; all else is shared."""
        other = copy(self)
        other._lay(split, stages)
        return other

    def _lay(self, split: Split, table: StageTable) -> None:
        self.split = split
        #: Distinct stages with their number.
        self.stages = tuple(
            (table.shapes[first], count) for first, count in zip(table.distinct, table.counts, strict=True)
        )
        self._crosses = split.gpus_per_instance > self.scenario.cluster.gpus_per_node

    def decode(self, sequences: float, context: float, moe_s: float | None = None) -> LayerTimes:
        """A decode step of a microbatch of `sequences` per attention rank.

        Args:
            context: stored tokens of a sequence.
            moe_s: seconds of an MoE layer; None takes the balanced estimate.
        """
        model, tp = self.scenario.model, self.split.tp
        full = sequences * decode_attention_s(self.roofline, model, tp, context)
        sliding = sequences * decode_attention_s(self.roofline, model, tp, stored_tokens(model, context))
        return self._times(sequences, full, sliding, sequences, moe_s, self.decode_layer)

    def prompt(self, tokens: float, length: float, head_tokens: float, moe_s: float | None = None) -> LayerTimes:
        """A pass of `tokens` per attention rank that belong to sequences of `length` tokens.

        The attention core costs a pass its share of the sequence; `head_tokens` reach the output head.
        """
        model, tp = self.scenario.model, self.split.tp
        share = tokens / length
        full = share * prefill_attention_s(self.roofline, model, tp, length)
        window = float(model.sliding.window) if model.sliding is not None else None
        sliding = share * prefill_attention_s(self.roofline, model, tp, length, window)
        return self._times(tokens, full, sliding, head_tokens, moe_s, self.layer)

    @property
    def moe_source(self) -> str:
        """Where the times of MoE layers come from."""
        return self.layer.curve.source if self.layer.curve is not None else "balanced estimate"

    def moe_s(self, tokens: float, phase: Phase = "prefill") -> float:
        """Balanced estimate of an MoE layer of a phase when an attention rank holds `tokens`."""
        return self._moe_s(self.decode_layer if phase == "decode" else self.layer, tokens)

    def _moe_s(self, layer: BalancedLayer, tokens: float) -> float:
        return layer.seconds(tokens / self.split.tp * self.split.etp)

    def stage_seconds(self, times: LayerTimes) -> tuple[float, float]:
        """(sum over stages, slowest stage)."""
        total, slowest = 0.0, 0.0
        for shape, count in self.stages:
            seconds = times.stage_s(shape)
            total += count * seconds
            slowest = max(slowest, seconds)
        return total, slowest

    def _product(self, parameters: float, data_type: DataType) -> Product:
        return Product.of(self.roofline, parameters, data_type)

    def _times(
        self, tokens: float, core_full: float, core_sliding: float, head_tokens: float, moe_s: float | None,
        layer: BalancedLayer,
    ) -> LayerTimes:  # fmt: skip
        tp = self.split.tp
        state = tokens * self._hidden_bytes
        moves = self._moves * state / self.roofline.hbm_bytes_per_s
        gather = all_gather_s(self.scenario.cluster, self.efficiency, tp, state)
        return LayerTimes(
            projections=self._projections.seconds(tokens),
            core_full=core_full,
            core_sliding=core_sliding,
            router=self._router.seconds(tokens / tp),
            shared=self._shared.seconds(tokens),
            dense_ffn=self._dense.seconds(tokens),
            moe=self._moe_s(layer, tokens) if moe_s is None else moe_s,
            # Scatter after attention and gather before the next, with experts on scattered tokens in between.
            moe_collectives=2 * gather + self._expert_collectives_s(layer, tokens),
            dense_collectives=4 * gather,
            overhead=self.efficiency.layer_overhead_s.value + moves,
            head=self._head.seconds(head_tokens),
            transfer=self._transfer_s(state / tp),
        )

    def _expert_collectives_s(self, layer: BalancedLayer, tokens: float) -> float:
        """Gather of received tokens over the GPUs of an expert-parallel rank, and scatter of their outputs."""
        etp = self.split.etp
        if etp == 1:
            return 0.0
        received = layer.received(tokens / self.split.tp * etp) * self._hidden_bytes
        return 2 * all_gather_s(self.scenario.cluster, self.efficiency, etp, received)

    def _transfer_s(self, size_bytes: float) -> float:
        """Hidden states to the next stage; over the slow link where an instance is larger than a node."""
        if self.split.pp == 1:
            return 0.0
        cluster, stage = self.scenario.cluster, self.split.gpus_per_stage
        edge = cluster.gpus_per_node // stage - 1 if self._crosses and stage < cluster.gpus_per_node else 0
        return stage_transfer_s(cluster, stage, edge, size_bytes)
