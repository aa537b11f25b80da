"""Mixers that keep a state of fixed size: gated delta rules, lightning attention, Mamba, short convolutions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from specs.blocks.base import CHUNK, PLAIN_BYTES, Mixer, Stored, Weight, does_not_divide
from specs.fields import Count, Flag, Heads, Width

Kernel = Annotated[int, Field(ge=1, le=256, strict=True)]


class Recurrent(Mixer):
    """A mixer whose state doesn't grow. Costs follow from the state's shape and the convolution's channels.

    Attributes:
        corrects: what the state holds of a key already is taken off before a value is added (delta rules).
    """

    corrects: ClassVar[bool] = False

    @property
    @abstractmethod
    def state_shape(self) -> tuple[int, int, int]:
        """(heads, rows, columns) of the state of one sequence."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of the short convolution before the recurrence; 0 without one."""

    def local_channels(self, tp: int) -> float:
        """Those of one GPU."""
        return self.channels / tp

    @property
    def kernel(self) -> int:
        """Taps of that convolution."""
        return int(getattr(self, "conv", 1))

    def tp_problem(self, tp: int) -> str:
        return does_not_divide(tp, self.state_shape[0], f"heads of {self.kind}")  # type: ignore[attr-defined]

    def stored(self, context: float, tp: int) -> Stored:
        """The state, and the convolution's last inputs, however long the sequence is."""
        heads, rows, columns = self.state_shape
        inputs = self.local_channels(tp) * (self.kernel - 1)
        return Stored(states=heads * rows * columns / tp, bytes=PLAIN_BYTES * inputs)

    def read(self, context: float, tp: int) -> Stored:
        """The state is read and written."""
        kept = self.stored(context, tp)
        return Stored(states=2 * kept.states, bytes=2 * kept.bytes)

    def prefill_flops(self, length: float, tp: int) -> float:
        """In chunks (arXiv 2405.21060, section 6): scores within a chunk and their products, and the state's update
        and readout, of every token; a last chunk counts as full for the tokens that it has.

        A correction (arXiv 2412.06464, section 3.3) adds scores between keys, and what they make of keys and values,
        and takes what the state holds off.
        """
        heads, rows, columns = self.state_shape
        chunk = min(float(CHUNK), length)
        each = 2 * chunk * (rows + columns) + 4 * rows * columns
        if self.corrects:
            each += 2 * chunk * (2 * rows + columns) + 2 * rows * columns
        return length * (heads * each / tp + self._conv_flops(tp))

    def decode_flops(self, context: float, tp: int) -> float:
        """Decay (1), update (2), readout (2) of every element of the state, and correction (2) where there is one."""
        heads, rows, columns = self.state_shape
        return (5 + 2 * self.corrects) * heads * rows * columns / tp + self._conv_flops(tp)

    def _conv_flops(self, tp: int) -> float:
        """Of a token's short convolution."""
        return 2 * self.local_channels(tp) * self.kernel


class GatedDelta(Recurrent):
    """Gated DeltaNet (arXiv 2412.06464) as in Qwen3-Next."""

    corrects: ClassVar[bool] = True

    kind: Literal["gated_delta"]
    """Which kind of block this is."""
    key_heads: Heads
    """Key heads."""
    value_heads: Heads
    """Value heads."""
    key_dim: Width
    """Width of a key head."""
    value_dim: Width
    """Width of a value head."""
    conv: Kernel = 4
    """Taps of the short convolution."""

    @property
    def state_shape(self) -> tuple[int, int, int]:
        return self.value_heads, self.key_dim, self.value_dim

    @property
    def channels(self) -> int:
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        values = self.value_heads * self.value_dim
        return (
            Weight("in_proj", hidden * (self.channels + values)),
            Weight("decay_proj", hidden * 2 * self.value_heads),
            Weight("out_proj", values * hidden),
            Weight("conv", self.channels * self.conv, plain=True),
            Weight("decay", 2 * self.value_heads, plain=True),
            Weight("norms", self.value_dim, 1, plain=True),
        )

    def tp_problem(self, tp: int) -> str:
        return super().tp_problem(tp) or does_not_divide(tp, self.key_heads, "key heads of gated_delta")

    def width(self, tp: int) -> float:
        return (self.channels + 3 * self.value_heads * self.value_dim) / tp


class KimiDelta(Recurrent):
    """Kimi Delta Attention (arXiv 2510.26692): a gated delta rule that forgets by channel."""

    corrects: ClassVar[bool] = True

    kind: Literal["kda"]
    """Which kind of block this is."""
    heads: Heads
    """Heads."""
    head_dim: Width
    """Width of a head."""
    conv: Kernel = 4
    """Taps of the short convolution."""
    full_rank_gate: Flag = False
    """The output gate is one matrix instead of two of rank head_dim."""
    full_rank_forget: Flag = False
    """So is the forget gate (Ling 3)."""

    @property
    def state_shape(self) -> tuple[int, int, int]:
        return self.heads, self.head_dim, self.head_dim

    @property
    def channels(self) -> int:
        return 3 * self.heads * self.head_dim

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        inner, low = self.heads * self.head_dim, self.head_dim
        gate = hidden * inner if self.full_rank_gate else low * inner
        return (
            Weight("qkv_proj", hidden * 3 * inner),
            Weight("forget_a_proj", 0 if self.full_rank_forget else hidden * low, 1),
            Weight("forget_b_proj", (hidden if self.full_rank_forget else low) * inner),
            Weight("beta_proj", hidden * self.heads),
            Weight("gate_a_proj", 0 if self.full_rank_gate else hidden * low, 1),
            Weight("gate_proj", gate),
            Weight("o_proj", inner * hidden),
            Weight("conv", self.channels * self.conv, plain=True),
            Weight("decay", inner + self.heads, plain=True),
            Weight("norms", low, 1, plain=True),
        )

    def width(self, tp: int) -> float:
        return 2 * self.channels / tp


class Lightning(Recurrent):
    """Lightning attention (arXiv 2401.04658) with an output gate, as in MiniMax-01 and Ring-linear."""

    kind: Literal["lightning"]
    """Which kind of block this is."""
    heads: Heads
    """Heads."""
    head_dim: Width
    """Width of a head."""
    qk_norm: Flag = False
    """Query and key norms."""

    @property
    def state_shape(self) -> tuple[int, int, int]:
        return self.heads, self.head_dim, self.head_dim

    @property
    def channels(self) -> int:
        return 0

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        inner = self.heads * self.head_dim
        return (
            Weight("qkv_proj", hidden * 3 * inner),
            Weight("gate_proj", hidden * inner),
            Weight("o_proj", inner * hidden),
            Weight("norms", inner, plain=True),
            Weight("qk_norm", 2 * self.head_dim * self.qk_norm, 1, plain=True),
        )

    def width(self, tp: int) -> float:
        return 5 * self.heads * self.head_dim / tp


class Mamba2(Recurrent):
    """Mamba-2 (arXiv 2405.21060): `heads` of `head_dim` channels, a state of `state` for each channel."""

    kind: Literal["mamba2"]
    """Which kind of block this is."""
    heads: Heads
    """Heads."""
    head_dim: Width
    """Width of a head."""
    state: Count
    """Size of the state of a channel."""
    groups: Heads = 1
    """Groups that share the inputs and outputs of the state."""
    conv: Kernel = 4
    """Taps of the short convolution."""
    conv_bias: Flag = True
    """Bias of the convolution."""
    bias: Flag = False
    """Bias of the projections."""

    @property
    def state_shape(self) -> tuple[int, int, int]:
        return self.heads, self.state, self.head_dim

    @property
    def channels(self) -> int:
        return self.heads * self.head_dim + 2 * self.groups * self.state

    def local_channels(self, tp: int) -> float:
        """Inputs and outputs of the state are repeated where tp exceeds their groups."""
        return self.heads * self.head_dim / tp + 2 * self.groups * self.state / min(tp, self.groups)

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        inner, shared = self.heads * self.head_dim, 2 * self.groups * self.state
        alone, taps = 2 * inner + self.heads, self.conv + self.conv_bias
        return (
            Weight("in_proj", hidden * alone),
            Weight("in_proj", hidden * shared, self.groups),
            Weight("out_proj", inner * hidden),
            Weight("conv", inner * taps, plain=True),
            Weight("conv", shared * taps, self.groups, plain=True),
            Weight("decay", 3 * self.heads, plain=True),
            Weight("norms", inner, plain=True),
            Weight("bias", alone * self.bias, plain=True),
            Weight("bias", shared * self.bias, self.groups, plain=True),
            Weight("bias", hidden * self.bias, 1, plain=True),
        )

    def tp_problem(self, tp: int) -> str:
        # One group is repeated on every GPU; engines repeat no more than one.
        several = does_not_divide(tp, self.groups, "groups of mamba2") if self.groups > 1 else ""
        return super().tp_problem(tp) or several

    def width(self, tp: int) -> float:
        return self.local_channels(tp) + 3 * self.heads * self.head_dim / tp


class Mamba(Recurrent):
    """Mamba-1 (arXiv 2312.00752): every one of `inner` channels has its own state of `state`."""

    kind: Literal["mamba"]
    """Which kind of block this is."""
    inner: Width
    """Channels."""
    state: Count
    """Size of the state of a channel."""
    step_rank: Width
    """Rank of the step projection."""
    conv: Kernel = 4
    """Taps of the short convolution."""
    inner_norms: Flag = False
    """Norms of the step and of the state's inputs and outputs (Jamba)."""

    @property
    def state_shape(self) -> tuple[int, int, int]:
        return self.inner, self.state, 1

    @property
    def channels(self) -> int:
        return self.inner

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        return (
            Weight("in_proj", hidden * 2 * self.inner),
            Weight("x_proj", self.inner * (self.step_rank + 2 * self.state)),
            Weight("dt_proj", self.step_rank * self.inner),
            Weight("out_proj", self.inner * hidden),
            Weight("conv", self.inner * (self.conv + 1), plain=True),
            # Decay by channel and state, the skip, and the step's bias.
            Weight("decay", self.inner * (self.state + 2), plain=True),
            Weight("norms", (self.step_rank + 2 * self.state) * self.inner_norms, 1, plain=True),
        )

    def prefill_flops(self, length: float, tp: int) -> float:
        """A scan: every token costs what a decode step does."""
        return length * self.decode_flops(length, tp)

    def width(self, tp: int) -> float:
        return 4 * self.inner / tp


class ShortConv(Recurrent):
    """A gated short convolution (LFM2) in place of attention."""

    kind: Literal["short_conv"]
    """Which kind of block this is."""
    inner: Width
    """Channels."""
    conv: Kernel = 3
    """Taps of the short convolution."""
    bias: Flag = False
    """Bias of the projections."""

    @property
    def state_shape(self) -> tuple[int, int, int]:
        return self.inner, 0, 0

    @property
    def channels(self) -> int:
        return self.inner

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        return (
            Weight("in_proj", hidden * 3 * self.inner),
            Weight("out_proj", self.inner * hidden),
            Weight("conv", self.inner * self.conv, plain=True),
            Weight("bias", 4 * self.inner * self.bias, plain=True),
            Weight("bias", hidden * self.bias, 1, plain=True),
        )

    def prefill_flops(self, length: float, tp: int) -> float:
        return length * self.decode_flops(length, tp)

    def width(self, tp: int) -> float:
        return 4 * self.inner / tp
