"""Floating-point work of training by its published convention, to compare with reported FLOP/s and MFU."""

from __future__ import annotations

from specs.model import Model
from specs.parameters import count_parameters


def training_flops_per_token(model: Model, sequence: int, causal: bool = True) -> float:
    """FLOP of forward and backward pass for one token of a sequence of `sequence` tokens; recompute is not counted.

    6 per active parameter, the input embedding apart, and three times the attention core: with the pairs of a causal
    mask (as FlashAttention counts), or with all pairs (as Megatron-LM does). arXiv 2505.09343, section 5.1.2.
    """
    core = 0.0
    for block in model.layout:
        mixer = model.mixer_of(block)
        if mixer is not None:
            # Half of the pairs lie under a causal mask; windows have as many either way.
            windowed = getattr(mixer, "window", None) is not None
            core += mixer.prefill_flops(sequence, 1) / sequence * (1.0 if causal or windowed else 2.0)
    return 6.0 * count_parameters(model).active + 3.0 * core
