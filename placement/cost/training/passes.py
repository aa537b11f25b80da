"""Seconds of a microbatch's training passes through each kind of layer (docs/cost-model.md, "Training").

Forward (F), backward for inputs (B) and backward for weights (W) are timed apart, and messages apart from compute,
since schedules move W and hide messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from placement.cost.layer.balanced import BalancedLayer, balanced_messages
from placement.cost.layer.messages import MESSAGE_RULES
from placement.cost.memory.local import total_of
from placement.cost.memory.recompute import ModeCounts
from placement.cost.step.pass_times import WIDE_BYTES, BlockTimes, LayerTimes, PassModel
from placement.cost.training.constants import TrainingConstants
from placement.problem.engine_rules import message_rule
from placement.problem.pieces import Counts, StageShape
from placement.problem.topology import Topology
from specs.blocks.ffn import Moe
from specs.blocks.run import Block
from specs.engine import MessageRule
from specs.fields import DataType, bytes_of
from specs.parameters import count_block
from specs.workload import TrainingWorkload


@dataclass(frozen=True)
class PassSeconds:
    """Seconds of one microbatch's passes through some layers of one GPU.

    Attributes:
        forward_s, input_s, weight_s: compute of the forward pass, and of the backward passes for inputs (with what is
            computed again) and for weights.
        forward_messages_s, backward_messages_s: messages of each direction.
    """

    forward_s: float = 0.0
    input_s: float = 0.0
    weight_s: float = 0.0
    forward_messages_s: float = 0.0
    backward_messages_s: float = 0.0

    def __add__(self, other: PassSeconds) -> PassSeconds:
        return PassSeconds(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def times(self, factor: float) -> PassSeconds:
        """All parts multiplied."""
        return PassSeconds(*(part * factor for part in vars(self).values()))

    @property
    def compute_s(self) -> float:
        return self.forward_s + self.input_s + self.weight_s

    @property
    def messages_s(self) -> float:
        return self.forward_messages_s + self.backward_messages_s

    @property
    def serial_s(self) -> float:
        """Everything one after the other."""
        return self.compute_s + self.messages_s


@dataclass(frozen=True)
class LayerPasses:
    """Passes of a microbatch.

    Attributes:
        blocks: [kinds] through one layer of each of Model.kinds; head: the output head; transfer: hidden states to the
            next stage and back.
        selective_s: [kinds] what a layer computes again under recompute "selective".
    """

    blocks: tuple[PassSeconds, ...]
    head: PassSeconds
    transfer: PassSeconds
    selective_s: tuple[float, ...]

    def layers(self, counts: Counts) -> PassSeconds:
        """Passes through so many layers of each kind, none of which computes anything again."""
        total = PassSeconds()
        for each, count in zip(self.blocks, counts, strict=True):
            if count:
                total += each.times(count)
        return total

    def again(self, modes: ModeCounts) -> PassSeconds:
        """What layers compute (and send) again before their backward pass."""
        _, selective, full = modes
        whole = self.layers(full)
        return PassSeconds(
            input_s=whole.forward_s + total_of(self.selective_s, selective),
            backward_messages_s=whole.forward_messages_s,
        )

    def piece(self, shape: StageShape, modes: ModeCounts) -> PassSeconds:
        """Passes through a piece of the model, with the head or the transfer at its end."""
        return self.layers(shape.counts) + self.again(modes) + (self.head if shape.last else self.transfer)


def group_limited(layer: BalancedLayer, topology: Topology, moe: Moe, rule: MessageRule) -> BalancedLayer:
    """The balanced layer with messages of group-limited routing (arXiv 2412.19437, section 2.1.2).

    A token draws `top_groups` of the groups, then its experts from those. Left alone where groups lie across the edges
    of nodes, or copies are counted.
    """
    nodes = topology.nodes
    if moe.top_groups >= moe.groups or moe.groups % nodes or MESSAGE_RULES[rule].counts != "touches":
        return layer

    def chance(parts: int) -> float:
        """That a token touches one of `parts` equal parts of the experts."""
        held = moe.experts / parts
        drawn = moe.experts // moe.groups * moe.top_groups
        if held <= moe.experts / moe.groups:
            return moe.top_groups / moe.groups * _within(held, drawn, moe.top_k)
        whole, each = moe.groups // parts, moe.experts // moe.groups
        return sum(
            math.comb(whole, j) * math.comb(moe.groups - whole, moe.top_groups - j)
            / math.comb(moe.groups, moe.top_groups) * _within(j * each, drawn, moe.top_k)
            for j in range(1, min(whole, moe.top_groups) + 1)
        )  # fmt: skip

    fast, slow, reach = balanced_messages(rule, topology, moe.top_k, chance(topology.gpus), chance(nodes))
    return replace(layer, reach=reach, slow_messages=slow, fast_messages=fast)


def _within(held: float, drawn: float, top_k: int) -> float:
    """Chance that one of `top_k` distinct experts out of `drawn` is among `held` of these."""
    miss = 1.0
    for i in range(top_k):
        miss *= max(0.0, 1.0 - held / (drawn - i))
    return 1.0 - miss


def layer_passes(
    passes: PassModel,
    topology: Topology,
    workload: TrainingWorkload,
    training: TrainingConstants,
    moe_s: float | None = None,
) -> tuple[LayerPasses, LayerTimes]:
    """Passes of a microbatch by kind of layer, and the parts of its forward pass as a step breakdown takes them.

    Args:
        passes: timing of forward passes, under `pass_constants`.
        topology: the expert-parallel ranks.
        moe_s: seconds of a scored MoE layer's forward pass; None takes the balanced estimate with `routing_imbalance`.

    Input gradients cost the forward products, weight gradients the same work at `weight_matmul`; an attention core
    costs `attention_backward_flops` and has no weights; element-wise work doubles. Messages go back as they came. A
    scored time is divided into messages and experts as the estimate divides it.
    """
    model, types = passes.scenario.model, passes.scenario.model.types
    tokens = float(workload.microbatch * workload.sequence)
    times = passes.prompt(tokens, workload.sequence, tokens, 0.0)
    one = _OnePass(passes, topology, tokens, training, moe_s)
    parts = [one.block(block, part) for block, part in zip(model.kinds, times.blocks, strict=True)]
    return (
        LayerPasses(
            blocks=tuple(seconds for seconds, _ in parts),
            head=_product(times.head, types.embedding, training),
            transfer=PassSeconds(forward_messages_s=times.transfer, backward_messages_s=times.transfer),
            selective_s=tuple(
                one.selective_s(block, part) for block, part in zip(model.kinds, times.blocks, strict=True)
            ),
        ),
        replace(
            times,
            blocks=tuple(replace(part, moe=moe) for part, (_, moe) in zip(times.blocks, parts, strict=True)),
        ),
    )


@dataclass(frozen=True)
class _OnePass:
    """A microbatch of `tokens` under one split and its constants."""

    passes: PassModel
    topology: Topology
    tokens: float
    training: TrainingConstants
    moe_s: float | None

    def block(self, block: Block, times: BlockTimes) -> tuple[PassSeconds, float]:
        """(passes through one layer of a kind, seconds of its MoE layer's forward pass)."""
        training, model = self.training, self.passes.scenario.model
        types, moe = model.types, model.moe_of(block)
        core = training.attention_backward_flops.value
        core *= training.attention_matmul.value / training.attention_backward_matmul.value
        operands = self._operands(block)
        total = _product(times.projections, types.attention, training)
        total += PassSeconds(times.overhead, 2 * times.overhead, operands.attention)
        total += PassSeconds(times.core, times.core * core)
        total += PassSeconds(forward_messages_s=times.collectives, backward_messages_s=times.collectives)
        if moe is None:
            return total + _product(times.dense, types.dense, training) + PassSeconds(weight_s=operands.dense), 0.0
        total += _product(times.shared, types.dense, training) + _product(times.router, "bf16", training)
        split, scenario = self.passes.split, self.passes.scenario
        ranked = self.tokens / split.tp * split.etp
        layer = self._layer(block, moe)
        experts, messages = layer.experts_s(ranked), layer.messages_s(ranked)
        factor = training.routing_imbalance.value
        if self.moe_s is not None:
            together = max(experts, messages) if scenario.overlap_in_use == "two_batch" else experts + messages
            factor = self.moe_s / together if together > 0 else 0.0
        elif layer.ranks == 1:
            factor = 1.0
        experts, messages = experts * factor, messages * factor
        routed = WIDE_BYTES * ranked * moe.computed_top_k * moe.sent_width(model.hidden)
        routed *= training.routed_passes.value / self.passes.roofline.hbm_bytes_per_s * factor
        shown = max(0.0, messages - (experts if scenario.overlap_in_use == "two_batch" else 0.0))
        total += PassSeconds(
            experts + routed,
            experts + 2 * routed,
            experts * _weight_ratio(types.multiplied, training, grouped=True)
            + operands.dense
            + operands.routed * factor,
            shown,
            shown,
        )
        return total, experts + routed + shown

    def _layer(self, block: Block, moe: Moe) -> BalancedLayer:
        """The balanced layer of a kind, group-limited where the model is."""
        rule = message_rule(self.passes.scenario, self.passes.split, "train")
        return group_limited(self.passes.balanced(block), self.topology, moe, rule)

    def _operands(self, block: Block) -> _Operands:
        """Seconds to lay out the operands of 8-bit weight gradients along tokens. Wider types are multiplied as they
        lie."""
        model, split = self.passes.scenario.model, self.passes.split
        mixer, ffn, moe, types = model.mixer_of(block), model.ffn_of(block), model.moe_of(block), model.types
        each = self.training.operand_bytes.value * self.tokens / split.tp / self.passes.roofline.hbm_bytes_per_s

        def narrow(data_type: DataType) -> float:
            return each if bytes_of(data_type) <= 1 else 0.0

        def flat(hidden: int, width: float, gated: bool) -> float:
            return 2 * hidden + (3 if gated else 2) * width

        attention = dense = routed = 0.0
        if mixer is not None:
            # Elements per token of the inputs and outputs of all projections, beside the hidden states.
            attention = narrow(types.attention) * (2 * model.hidden + mixer.operand_elements())
        if ffn is not None and ffn.inner_width:
            dense = narrow(types.dense) * flat(model.hidden, ffn.inner_width, ffn.gated)
        if moe is not None:
            copies = moe.computed_top_k * split.etp
            sent = moe.sent_width(model.hidden)
            routed = narrow(types.multiplied) * copies * flat(sent, moe.expert_width / split.etp, moe.gated)
        return _Operands(attention, dense, routed)

    def selective_s(self, block: Block, times: BlockTimes) -> float:
        """Norms, the activation's product and, in MLA, the up-projections (arXiv 2412.19437, section 3.2.3)."""
        model = self.passes.scenario.model
        mixer, again = model.mixer_of(block), times.overhead / 2
        if mixer is not None and mixer.again():
            again += times.projections * mixer.again() / count_block(model, block).attention
        return again


@dataclass(frozen=True)
class _Operands:
    """Seconds to lay out operands: of attention, of the dense or shared block, of the routed experts."""

    attention: float
    dense: float
    routed: float


def _weight_ratio(data_type: DataType, training: TrainingConstants, grouped: bool = False) -> float:
    """Seconds of a weight gradient over those of the forward product."""
    share = training.expert_matmul if grouped else training.matmul
    return share.value[data_type] / training.weight_matmul.value[data_type]


def _product(forward_s: float, data_type: DataType, training: TrainingConstants) -> PassSeconds:
    return PassSeconds(forward_s, forward_s, forward_s * _weight_ratio(data_type, training))
