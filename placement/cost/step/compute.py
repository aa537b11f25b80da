"""Roofline times of the dense parts of a layer: a product is bound by the matrix units or by reading its operands.

All functions give seconds on one GPU. `tokens` are those of an attention rank unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.memory.local import kv_bytes_per_token
from placement.errors import InputError
from specs.cluster import Gpu
from specs.fields import DataType, bytes_of
from specs.model import GqaAttention, MlaAttention, Model


def peak_flops(gpu: Gpu, data_type: DataType) -> float:
    """Dense peak FLOP/s of `gpu` in `data_type`, or in the next wider type it has.

    Raises:
        InputError: the GPU states no rate for the type or a wider one.
    """
    try:
        return gpu.peak_flops(data_type)
    except ValueError as error:
        raise InputError(
            gpu.name, "gpu.peak_tflops", f"no peak rate for {data_type} or a wider type", f"add {data_type} or bf16"
        ) from error


@dataclass(frozen=True)
class Roofline:
    """Achieved rates of one GPU, in bytes/s and FLOP/s."""

    hbm_bytes_per_s: float
    expert_bytes_per_s: float
    kv_bytes_per_s: float
    attention_flops: float
    attention_decode_flops: float
    gpu: Gpu
    efficiency: Efficiency

    @classmethod
    def of(cls, gpu: Gpu, efficiency: Efficiency) -> Roofline:
        """The roofline of `gpu`; attention runs in a 16-bit type."""
        wide: DataType = "bf16" if "bf16" in gpu.peak_tflops else "fp16"
        peak = peak_flops(gpu, wide)
        return cls(
            hbm_bytes_per_s=gpu.hbm_bytes_per_s * efficiency.hbm.value,
            expert_bytes_per_s=gpu.hbm_bytes_per_s * efficiency.hbm_experts.value,
            kv_bytes_per_s=gpu.hbm_bytes_per_s * efficiency.hbm_kv.value,
            attention_flops=peak * efficiency.attention_matmul.value,
            attention_decode_flops=peak * efficiency.attention_decode_matmul.value,
            gpu=gpu,
            efficiency=efficiency,
        )

    def matmul_flops(self, data_type: DataType) -> float:
        """Achieved FLOP/s of a large product computed in `data_type`."""
        return peak_flops(self.gpu, data_type) * self.efficiency.matmul.value[data_type]

    def expert_flops(self, data_type: DataType) -> float:
        """Achieved FLOP/s of a grouped product of experts."""
        return peak_flops(self.gpu, data_type) * self.efficiency.expert_matmul.value[data_type]


@dataclass(frozen=True)
class Product:
    """Dense products with `parameters` weights on this GPU.

    Attributes:
        weight_s: seconds to read the weights once.
        token_s: seconds to multiply one token.
    """

    weight_s: float
    token_s: float

    @classmethod
    def of(cls, roofline: Roofline, parameters: float, data_type: DataType) -> Product:
        """Weights stored and multiplied in `data_type`."""
        return cls(
            parameters * bytes_of(data_type) / roofline.hbm_bytes_per_s,
            2.0 * parameters / roofline.matmul_flops(data_type),
        )

    def seconds(self, tokens: float) -> float:
        """max(reading the weights, multiplying `tokens`)."""
        return max(self.weight_s, tokens * self.token_s)


def causal_pairs(length: float, window: float | None = None) -> float:
    """Query-key pairs of a sequence under a causal mask: sum over positions of min(position, window)."""
    if window is None or window >= length:
        return length * (length + 1) / 2
    return window * length - window * (window - 1) / 2


def prefill_attention_s(roofline: Roofline, model: Model, tp: int, length: float, window: float | None = None) -> float:
    """Seconds of one layer's attention core over a whole prompt of `length` tokens, heads split over tp.

    Each pair costs a product with the key and one with the value, 2 FLOPs an element; MLA works on expanded heads.
    """
    attention = model.attention
    if isinstance(attention, GqaAttention):
        per_pair = 4 * attention.query_heads * attention.head_dim
    else:
        per_pair = 2 * attention.heads * (attention.nope_dim + attention.rope_dim + attention.value_dim)
    return per_pair / tp * causal_pairs(length, window) / roofline.attention_flops


def decode_attention_s(roofline: Roofline, model: Model, tp: int, context: float) -> float:
    """Seconds of one layer's attention core for one token of one sequence with `context` stored tokens.

    The larger of reading the GPU's KV cache and of multiplying with it; MLA is absorbed: every head works on the one
    compressed vector.
    """
    attention = model.attention
    if isinstance(attention, MlaAttention):
        flops = 2 * attention.heads / tp * (2 * attention.kv_rank + attention.rope_dim) * context
    else:
        flops = 4 * attention.query_heads / tp * attention.head_dim * context
    read = kv_bytes_per_token(model, tp) * context / roofline.kv_bytes_per_s
    return max(read, flops / roofline.attention_decode_flops)
