"""Seconds of a microbatch's training passes through each kind of layer (docs/cost-model.md, "Training").

Forward (F), backward for inputs (B) and backward for weights (W) are timed apart, and messages apart from compute,
since schedules move W and hide messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from placement.cost.layer.balanced import BalancedLayer, balanced_messages
from placement.cost.layer.messages import MESSAGE_RULES
from placement.cost.memory.local import LocalBlock, total_of
from placement.cost.memory.recompute import ModeCounts
from placement.cost.step.pass_times import WIDE_BYTES, BlockTimes, LayerTimes, PassModel
from placement.cost.training.constants import TrainingConstants, is_narrow
from placement.problem.engine_rules import message_rule
from placement.problem.pieces import Counts, StageShape
from placement.problem.topology import Topology
from specs.blocks.ffn import Moe
from specs.blocks.run import Block
from specs.engine import MessageRule
from specs.fields import DataType, bytes_of
from specs.parameters import count_block
from specs.workload import TrainingWorkload

#: Rows of a tile of a matrix product: half of one is idle at the end of each expert's tokens.
TILE_ROWS = 128
#: Kernels that a forward pass launches: a mixer and a dense block; what an MoE layer adds (router, permutation,
#: dispatch, combine); for each expert of a GPU its two products, and their operands' casts and copies.
_LAUNCHES, _MOE_LAUNCHES, _EXPERT_LAUNCHES = 40, 40, 4
#: No published run has more experts of a layer on a GPU; grouped kernels launch once for all.
_MOST_EXPERTS = 32


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
    one = _OnePass(passes, topology, tokens, training, moe_s, workload.gradient_bytes_per_parameter)
    parts = [one.block(block, part) for block, part in zip(model.kinds, times.blocks, strict=True)]
    return (
        LayerPasses(
            blocks=tuple(seconds for seconds, _ in parts),
            head=one.product(times.head, types.embedding, 1.0 / model.hidden)
            + one.accumulated(model.vocabulary * model.hidden / passes.split.tp),
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
    gradient_bytes: float

    def block(self, block: Block, times: BlockTimes) -> tuple[PassSeconds, float]:
        """(passes through one layer of a kind, seconds of its MoE layer's forward pass)."""
        training, model = self.training, self.passes.scenario.model
        types, moe = model.types, model.moe_of(block)
        core = training.attention_backward_flops.value
        core *= training.attention_matmul.value / training.attention_backward_matmul.value
        operands = self._operands(block)
        held, inverse = LocalBlock.of(model, block, self.passes.split), 1.0 / model.hidden
        total = self.product(times.projections, types.attention, inverse)
        total += self.accumulated(held.without_experts + held.experts.count)
        total += PassSeconds(times.overhead, 2 * times.overhead, operands.attention)
        total += PassSeconds(times.core, times.core * core)
        total += PassSeconds(forward_messages_s=times.collectives, backward_messages_s=times.collectives)
        split, scenario, ffn = self.passes.split, self.passes.scenario, model.ffn_of(block)
        if ffn is not None:
            width = ffn.inner_width / split.tp
            activation = self._activation_s(width, ffn.gated, self.tokens)
            total += PassSeconds(activation, 2 * activation)
            inverse = _inverse(model.hidden, width, ffn.gated)
        if moe is None:
            total += self.product(times.dense, types.dense, inverse) + PassSeconds(weight_s=operands.dense)
            return self._launched(total, _LAUNCHES), 0.0
        total += self.product(times.shared, types.dense, inverse) + self.product(times.router, "bf16", 0.0)
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
        width, sent = moe.expert_width / split.etp, moe.sent_width(model.hidden)
        copies = ranked * moe.computed_top_k
        routed = WIDE_BYTES * copies * sent * training.routed_passes.value / self.passes.roofline.hbm_bytes_per_s
        routed = factor * (routed + self._activation_s(width, moe.gated, copies))
        at_slot = ranked * layer.ranks * layer.slot_share
        weights = experts * training.weight_ratio(types.multiplied)
        weights *= self._start(1.0 / at_slot, types.multiplied)
        experts *= self._start(_inverse(sent, width, moe.gated), types.multiplied) * (1.0 + TILE_ROWS / 2 / at_slot)
        shown = max(0.0, messages - (experts if scenario.overlap_in_use == "two_batch" else 0.0))
        total += PassSeconds(
            experts + routed,
            experts + 2 * routed,
            weights + operands.dense + operands.routed * factor,
            shown,
            shown,
        )
        launches = _LAUNCHES + _MOE_LAUNCHES + _EXPERT_LAUNCHES * min(layer.slots_per_gpu, _MOST_EXPERTS)
        return self._launched(total, launches), experts + routed + shown

    def product(self, forward_s: float, data_type: DataType, inverse: float) -> PassSeconds:
        """A product in all three directions; `inverse`: mean of one over the elements that it sums over."""
        forward = forward_s * self._start(inverse, data_type)
        weights = forward_s * self.training.weight_ratio(data_type) * self._start(1.0 / self.tokens, data_type)
        return PassSeconds(forward, forward, weights)

    def accumulated(self, parameters: float) -> PassSeconds:
        """Gradients of so many parameters, read and written as each microbatch adds its own."""
        moved = 2 * self.gradient_bytes * parameters
        return PassSeconds(weight_s=moved / self.passes.roofline.hbm_bytes_per_s)

    def _start(self, inverse: float, data_type: DataType) -> float:
        """Seconds of a product over those of its inner loop alone: a tile's first loads and its stores cost as much as
        `contraction_bytes` more of the rows that it sums over."""
        return 1.0 + self.training.contraction_bytes.value / max(1.0, bytes_of(data_type)) * inverse

    def _activation_s(self, width: float, gated: bool, tokens: float) -> float:
        """Seconds to read gate and up (or the one product) and to write the activation."""
        moved = WIDE_BYTES * tokens * width * (3 if gated else 2)
        return moved / self.passes.roofline.hbm_bytes_per_s

    def _launched(self, passes: PassSeconds, launches: float) -> PassSeconds:
        """Passes that last no less than the host needs to launch their kernels; a backward pass has twice as many."""
        host = self.training.launch_s.value * launches
        forward = max(0.0, host - passes.forward_s - passes.forward_messages_s)
        backward = max(0.0, 2 * host - passes.input_s - passes.weight_s - passes.backward_messages_s)
        return passes + PassSeconds(forward_s=forward, input_s=backward)

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
            return each if is_narrow(data_type) else 0.0

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
        """Norms, activations and, in MLA, the up-projections (arXiv 2412.19437, section 3.2.3)."""
        model, split = self.passes.scenario.model, self.passes.split
        mixer, ffn, moe, again = model.mixer_of(block), model.ffn_of(block), model.moe_of(block), times.overhead / 2
        if mixer is not None and mixer.again():
            again += times.projections * mixer.again() / count_block(model, block).attention
        if ffn is not None:
            again += self._activation_s(ffn.inner_width / split.tp, ffn.gated, self.tokens)
        if moe is not None:
            copies = self.tokens / split.tp * moe.computed_top_k
            again += self._activation_s(moe.expert_width, moe.gated, copies)
        return again


@dataclass(frozen=True)
class _Operands:
    """Seconds to lay out operands: of attention, of the dense or shared block, of the routed experts."""

    attention: float
    dense: float
    routed: float


def _inverse(hidden: float, width: float, gated: bool) -> float:
    """Mean of one over the elements that a feed-forward block's products sum over, by their work: those into the width
    over the hidden state, the one out of it over the width."""
    into = 2 if gated else 1
    return (into / hidden + (1.0 / width if width else 0.0)) / (into + 1)
