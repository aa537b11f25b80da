"""The experts that a rank holds, and the reference that needs no other rank. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bench.alltoall.job import Job, WireType
from bench.alltoall.route import Work
from placement.problem.arrays import FloatArray, IntArray

#: Elements that share one fp32 scale in an fp8 message, and the largest finite e4m3 value.
BLOCK, MOST_FP8 = 128, 448.0
COMPUTE = {"bf16": torch.bfloat16, "fp8": torch.bfloat16, "fp32": torch.float32}


def packed(x: Tensor, wire: WireType) -> Tensor:
    """Hidden states [tokens, hidden] as they are sent: fp8 is bytes, its block scales behind them."""
    if wire != "fp8":
        return x.to(COMPUTE[wire])
    tokens, hidden = x.shape
    padded = functional.pad(x.float(), (0, -hidden % BLOCK)).view(tokens, -1, BLOCK)
    scale = padded.abs().amax(dim=2).clamp(min=1e-12) / MOST_FP8
    small = (padded / scale[:, :, None]).to(torch.float8_e4m3fn).view(tokens, -1)[:, :hidden].contiguous()
    return torch.cat([small.view(torch.uint8), scale.contiguous().view(torch.uint8)], dim=1)


def unpacked(rows: Tensor, hidden: int, wire: WireType) -> Tensor:
    """[rows, hidden] hidden states of what was sent."""
    if wire != "fp8":
        return rows
    scale = rows[:, hidden:].contiguous().view(torch.float32).repeat_interleave(BLOCK, dim=1)[:, :hidden]
    return (rows[:, :hidden].contiguous().view(torch.float8_e4m3fn).float() * scale).to(torch.bfloat16)


@dataclass(frozen=True)
class Weights:
    """An expert's weights: `scale` [hidden], or `up` [hidden, 2 * width] (gate, then up) and `down` [width, hidden]."""

    scale: Tensor | None = None
    up: Tensor | None = None
    down: Tensor | None = None


def expert_weights(job: Job, layer: int, expert: int, device: torch.device) -> Weights:
    """A logical expert's weights, the same on every rank."""
    # A seed of its own for each expert; the layer's hidden states use those beyond the experts.
    random = torch.Generator().manual_seed((job.seed * 1_000_003 + layer) * 65_537 + expert)
    if job.kind == "scale":
        return Weights(scale=torch.randn(job.hidden, generator=random).to(device))
    kind, width = COMPUTE[job.wire], job.expert_width
    up = torch.randn(job.hidden, 2 * width, generator=random) * job.hidden**-0.5
    down = torch.randn(width, job.hidden, generator=random) * width**-0.5
    return Weights(up=up.to(device, kind), down=down.to(device, kind))


def hidden_states(job: Job, layer: int, rank: int, tokens: int, device: torch.device) -> Tensor:
    """[tokens, hidden] what a rank's tokens bring to a layer."""
    random = torch.Generator().manual_seed((job.seed * 1_000_003 + layer) * 65_537 + job.experts + rank)
    return torch.randn(tokens, job.hidden, generator=random).to(device, COMPUTE[job.wire])


class LocalExperts:
    """The experts of a rank's slots, ready to be applied to rows sorted by slot."""

    def __init__(self, job: Job, layer: int, slots: IntArray, device: torch.device) -> None:
        """Args: slots: [slots_per_gpu] logical experts of this rank."""
        self._job = job
        held = [expert_weights(job, layer, int(expert), device) for expert in slots]
        if job.kind == "scale":
            self._scale = torch.stack([w.scale for w in held if w.scale is not None])
        else:
            # A CPU without bf16 units multiplies the same numbers in fp32, many times faster.
            kind = torch.float32 if device.type == "cpu" else COMPUTE[job.wire]
            self._up = torch.stack([w.up.to(kind) for w in held if w.up is not None])
            self._down = torch.stack([w.down.to(kind) for w in held if w.down is not None])

    def answers(self, rows: Tensor, work: Work) -> Tensor:
        """[received rows, hidden] fp32: for each row the weighed sum over the slots that it is for."""
        x = unpacked(rows, self._job.hidden, self._job.wire).index_select(0, work.row)
        count = torch.from_numpy(work.count).to(x.device)
        if self._job.kind == "scale":
            y = x.float() * self._scale.repeat_interleave(count, dim=0)
        else:
            y = grouped_mlp(x.to(self._up.dtype), self._up, self._down, ends_of(count)).float()
        total = y.new_zeros((work.rows, self._job.hidden))
        return total.index_add_(0, work.row, y * work.weight)


def ends_of(count: Tensor) -> Tensor:
    """[experts] int32 row after the last of each expert, which has `count` [experts] rows."""
    return count.cumsum(0).to(torch.int32)


def grouped_mlp(x: Tensor, up: Tensor, down: Tensor, ends: Tensor) -> Tensor:
    """SwiGLU of several experts, [copies, hidden].

    Args:
        x: [copies, hidden] sorted by expert. ends: as `ends_of` gives them.
        up: [experts, hidden, 2 * width] gate, then up. down: [experts, width, hidden].
    """
    gate, value = grouped(x, up, ends).chunk(2, dim=-1)
    return grouped(functional.silu(gate) * value, down, ends)


def grouped(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """[copies, out]: rows of x [copies, in] up to ends[e] by weights[e], [in, out]."""
    aligned = all(size * x.element_size() % 16 == 0 for size in weights.shape[1:])
    if x.dtype == torch.bfloat16 and aligned and len(x):
        return functional.grouped_mm(x.contiguous(), weights, offs=ends)
    parts = x.split(torch.diff(ends, prepend=ends.new_zeros(1)).tolist())
    return torch.cat([part @ weight for part, weight in zip(parts, weights, strict=True)])


def reference(job: Job, layer: int, x: Tensor, ids: IntArray, weights: FloatArray) -> Tensor:
    """[tokens, hidden] fp32 results of this rank's tokens, worked out here alone, expert by expert.

    Args:
        x: [tokens, hidden] hidden states. ids, weights: [tokens, k] logical experts and router weights.
    """
    seen = unpacked(packed(x, job.wire), job.hidden, job.wire).float()
    total = torch.zeros_like(seen)
    chosen, weight = torch.from_numpy(ids).to(x.device), torch.from_numpy(weights).to(x.device, torch.float32)
    for expert in chosen.unique().tolist():
        token, choice = (chosen == expert).nonzero(as_tuple=True)
        own = expert_weights(job, layer, expert, x.device)
        rows = seen[token]
        if own.scale is not None:
            y = rows * own.scale
        elif own.up is not None and own.down is not None:
            gate, value = (rows @ own.up.float()).chunk(2, dim=-1)
            y = (functional.silu(gate) * value) @ own.down.float()
        total.index_add_(0, token, y * weight[token, choice][:, None])
    return total


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest error of a token, relative to its largest value; infinite where something is no number."""
    if not len(expected):
        return 0.0
    scale = expected.abs().amax(dim=1).clamp(min=1e-12)
    worst = ((found - expected).abs().amax(dim=1) / scale).max()
    return float(worst) if bool(torch.isfinite(found).all()) else float("inf")
