"""Bytes of activations on one GPU: the working set of a pass, and what training keeps for the backward pass.

Activations are 16-bit. Tensor-parallel GPUs share tokens between products (sequence parallelism), so what a layer keeps
per token is split over tp.
"""

from __future__ import annotations

from placement.cost.efficiency import Efficiency
from placement.cost.passes import decode_microbatches, prefill_budget
from placement.cost.stages import StageShape
from placement.split import Split
from specs.schema import GqaAttention, Model, ServingWorkload, TrainingWorkload

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


def serving_activation_bytes(
    workload: ServingWorkload, model: Model, split: Split, batch: int, efficiency: Efficiency
) -> float:
    """Working set of one layer in the larger of a prefill pass and a decode step."""
    tokens = max(batch / decode_microbatches(split.pp, batch), prefill_budget(workload, split.tp))
    return layer_working_bytes(model, split, tokens, efficiency.receive_margin.value)


def serving_logit_bytes(model: Model, split: Split, batch: int) -> float:
    """Logits of a decode step, on the last stage."""
    return LOGIT_BYTES * batch / decode_microbatches(split.pp, batch) * model.vocabulary / split.tp


def microbatches_in_flight(pp: int, stage: int, microbatches: int) -> int:
    """Microbatches whose activations a stage keeps at most under 1F1B: the depth that is left, or all there are."""
    return min(pp - stage, microbatches)


def training_activation_bytes(
    model: Model, workload: TrainingWorkload, split: Split, shape: StageShape, stage: int, efficiency: Efficiency
) -> float:
    """Activations kept for the backward pass of every microbatch in flight, and one layer's working set.

    recompute "full" keeps the input of each layer; "none" keeps every operand of its products.
    """
    tokens = float(workload.microbatch * workload.sequence)
    in_flight = microbatches_in_flight(split.pp, stage, split.microbatches)
    kept = WIDE_BYTES * tokens * shape.layers * model.hidden / split.tp
    if workload.recompute == "none":
        inside = model.hidden / split.tp + attention_width(model, split.tp)
        dense = shape.dense * (model.hidden / split.tp + dense_width(model, split.tp))
        moe = shape.moe * (dense_width(model, split.tp) + routed_width(model, split) / split.tp)
        kept += WIDE_BYTES * tokens * (shape.layers * inside + dense + moe)
    logits = LOGIT_BYTES * tokens * model.vocabulary / split.tp if shape.last else 0.0
    return in_flight * kept + layer_working_bytes(model, split, tokens, efficiency.receive_margin.value) + logits
