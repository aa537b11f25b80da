"""Seconds of a microbatch's training passes through each kind of layer (docs/cost-model.md, "Training").

Forward (F), backward for inputs (B) and backward for weights (W) are timed apart, and messages apart from compute,
since schedules move W and hide messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from placement.cost.layer.balanced import BalancedLayer, balanced_messages
from placement.cost.layer.messages import MESSAGE_RULES
from placement.cost.memory.recompute import LayerCounts, ModeCounts
from placement.cost.step.pass_times import WIDE_BYTES, LayerTimes, PassModel
from placement.cost.training.constants import TrainingConstants
from placement.problem.engine_rules import message_rule
from placement.problem.pieces import StageShape
from placement.problem.topology import Topology
from specs.engine import MessageRule
from specs.fields import DataType, bytes_of
from specs.model import MlaAttention, Model
from specs.parameters import attention_parameters
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
        return PassSeconds(
            self.forward_s + other.forward_s,
            self.input_s + other.input_s,
            self.weight_s + other.weight_s,
            self.forward_messages_s + other.forward_messages_s,
            self.backward_messages_s + other.backward_messages_s,
        )

    def times(self, factor: float) -> PassSeconds:
        """All parts multiplied."""
        return PassSeconds(
            self.forward_s * factor,
            self.input_s * factor,
            self.weight_s * factor,
            self.forward_messages_s * factor,
            self.backward_messages_s * factor,
        )

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
    """Passes by part of a layer; a layer is base + one core + one feed-forward block.

    Attributes:
        base: projections, norms and launches of every layer; full, sliding: attention cores; dense, moe: feed-forward
            blocks with their collectives; head: the output head; transfer: hidden states to the next stage and back.
        selective_s: what a layer computes again under recompute "selective".
    """

    base: PassSeconds
    full: PassSeconds
    sliding: PassSeconds
    dense: PassSeconds
    moe: PassSeconds
    head: PassSeconds
    transfer: PassSeconds
    selective_s: float

    def layers(self, counts: LayerCounts | StageShape) -> PassSeconds:
        """Passes through layers, none of which computes anything again."""
        total = self.base.times(counts.full + counts.sliding)
        for each, count in (
            (self.full, counts.full),
            (self.sliding, counts.sliding),
            (self.dense, counts.dense),
            (self.moe, counts.moe),
        ):
            if count:
                total += each.times(count)
        return total

    def again(self, modes: ModeCounts) -> PassSeconds:
        """What layers compute (and send) again before their backward pass."""
        _, selective, full = modes
        whole = self.layers(full)
        return PassSeconds(
            input_s=whole.forward_s + selective.layers * self.selective_s,
            backward_messages_s=whole.forward_messages_s,
        )

    def piece(self, shape: StageShape, modes: ModeCounts) -> PassSeconds:
        """Passes through a piece of the model, with the head or the transfer at its end."""
        return self.layers(shape) + self.again(modes) + (self.head if shape.last else self.transfer)


def group_limited(layer: BalancedLayer, topology: Topology, model: Model, rule: MessageRule) -> BalancedLayer:
    """The balanced layer with messages of group-limited routing (arXiv 2412.19437, section 2.1.2).

    A token draws `top_groups` of the groups, then its experts from those. Left alone where groups lie across the edges
    of nodes, or copies are counted.
    """
    moe, nodes = model.moe, topology.nodes
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
    layer: BalancedLayer,
    workload: TrainingWorkload,
    training: TrainingConstants,
    moe_s: float | None = None,
) -> tuple[LayerPasses, LayerTimes]:
    """Passes of a microbatch by part of a layer, and the parts of its forward pass as a step breakdown takes them.

    Args:
        passes: timing of forward passes, under `pass_constants`.
        layer: the balanced MoE layer that messages and experts are timed by.
        moe_s: seconds of a scored MoE layer's forward pass; None takes the balanced estimate with `routing_imbalance`.

    Input gradients cost the forward products, weight gradients the same work at `weight_matmul`; an attention core
    costs `attention_backward_flops` and has no weights; element-wise work doubles. Messages go back as they came. A
    scored time is divided into messages and experts as the estimate divides it.
    """
    model, split, scenario = passes.scenario.model, passes.split, passes.scenario
    tokens = float(workload.microbatch * workload.sequence)
    times = passes.prompt(tokens, workload.sequence, tokens, 0.0)
    ranked = tokens / split.tp * split.etp
    experts, messages = layer.experts_s(ranked), layer.messages_s(ranked)
    factor = training.routing_imbalance.value
    if moe_s is not None:
        together = max(experts, messages) if scenario.overlap_in_use == "two_batch" else experts + messages
        factor = moe_s / together if together > 0 else 0.0
    elif layer.ranks == 1:
        factor = 1.0
    experts, messages = experts * factor, messages * factor
    hbm = passes.roofline.hbm_bytes_per_s
    routed = WIDE_BYTES * ranked * model.moe.top_k * model.hidden * training.routed_passes.value / hbm * factor
    hidden = experts if scenario.overlap_in_use == "two_batch" else 0.0
    core = training.attention_backward_flops.value
    core *= training.attention_matmul.value / training.attention_backward_matmul.value
    types = model.types
    moe = _product(times.shared, types.dense, training) + _product(times.router, "bf16", training)
    moe += PassSeconds(
        experts + routed, experts + 2 * routed, experts * _weight_ratio(types.compute, training, grouped=True)
    )
    moe += PassSeconds(
        forward_messages_s=max(0.0, messages - hidden) + times.moe_collectives,
        backward_messages_s=max(0.0, messages - hidden) + times.moe_collectives,
    )
    operands = _operand_seconds(passes, tokens, training)
    return (
        LayerPasses(
            base=_product(times.projections, types.attention, training)
            + PassSeconds(times.overhead, 2 * times.overhead, operands[0]),
            full=PassSeconds(times.core_full, times.core_full * core),
            sliding=PassSeconds(times.core_sliding, times.core_sliding * core),
            dense=_product(times.dense_ffn, types.dense, training)
            + PassSeconds(
                weight_s=operands[1],
                forward_messages_s=times.dense_collectives,
                backward_messages_s=times.dense_collectives,
            ),
            moe=moe + PassSeconds(weight_s=operands[2] + operands[3] * factor),
            head=_product(times.head, types.embedding, training),
            transfer=PassSeconds(forward_messages_s=times.transfer, backward_messages_s=times.transfer),
            selective_s=_selective_s(model, times),
        ),
        replace(times, moe=experts + routed + max(0.0, messages - hidden)),
    )


def _weight_ratio(data_type: DataType, training: TrainingConstants, grouped: bool = False) -> float:
    """Seconds of a weight gradient over those of the forward product."""
    share = training.expert_matmul if grouped else training.matmul
    return share.value[data_type] / training.weight_matmul.value[data_type]


def _product(forward_s: float, data_type: DataType, training: TrainingConstants) -> PassSeconds:
    return PassSeconds(forward_s, forward_s, forward_s * _weight_ratio(data_type, training))


def _operand_seconds(
    passes: PassModel, tokens: float, training: TrainingConstants
) -> tuple[float, float, float, float]:
    """Seconds to lay out the operands of 8-bit weight gradients along tokens: of attention, of a dense block, of the
    shared and of the routed experts of an MoE layer. Wider types are multiplied as they lie."""
    model, split = passes.scenario.model, passes.split
    moe, types, attention = model.moe, model.types, model.attention
    each = training.operand_bytes.value * tokens / split.tp / passes.roofline.hbm_bytes_per_s
    # Elements per token of the inputs and outputs of all projections, beside the hidden states.
    if isinstance(attention, MlaAttention):
        inner = 2 * ((attention.q_rank or 0) + attention.kv_rank) + attention.rope_dim
        inner += attention.heads * (2 * attention.nope_dim + attention.rope_dim + 2 * attention.value_dim)
    else:
        inner = attention.head_dim * (2 * attention.query_heads + 2 * attention.kv_heads)
    gates = 2 if moe.gated else 1

    def block(width: float) -> float:
        return 2 * model.hidden + (gates + 1) * width

    def narrow(data_type: DataType) -> float:
        return each if bytes_of(data_type) <= 1 else 0.0

    shared = moe.shared_experts * (moe.shared_width or moe.expert_width)
    return (
        narrow(types.attention) * (2 * model.hidden + inner),
        narrow(types.dense) * block(model.dense_width or 0),
        narrow(types.dense) * (block(shared) if shared else 0.0),
        narrow(types.compute) * moe.top_k * split.etp * block(moe.expert_width / split.etp),
    )


def _selective_s(model: Model, times: LayerTimes) -> float:
    """Norms, the activation's product and, in MLA, the up-projections (arXiv 2412.19437, section 3.2.3)."""
    attention = model.attention
    again = times.overhead / 2
    if isinstance(attention, MlaAttention):
        up = attention.heads * attention.kv_rank * (attention.nope_dim + attention.value_dim)
        up += attention.heads * (attention.q_rank or 0) * (attention.nope_dim + attention.rope_dim)
        again += times.projections * up / attention_parameters(model)
    return again


def training_layer(passes: PassModel, topology: Topology) -> BalancedLayer:
    """The balanced MoE layer of a training pass, group-limited where the model is."""
    rule = message_rule(passes.scenario, passes.split, "train")
    return group_limited(passes.layer, topology, passes.scenario.model, rule)
