"""Bytes of activations on one GPU: the working set of a pass, and what training keeps for the backward pass.

Activations are 16-bit. Tensor-parallel GPUs share tokens between products (sequence parallelism), so what a layer keeps
per token is split over tp.
"""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.memory.recompute import ModeCounts, mode_counts
from placement.cost.step.passes import decode_microbatches
from placement.problem.pieces import StageShape
from placement.problem.schedule import in_flight
from placement.problem.split import Split
from specs.fields import bytes_of
from specs.model import GqaAttention, MlaAttention, Model
from specs.workload import TrainingWorkload

WIDE_BYTES = 2.0
LOGIT_BYTES = 4.0


def attention_width(model: Model, tp: int) -> float:
    """Elements per token of the queries, keys, values and attention output on one GPU."""
    attention = model.attention
    if isinstance(attention, GqaAttention):
        kv = max(1.0, attention.kv_heads / tp)
        return attention.head_dim * (2 * attention.query_heads / tp + 2 * kv)
    heads = attention.heads / tp
    latent = (attention.q_rank or 0) + attention.kv_rank + attention.rope_dim
    return latent + 2 * heads * (attention.nope_dim + attention.rope_dim + attention.value_dim)


def dense_width(model: Model, tp: int) -> float:
    """Elements per token inside the widest dense or shared block on one GPU: gate, up and product."""
    moe = model.moe
    shared = moe.shared_experts * (moe.shared_width or moe.expert_width)
    dense = (model.dense_width or 0) if model.dense_layers else 0
    return 3 * max(shared, dense) / tp


def routed_width(model: Model, split: Split) -> float:
    """Elements per token of a GPU inside the routed experts, at balanced routing.

    On average a rank receives top_k copies for each token it sends; each is gathered over the rank's etp GPUs, which
    split the experts' width.
    """
    moe = model.moe
    return moe.top_k * split.etp * (2 * model.hidden + 3 * moe.expert_width / split.etp)


def layer_working_bytes(model: Model, split: Split, tokens: float, margin: float) -> float:
    """Working set of one layer for `tokens` of an attention rank; `margin` over the balanced count of routed copies."""
    whole = 3 * model.hidden + attention_width(model, split.tp) + dense_width(model, split.tp)
    return WIDE_BYTES * tokens * (whole + margin * routed_width(model, split) / split.tp)


def serving_activation_bytes(model: Model, split: Split, batch: int, budget: float, efficiency: Efficiency) -> float:
    """Working set of one layer in the larger of a prefill pass of `budget` tokens and a decode step."""
    tokens = max(batch / decode_microbatches(split.pp, batch), budget)
    return layer_working_bytes(model, split, tokens, efficiency.receive_margin.value)


def serving_logit_bytes(model: Model, split: Split, batch: int) -> float:
    """Logits of a decode step, on the last stage."""
    return LOGIT_BYTES * batch / decode_microbatches(split.pp, batch) * model.vocabulary / split.tp


@dataclass(frozen=True)
class KeptElements:
    """What training keeps of a token for the backward pass, on one GPU, by part of a layer.

    Attributes:
        input_bytes: the layer's input, kept under every recompute mode.
        attention, dense, moe: bytes of the operands of its products that recompute "none" keeps beside.
        attention_selective, dense_selective, moe_selective: the same under "selective", which computes norms, the
            activation's product and MLA's up-projections again.
    """

    input_bytes: float
    attention: float
    dense: float
    moe: float
    attention_selective: float
    dense_selective: float
    moe_selective: float

    @classmethod
    def of(cls, model: Model, split: Split) -> KeptElements:
        """Operands are kept in the type that they are multiplied in, at most 16 bits (arXiv 2412.19437, 3.3.3)."""
        moe, tp, types = model.moe, split.tp, model.types
        hidden = model.hidden / tp
        attention = min(WIDE_BYTES, bytes_of(types.attention))
        dense, routed = (min(WIDE_BYTES, bytes_of(kind)) for kind in (types.dense, types.compute))
        inner = attention_width(model, tp)
        less = inner
        if isinstance(model.attention, MlaAttention):
            mla = model.attention
            less = (mla.q_rank or 0) + mla.kv_rank + mla.rope_dim + mla.heads * mla.value_dim / tp
        shared = 3 * moe.shared_experts * (moe.shared_width or moe.expert_width) / tp
        flat = 3 * (model.dense_width or 0) / tp if model.dense_layers else 0.0
        # Received inputs and outputs, and gate, up and product inside; selective keeps inputs, gate and up.
        copies = moe.top_k * split.etp / tp
        whole = copies * (2 * model.hidden + 3 * moe.expert_width / split.etp)
        part = copies * (model.hidden + 2 * moe.expert_width / split.etp)
        return cls(
            input_bytes=WIDE_BYTES * hidden,
            attention=attention * (hidden + inner),
            dense=dense * (hidden + flat),
            moe=dense * (hidden + shared) + routed * whole,
            attention_selective=attention * less,
            dense_selective=dense * (hidden + 2 / 3 * flat),
            moe_selective=dense * (hidden + 2 / 3 * shared) + routed * part,
        )

    def bytes(self, modes: ModeCounts) -> float:
        """Bytes of a token in layers of each mode."""
        none, selective, full = modes
        total = self.input_bytes * (none.layers + selective.layers + full.layers)
        total += none.layers * self.attention + none.dense * self.dense + none.moe * self.moe
        total += selective.layers * self.attention_selective
        return total + selective.dense * self.dense_selective + selective.moe * self.moe_selective


def kept_bytes(
    model: Model, workload: TrainingWorkload, split: Split, shapes: tuple[StageShape, ...] | None = None
) -> tuple[float, ...]:
    """[pieces] activations of all microbatches in flight at most, kept for the backward pass on one GPU."""
    tokens = float(workload.microbatch * workload.sequence)
    kept = KeptElements.of(model, split)
    return tuple(
        in_flight(workload, split.pp, piece, split.microbatches) * tokens * kept.bytes(modes)
        for piece, modes in enumerate(mode_counts(model, workload, split, shapes))
    )


def training_working_bytes(
    model: Model, workload: TrainingWorkload, split: Split, last: bool, efficiency: Efficiency
) -> float:
    """One layer's working set, and the logits where the rank has the head."""
    tokens = float(workload.microbatch * workload.sequence)
    logits = LOGIT_BYTES * tokens * model.vocabulary / split.tp if last else 0.0
    return layer_working_bytes(model, split, tokens, efficiency.receive_margin.value) + logits
