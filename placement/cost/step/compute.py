"""Roofline times of the dense parts of a layer: a product is bound by the matrix units or by reading its operands.

All functions give seconds on one GPU. `tokens` are those of an attention rank unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from placement.cost.calibration.efficiency import Efficiency
from placement.errors import InputError
from specs.blocks.base import Mixer
from specs.cluster import Gpu
from specs.fields import DataType, bytes_of
from specs.model_common import DataTypes
from specs.parameters import TypedWeight


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


def _wide(gpu: Gpu) -> DataType:
    return "bf16" if "bf16" in gpu.peak_tflops else "fp16"


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
        peak = peak_flops(gpu, _wide(gpu))
        return cls(
            hbm_bytes_per_s=gpu.hbm_bytes_per_s * efficiency.hbm.value,
            expert_bytes_per_s=gpu.hbm_bytes_per_s * efficiency.hbm_experts.value,
            kv_bytes_per_s=gpu.hbm_bytes_per_s * efficiency.hbm_kv.value,
            attention_flops=peak * efficiency.attention_matmul.value,
            attention_decode_flops=peak * efficiency.attention_decode_matmul.value,
            gpu=gpu,
            efficiency=efficiency,
        )

    @property
    def wide(self) -> DataType:
        """The 16-bit type that the GPU multiplies in."""
        return _wide(self.gpu)

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

    @classmethod
    def of_weights(cls, roofline: Roofline, weights: Iterable[TypedWeight], tp: int) -> Product:
        """The shares of one of `tp` GPUs, each stored and multiplied in its own type."""
        by_type: dict[DataType, float] = {}
        for each in weights:
            kind: DataType = roofline.wide if each.weight.plain else each.data_type
            by_type[kind] = by_type.get(kind, 0.0) + each.weight.local(tp)
        products = [cls.of(roofline, count, kind) for kind, count in by_type.items()]
        return cls(sum(one.weight_s for one in products), sum(one.token_s for one in products))

    def seconds(self, tokens: float) -> float:
        """max(reading the weights, multiplying `tokens`)."""
        return max(self.weight_s, tokens * self.token_s)


def prefill_core_s(roofline: Roofline, mixer: Mixer, tp: int, length: float) -> float:
    """Seconds of one layer's mixer, its projections apart, over a whole prompt of `length` tokens."""
    return mixer.prefill_flops(length, tp) / roofline.attention_flops


def resumed_core_s(roofline: Roofline, mixer: Mixer, types: DataTypes, tp: int, length: float, cached: float) -> float:
    """The same where the first `cached` tokens are in the prefix cache: they are read and attended to, and don't
    attend."""
    if not cached:
        return prefill_core_s(roofline, mixer, tp, length)
    read = mixer.stored(cached, tp).size(types.kv_cache, types.state) / roofline.kv_bytes_per_s
    rest = prefill_core_s(roofline, mixer, tp, length) - prefill_core_s(roofline, mixer, tp, cached)
    return max(read, rest)


def decode_core_s(
    roofline: Roofline, mixer: Mixer, types: DataTypes, tp: int, context: float, tokens: float = 1.0
) -> float:
    """Seconds of one layer's mixer, its projections apart, for one sequence with `context` stored tokens.

    The larger of reading what is stored of the sequence on the GPU, once for all of its `tokens` in the step, and of
    multiplying with it.
    """
    read = mixer.read(context, tp).size(types.kv_cache, types.state) / roofline.kv_bytes_per_s
    return max(read, tokens * mixer.decode_flops(context, tp) / roofline.attention_decode_flops)
