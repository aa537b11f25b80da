"""Seconds of one pass of tokens through a layer of each kind, and through each pipeline stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.layer.balanced import BalancedLayer
from placement.cost.layer.scenario_rates import layer_rates, topology_of
from placement.cost.step.collectives import all_gather_s, slowest_edge, stage_transfer_s
from placement.cost.step.compute import Product, Roofline, decode_core_s, prefill_core_s
from placement.cost.step.kernels import KernelTables
from placement.problem.engine_rules import message_rule
from placement.problem.pieces import StageShape, StageTable, stage_table
from placement.problem.schedule import piece_count
from placement.problem.split import Split
from specs.blocks.ffn import Moe
from specs.blocks.run import Block
from specs.engine import MessageRule
from specs.parameters import Part, TypedWeight, block_weights
from specs.scenario import Scenario
from specs.workload import Phase

WIDE_BYTES = 2.0
_FFN_PARTS: tuple[Part, ...] = ("router", "shared", "dense")


@dataclass(frozen=True)
class BlockTimes:
    """Seconds of one layer's parts for one pass.

    Attributes:
        projections: the mixer's products; router, shared, dense: the other dense products.
        core: the mixer beside its products.
        moe: dispatch, experts and combine.
        collectives: tensor-parallel gathers and scatters.
        overhead: launches and element-wise work.
    """

    projections: float = 0.0
    core: float = 0.0
    router: float = 0.0
    shared: float = 0.0
    dense: float = 0.0
    moe: float = 0.0
    collectives: float = 0.0
    overhead: float = 0.0

    @property
    def seconds(self) -> float:
        """All parts."""
        products = self.projections + self.router + self.shared + self.dense
        return products + self.core + self.moe + self.collectives + self.overhead

    def and_ffn(self, ffn: BlockTimes) -> BlockTimes:
        """A mixer's times with those of the feed-forward block after it."""
        return BlockTimes(
            self.projections, self.core, ffn.router, ffn.shared, ffn.dense, ffn.moe,
            self.collectives + ffn.collectives, self.overhead + ffn.overhead,
        )  # fmt: skip


@dataclass(frozen=True)
class _Ffn:
    """A feed-forward block under one split: its products, and its experts in prefill or training and in decode."""

    router: Product
    shared: Product
    dense: Product
    experts: BalancedLayer | None
    in_decode: BalancedLayer | None


@dataclass(frozen=True)
class LayerTimes:
    """Seconds of one pass.

    Attributes:
        blocks: [kinds] of one layer of each of Model.kinds.
        head: the output head of the last stage.
        transfer: hidden states to the next stage.
    """

    blocks: tuple[BlockTimes, ...]
    head: float
    transfer: float

    def stage_s(self, shape: StageShape) -> float:
        """Seconds of a stage."""
        time = self.head if shape.last else self.transfer
        for count, seconds in zip(shape.counts, self._seconds, strict=True):
            time += count * seconds
        return time

    @cached_property
    def _seconds(self) -> tuple[float, ...]:
        return tuple(block.seconds for block in self.blocks)

    def part(self, name: str, counts: Sequence[float]) -> float:
        """Seconds of one part of so many layers of each kind."""
        return float(sum(count * getattr(block, name) for count, block in zip(counts, self.blocks, strict=True)))


class PassModel:
    """Times passes under one split; what it is asked for never changes what it answers.

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
        self.roofline, self._tp = Roofline.of(cluster.least_gpu, self.efficiency), tp
        self._head = Product.of(self.roofline, model.vocabulary * model.hidden / tp, model.types.embedding)
        weights = {block: block_weights(model, block) for block in model.kinds}
        self._mixers = {
            block.mixer: (model.mixers[block.mixer], self._product(each, "attention"))
            for block, each in weights.items()
            if block.mixer is not None
        }
        self._ffns = {
            block.ffn: self._ffn(split, block, each, kernels)
            for block, each in weights.items()
            if block.ffn is not None
        }
        #: Balanced layers of Model.moe_block: of prefill or training passes, and of decode, whose messages differ.
        self.layer, self.decode_layer = self._balanced(split, model.moe_block, model.moe, kernels)
        training = scenario.workload.kind == "training"
        #: Times that a GPU reads or writes each token's hidden state in a layer; training shares tokens over tp.
        self._moves = (
            self.efficiency.elementwise_passes.value / tp if training else self.efficiency.serving_passes.value
        )
        self._hidden_bytes = model.hidden * WIDE_BYTES
        #: Seconds of each mixer's core for one token that decodes at a context, and for one whole prompt, by length.
        self._decode_cores: dict[float, dict[str, float]] = {}
        self._prompt_cores: dict[float, dict[str, float]] = {}
        pieces = piece_count(scenario.workload, split.pp)
        self._lay(split, stage_table(model, pieces, split.cut))

    def _product(self, weights: Sequence[TypedWeight], part: Part) -> Product:
        return Product.of_weights(self.roofline, (each for each in weights if each.part == part), self._tp)

    def _ffn(self, split: Split, block: Block, weights: Sequence[TypedWeight], kernels: KernelTables | None) -> _Ffn:
        moe = self.scenario.model.moe_of(block)
        experts, in_decode = (None, None) if moe is None else self._balanced(split, block, moe, kernels)
        router, shared, dense = (self._product(weights, part) for part in _FFN_PARTS)
        return _Ffn(router, shared, dense, experts, in_decode)

    def balanced(self, block: Block) -> BalancedLayer:
        """The balanced MoE layer of a kind, in prefill or training."""
        known = self._ffns[block.ffn].experts if block.ffn is not None else None
        return self.layer if known is None else known

    def _balanced(
        self, split: Split, block: Block, moe: Moe, kernels: KernelTables | None
    ) -> tuple[BalancedLayer, BalancedLayer]:
        """The layer of a kind in prefill or training, and in decode."""
        scenario = self.scenario
        # The tables know one copy of each expert.
        curve = kernels.curve(scenario, split, moe) if kernels is not None and split.redundant == 0 else None
        phase: Phase = "train" if scenario.workload.kind == "training" else "prefill"
        rates = layer_rates(scenario, split, phase, 1.0, self.efficiency, block)
        topology, shape = topology_of(scenario, split), self.efficiency.routing_shape.value

        def layer(rule: MessageRule) -> BalancedLayer:
            made = BalancedLayer.of(
                rates,
                topology,
                split.width_of(scenario.model, block),
                moe.experts,
                moe.computed_top_k,
                rule,
                shape,
            )
            return replace(made, curve=curve)

        bulk, step = message_rule(scenario, split, phase), message_rule(scenario, split, "decode")
        first = layer(bulk)
        return first, first if step == bulk else layer(step)

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

    def decode(self, sequences: float, context: float, moe_s: float | None = None) -> LayerTimes:
        """A decode step of a microbatch of `sequences` per attention rank.

        Args:
            context: stored tokens of a sequence.
            moe_s: seconds of an MoE layer; None takes the balanced estimate.
        """
        if context not in self._decode_cores:
            types, tp = self.scenario.model.types, self.split.tp
            self._decode_cores[context] = {
                name: decode_core_s(self.roofline, mixer, types, tp, context)
                for name, (mixer, _) in self._mixers.items()
            }
        cores = {name: sequences * seconds for name, seconds in self._decode_cores[context].items()}
        return self._times(sequences, cores, sequences, moe_s, in_decode=True)

    def prompt(self, tokens: float, length: float, head_tokens: float, moe_s: float | None = None) -> LayerTimes:
        """A pass of `tokens` per attention rank that belong to sequences of `length` tokens.

        The attention core costs a pass its share of the sequence; `head_tokens` reach the output head.
        """
        if length not in self._prompt_cores:
            self._prompt_cores[length] = {
                name: prefill_core_s(self.roofline, mixer, self.split.tp, length)
                for name, (mixer, _) in self._mixers.items()
            }
        share = tokens / length
        cores = {name: share * seconds for name, seconds in self._prompt_cores[length].items()}
        return self._times(tokens, cores, head_tokens, moe_s)

    @property
    def moe_source(self) -> str:
        """Where the times of MoE layers come from."""
        return self.layer.curve.source if self.layer.curve is not None else "balanced estimate"

    def moe_s(self, tokens: float, phase: Phase = "prefill") -> float:
        """Balanced estimate of a layer of Model.moe_block in a phase when an attention rank holds `tokens`."""
        return (self.decode_layer if phase == "decode" else self.layer).seconds(self._ranked(tokens))

    def _ranked(self, tokens: float) -> float:
        """Tokens of an expert-parallel rank where an attention rank holds `tokens`."""
        return tokens / self.split.tp * self.split.etp

    def stage_seconds(self, times: LayerTimes) -> tuple[float, float]:
        """(sum over stages, slowest stage)."""
        total, slowest = 0.0, 0.0
        for shape, count in self.stages:
            seconds = times.stage_s(shape)
            total += count * seconds
            slowest = max(slowest, seconds)
        return total, slowest

    def _times(
        self,
        tokens: float,
        cores: Mapping[str, float],
        head_tokens: float,
        moe_s: float | None,
        in_decode: bool = False,
    ) -> LayerTimes:
        tp, streams, model = self.split.tp, self.scenario.model.streams, self.scenario.model
        state = tokens * self._hidden_bytes
        moves = self._moves * streams * state / self.roofline.hbm_bytes_per_s
        # A gather before a mixer or a dense block, a scatter after it; experts work on scattered tokens.
        gather = 2 * all_gather_s(self.scenario.cluster, self.efficiency, tp, state)
        # Of a layer of both parts.
        overhead = (self.efficiency.layer_overhead_s.value + moves) / 2

        def ffn(part: _Ffn) -> BlockTimes:
            experts = part.in_decode if in_decode else part.experts
            if experts is None:
                return BlockTimes(dense=part.dense.seconds(tokens), collectives=gather, overhead=overhead)
            return BlockTimes(
                router=part.router.seconds(tokens / tp),
                shared=part.shared.seconds(tokens),
                moe=experts.seconds(self._ranked(tokens)) if moe_s is None else moe_s,
                collectives=self._expert_collectives_s(experts, tokens),
                overhead=overhead,
            )

        nothing = BlockTimes()
        mixers = {
            name: BlockTimes(product.seconds(tokens), cores[name], collectives=gather, overhead=overhead)
            for name, (_, product) in self._mixers.items()
        }
        ffns = {name: ffn(part) for name, part in self._ffns.items()}
        return LayerTimes(
            blocks=tuple(
                mixers.get(block.mixer or "", nothing).and_ffn(ffns.get(block.ffn or "", nothing))
                for block in model.kinds
            ),
            head=self._head.seconds(head_tokens),
            transfer=self._transfer_s(streams * state / tp),
        )

    def _expert_collectives_s(self, layer: BalancedLayer, tokens: float) -> float:
        """Gather of received tokens over the GPUs of an expert-parallel rank, and scatter of their outputs."""
        if self.split.etp == 1:
            return 0.0
        received = layer.received(self._ranked(tokens)) * self._hidden_bytes
        return 2 * all_gather_s(self.scenario.cluster, self.efficiency, self.split.etp, received)

    def _transfer_s(self, size_bytes: float) -> float:
        """Hidden states to the next stage, at the edge where that is slowest."""
        if self.split.pp == 1:
            return 0.0
        cluster, stage = self.scenario.cluster, self.split.gpus_per_stage
        return stage_transfer_s(cluster, stage, slowest_edge(cluster, stage, self.split.pp), size_bytes)
