"""Kernels of a pass, by a count: what the host launches one by one where no graph is captured, as in prefill."""

from __future__ import annotations

from collections.abc import Iterable

from specs.blocks.run import Block
from specs.fields import bytes_of
from specs.parameters import TypedWeight, block_weights
from specs.scenario import Scenario

#: Projections of a mixer's input, which engines multiply as one.
FUSED = frozenset({"q_proj", "k_proj", "v_proj", "q_a_proj", "kv_a_proj"})
#: Of a mixer beside its products: the norm before it, rotary and KV writes, and the core.
MIXER = 3
#: Of a dense block beside quantization: norm, gate and up, activation, down.
DENSE = 4
#: Of routed experts: norm, router, top-k, permutation, gate and up, activation, down, weighted sum.
EXPERTS = 8
#: Of shared experts: gate and up, activation, down.
SHARED = 3


def launches(scenario: Scenario) -> int:
    """Kernels of a pass over all layers, collectives apart; 8-bit and 4-bit products quantize their input first."""
    model = scenario.model
    of_kind = {block: _launches(scenario, block) for block in model.kinds}
    return sum(of_kind[block] for block in model.layout)


def _launches(scenario: Scenario, block: Block) -> int:
    model, count = scenario.model, 0
    weights = block_weights(model, block)
    if block.mixer is not None:
        own = [each for each in weights if each.part == "attention"]
        products = [each for each in own if not each.weight.plain]
        fused = [each for each in products if each.weight.name in FUSED]
        norms = any("norm" in each.weight.name for each in own)
        count += MIXER + norms + sum(1 + _quantized([each]) for each in products if each not in fused)
        count += bool(fused) * (1 + _quantized(fused))
    if model.moe_of(block) is not None:
        # Both products of experts that are multiplied in less than 16 bits.
        count += EXPERTS + 2 * (bytes_of(scenario.types.multiplied) < 2)
        shared = [each for each in weights if each.part == "shared" and not each.weight.plain]
        count += bool(shared) * (SHARED + 2 * _quantized(shared))
    elif block.ffn is not None:
        count += DENSE + 2 * _quantized(each for each in weights if each.part == "dense")
    return count


def _quantized(weights: Iterable[TypedWeight]) -> bool:
    """Whether any is stored in less than 16 bits."""
    return any(bytes_of(each.data_type) < 2 for each in weights)
