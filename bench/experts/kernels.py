"""SwiGLU of a GPU's slots in one data type, as grouped products. Imports torch."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from bench.alltoall.experts import ends_of, grouped
from placement.errors import InputError, MissingExtraError

ProductType = Literal["bf16", "fp8", "mxfp4", "fp32"]
Library = Literal["torch", "triton"]
#: What runs all products of a GPU once, with one of the sets of weights.
Run = Callable[[int], object]

_FP8 = torch.float8_e4m3fn
#: Major compute capabilities that have grouped products of a type.
_MAJORS: dict[ProductType, tuple[int, ...]] = {"fp8": (9, 10), "mxfp4": (9,)}
#: Elements of mxfp4 that share a scale, and the rows of scales that Hopper's layout wants a multiple of.
_MX_BLOCK, _MX_SCALES = 32, 4
#: An 8-bit exponent that stands for 1, and how far random scales reach below it.
_MX_ONE, _MX_REACH = 127, 8
#: gpt-oss's gate: its slope, and where its inputs are cut off.
_OSS_GATE = (1.702, 7.0)


def _gated(both: Tensor) -> Tensor:
    gate, value = both.chunk(2, dim=-1)
    return functional.silu(gate) * value


def _gated_fp8(both: Tensor) -> Tensor:
    return _gated(both).to(_FP8)


def _fused(function: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    """`function` as one kernel on a GPU, as engines have it."""
    return torch.compile(function, dynamic=True) if device.type == "cuda" else function


class Kernels(ABC):
    """Weights of the slots of one GPU, `sets` times over, and their products."""

    def __init__(self, slots: int, hidden: int, width: int, sets: int, device: torch.device, seed: int) -> None:
        self.slots, self.hidden, self.width, self.device = slots, hidden, width, device
        self._random = torch.Generator(device=device).manual_seed(seed)
        self._weights = [self._made() for _ in range(sets)]

    @abstractmethod
    def _made(self) -> tuple[Any, ...]:
        """One set of weights."""

    @abstractmethod
    def run(self, x: Tensor, count: Tensor) -> Run:
        """Args: x: what `states` gives, as many rows as `count` [slots] adds up to, on the device."""

    def states(self, tokens: int) -> Tensor:
        """[tokens, hidden] random hidden states in the type that is multiplied."""
        return self._normal((tokens, self.hidden), torch.bfloat16)

    def _normal(self, size: tuple[int, ...], kind: torch.dtype) -> Tensor:
        return torch.randn(size, generator=self._random, device=self.device, dtype=kind)


class Plain(Kernels):
    """torch's grouped products; what has no such kernel multiplies slot by slot."""

    kind = torch.bfloat16

    def states(self, tokens: int) -> Tensor:
        """As said there, in the type of the weights."""
        return self._normal((tokens, self.hidden), self.kind)

    def _made(self) -> tuple[Any, ...]:
        up = self._normal((self.slots, self.hidden, 2 * self.width), self.kind) * self.hidden**-0.5
        return up, self._normal((self.slots, self.width, self.hidden), self.kind) * self.width**-0.5

    def run(self, x: Tensor, count: Tensor) -> Run:
        ends, gated = ends_of(count), _fused(_gated, self.device)

        def run(which: int) -> Tensor:
            up, down = self._weights[which]
            return grouped(gated(grouped(x, up, ends)), down, ends)

        return run


class Plain32(Plain):
    """The same in fp32, for CPUs."""

    kind = torch.float32


class Fp8(Kernels):
    """torch's grouped products of e4m3 with a scale a row and a scale a column."""

    def states(self, tokens: int) -> Tensor:
        return super().states(tokens).to(_FP8)

    def _made(self) -> tuple[Any, ...]:
        # The second operand goes by columns: weights are kept transposed. Values fill the type's range, scales shrink.
        sizes = ((2 * self.width, self.hidden), (self.hidden, self.width))
        return tuple(
            (
                torch.stack([self._normal((n, k), torch.bfloat16).to(_FP8) for _ in range(self.slots)]),
                torch.full((self.slots, n), k**-0.5, device=self.device),
            )
            for n, k in sizes
        )

    def run(self, x: Tensor, count: Tensor) -> Run:
        ends, gated = ends_of(count), _fused(_gated_fp8, self.device)
        ones = torch.ones(len(x), device=self.device)

        def product(rows: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
            return torch._scaled_grouped_mm(
                rows, weight.transpose(-2, -1), ones, scale, offs=ends, out_dtype=torch.bfloat16, use_fast_accum=True
            )

        def run(which: int) -> Tensor:
            up, down = self._weights[which]
            return product(gated(product(x, *up)), *down)

        return run


class Triton(Kernels):
    """triton_kernels' products, which vLLM and transformers use for gpt-oss, with that model's gate fused."""

    #: What lies between the two products.
    inner = torch.bfloat16

    @abstractmethod
    def _weight(self, n: int, k: int, out: torch.dtype) -> tuple[Any, Any]:
        """[slots, k, n] random weights, and their PrecisionConfig for a product of type `out`."""

    def _made(self) -> tuple[Any, ...]:
        up = self._weight(2 * self.width, self.hidden, self.inner)
        return up, self._weight(self.hidden, self.width, torch.bfloat16)

    def run(self, x: Tensor, count: Tensor) -> Run:
        from triton_kernels.matmul_ogs import FnSpecs, FusedActivation, matmul_ogs
        from triton_kernels.matmul_ogs_details import opt_flags
        from triton_kernels.routing import RoutingData, compute_expt_data
        from triton_kernels.swiglu import swiglu_fn

        # As vLLM has it on Hopper.
        opt_flags.update_opt_flags_constraints({"split_k": 1})
        held = count.to(torch.int32)
        routing = RoutingData(None, held, self.slots, 1, compute_expt_data(held, self.slots, len(x)))
        gate = FusedActivation(FnSpecs("swiglu", swiglu_fn, ("alpha", "limit")), _OSS_GATE, 2)

        def run(which: int) -> object:
            (up, up_precision), (down, down_precision) = self._weights[which]
            inner = matmul_ogs(x, up, None, routing, precision_config=up_precision, fused_activation=gate)
            return matmul_ogs(inner, down, None, routing, precision_config=down_precision)

        return run


class TritonPlain(Triton):
    """bf16 by bf16."""

    def _weight(self, n: int, k: int, out: torch.dtype) -> tuple[Any, Any]:
        from triton_kernels.matmul_ogs import PrecisionConfig

        return self._normal((self.slots, k, n), torch.bfloat16) * k**-0.5, PrecisionConfig(out_dtype=out)


class TritonFp8(Triton):
    """e4m3 by e4m3, with one scale for all weights; what lies between the products is e4m3, too."""

    inner = _FP8

    def states(self, tokens: int) -> Tensor:
        """As said there, as e4m3."""
        return super().states(tokens).to(_FP8)

    def _weight(self, n: int, k: int, out: torch.dtype) -> tuple[Any, Any]:
        from triton_kernels.matmul_ogs import FlexCtx, PrecisionConfig
        from triton_kernels.numerics import InFlexData

        # By columns, as Hopper multiplies them.
        values = torch.stack([self._normal((n, k), torch.bfloat16).to(_FP8) for _ in range(self.slots)])
        scale = InFlexData(_FP8, torch.full((1,), k**-0.5, device=self.device))
        return values.transpose(-2, -1), PrecisionConfig(flex_ctx=FlexCtx(rhs_data=scale), out_dtype=out)


class TritonMxfp4(Triton):
    """bf16 by mxfp4."""

    def _weight(self, n: int, k: int, out: torch.dtype) -> tuple[Any, Any]:
        from triton_kernels.matmul_ogs import FlexCtx, PrecisionConfig
        from triton_kernels.numerics import InFlexData
        from triton_kernels.tensor import FP4, convert_layout, wrap_torch_tensor
        from triton_kernels.tensor_details import layout

        blocks = k // _MX_BLOCK
        values = self._bytes((self.slots, n, k // 2), 0, 256)
        scales = self._bytes((self.slots, n, blocks + -blocks % _MX_SCALES), _MX_ONE - _MX_REACH, _MX_ONE)
        held, options = layout.make_default_matmul_mxfp4_w_layout(mx_axis=1)
        scaled, scale_options = layout.make_default_matmul_mxfp4_w_scale_layout(mx_axis=1, num_warps=8)
        weight = convert_layout(wrap_torch_tensor(values.transpose(-2, -1), dtype=FP4), held, **options)
        scale = convert_layout(wrap_torch_tensor(scales.transpose(-2, -1)), scaled, **scale_options)
        return weight, PrecisionConfig(weight_scale=scale, flex_ctx=FlexCtx(rhs_data=InFlexData()), out_dtype=out)

    def _bytes(self, size: tuple[int, ...], low: int, high: int) -> Tensor:
        return torch.randint(low, high, size, generator=self._random, device=self.device, dtype=torch.uint8)


KERNELS: dict[tuple[Library, ProductType], type[Kernels]] = {
    ("torch", "bf16"): Plain,
    ("torch", "fp8"): Fp8,
    ("torch", "fp32"): Plain32,
    ("triton", "bf16"): TritonPlain,
    ("triton", "fp8"): TritonFp8,
    ("triton", "mxfp4"): TritonMxfp4,
}


def chosen_device(device: Literal["cuda", "cpu"], option: str) -> torch.device:
    """Raises InputError, in words of the option, where there is no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(option, "cuda", "is not there", f"use {option} cpu, which scales the dimensions down")
    return torch.device(device)


def device_name(device: torch.device) -> str:
    """What the driver calls a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def library_of(kind: ProductType) -> Library:
    """The first that has kernels for a type."""
    return next(library for library, each in KERNELS if each == kind)


def check_kind(library: Library, kind: ProductType, device: torch.device) -> None:
    """Raises InputError where the device does not multiply that type, MissingExtraError without the library."""
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
    if kind == "fp32" and device.type == "cuda":
        raise InputError("--dtype", kind, "is for the CPU", "use bf16 or fp8")
    if kind in _MAJORS and major not in _MAJORS[kind]:
        known = " or ".join(str(each) for each in _MAJORS[kind])
        raise InputError("--dtype", kind, f"needs a GPU of compute capability {known}", "use bf16")
    if library == "triton" and importlib.util.find_spec("triton_kernels") is None:
        raise MissingExtraError("triton_kernels is not installed; it is python/triton_kernels of triton's release 3.5")
