"""What a device does at best, for comparison with its grouped products. Imports torch."""

from __future__ import annotations

import torch

from bench.experts.gemm import timed
from bench.experts.kernels import ProductType, Run
from bench.experts.recorded import Ceilings
from specs.fields import DataType

#: Bytes of a buffer, and side of square matrices; on a CPU, where only the command is tried.
_BYTES, _SIDE = {"cuda": 2**32, "cpu": 2**24}, {"cuda": 8192, "cpu": 256}


def ceilings(device: torch.device, warmup: int, repeats: int) -> Ceilings:
    """Measures them; a type that the device does not multiply is left out."""
    n = _SIDE[device.type]
    random = torch.Generator(device=device).manual_seed(0)
    read, copy = _memory(_BYTES[device.type], device, random, warmup, repeats)
    tflops: dict[DataType, float] = {}
    kinds: tuple[ProductType, ...] = ("fp32",)
    if device.type == "cuda":
        kinds = ("bf16", "fp8") if torch.cuda.get_device_capability(device) >= (8, 9) else ("bf16",)
    for kind in kinds:
        seconds = timed(_square(kind, n, device, random), 2, device, warmup, repeats).median_s
        tflops[kind] = 2.0 * n**3 / seconds * 1e-12
    return Ceilings(read_gb_per_s=read * 1e-9, copy_gb_per_s=copy * 1e-9, tflops=tflops)


def _memory(size: int, device: torch.device, random: torch.Generator, warmup: int, repeats: int) -> tuple[float, float]:
    """Bytes a second of a read and of a copy, both sides counted."""
    source = torch.randn(size // 4, device=device, generator=random)
    target = torch.empty_like(source)
    reading = timed(lambda _: source.sum(), 1, device, warmup, repeats)
    copying = timed(lambda _: target.copy_(source), 1, device, warmup, repeats)
    return size / reading.median_s, 2 * size / copying.median_s


def _square(kind: ProductType, n: int, device: torch.device, random: torch.Generator) -> Run:
    wide = torch.float32 if kind == "fp32" else torch.bfloat16
    pairs = [[torch.randn(n, n, device=device, generator=random).to(wide) for _ in range(2)] for _ in range(2)]
    if kind != "fp8":
        return lambda which: pairs[which][0] @ pairs[which][1]
    one = torch.ones((), device=device)
    small = [[each.to(torch.float8_e4m3fn) for each in pair] for pair in pairs]
    return lambda which: torch._scaled_mm(
        small[which][0], small[which][1].t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
    )
