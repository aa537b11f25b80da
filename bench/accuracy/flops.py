"""Floating-point work of training by its published convention, to compare with reported FLOP/s and MFU."""

from __future__ import annotations

from placement.problem.pieces import is_sliding
from specs.model import GqaAttention, Model
from specs.parameters import count_parameters


def training_flops_per_token(model: Model, sequence: int, causal: bool = True) -> float:
    """FLOP of forward and backward pass for one token of a sequence of `sequence` tokens; recompute is not counted.

    6 per active parameter, the input embedding apart, and three times the attention core: with the pairs of a causal
    mask (as FlashAttention counts), or with all pairs (as Megatron-LM does). arXiv 2505.09343, section 5.1.2.
    """
    attention = model.attention
    if isinstance(attention, GqaAttention):
        per_pair = 4 * attention.query_heads * attention.head_dim
    else:
        per_pair = 2 * attention.heads * (attention.nope_dim + attention.rope_dim + attention.value_dim)
    pairs = 0.0
    for layer in range(model.layers):
        seen = float(sequence)
        if model.sliding is not None and is_sliding(model, layer):
            seen = min(seen, float(model.sliding.window))
        pairs += seen / 2 if causal and seen == sequence else seen
    return 6.0 * count_parameters(model).active + 3.0 * per_pair * pairs
