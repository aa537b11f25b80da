"""What every kind of block states of itself: its weights, what it stores of a sequence, and what it computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pydantic import Field

from specs.fields import DataType, Spec, bytes_of

#: Bytes of an element that is never quantized: norms, biases, convolutions, routers.
PLAIN_BYTES = 2.0
#: Tokens that linear attention works on at once in prefill (the chunk of flash-linear-attention and Mamba-2 kernels).
CHUNK = 64


@dataclass(frozen=True)
class Weight:
    """A tensor of a block.

    Attributes:
        name: of the projection; quantization is stated by it.
        count: elements.
        parts: tensor-parallel GPUs that it can be divided over at most (1: whole on each); None: any number.
        plain: never quantized.
    """

    name: str
    count: int
    parts: int | None = None
    plain: bool = False

    def local(self, tp: int) -> float:
        """Elements on one of `tp` GPUs."""
        return self.count / (tp if self.parts is None else min(tp, self.parts))


@dataclass(frozen=True)
class Stored:
    """What one layer keeps of a sequence on one GPU.

    Attributes:
        elements: of the KV cache's data type.
        states: of the states' data type (linear attention, state space).
        bytes: of types that nobody chooses.
        scales: bytes beside `elements` where these have 8 bits.
    """

    elements: float = 0.0
    states: float = 0.0
    bytes: float = 0.0
    scales: float = 0.0

    def size(self, kv_cache: DataType, state: DataType) -> float:
        """Bytes, with the data types of the KV cache and of states."""
        size = bytes_of(kv_cache)
        return self.elements * size + self.states * bytes_of(state) + self.bytes + self.scales * (size == 1)


class Mixer(Spec, ABC):
    """What mixes tokens in a layer. Figures are of one of `tp` GPUs, which share the heads."""

    types: dict[str, DataType] = Field(default_factory=dict)
    """Data types of projections that differ from the model's attention type, by the projection's name."""

    @property
    def measured_as(self) -> str:
        """The kind of attention whose measurements calibrate this one."""
        return str(self.kind)  # type: ignore[attr-defined]

    @abstractmethod
    def weights(self, hidden: int) -> tuple[Weight, ...]:
        """Every tensor but the layer norm before the block."""

    @abstractmethod
    def tp_problem(self, tp: int) -> str:
        """Why the heads can't be shared by `tp` GPUs; "" where they can."""

    @abstractmethod
    def stored(self, context: float, tp: int) -> Stored:
        """What is kept of a sequence of `context` tokens."""

    @abstractmethod
    def prefill_flops(self, length: float, tp: int) -> float:
        """FLOPs of a whole prompt of `length` tokens beside the products with weights."""

    @abstractmethod
    def decode_flops(self, context: float, tp: int) -> float:
        """FLOPs of one token where `context` are stored, its own among them, beside the products with weights."""

    def read(self, context: float, tp: int) -> Stored:
        """What a decode step reads and writes of what is stored."""
        return self.stored(context, tp)

    @abstractmethod
    def width(self, tp: int) -> float:
        """Elements per token of activations inside the block: queries, keys, values and output."""

    def selective_width(self, tp: int) -> float:
        """Elements per token that training keeps where it computes cheap parts again."""
        return self.width(tp)

    def operand_elements(self) -> float:
        """Elements per token of the inputs and outputs of all projections, hidden states apart, on all GPUs."""
        return self.width(1)

    def again(self) -> int:
        """Weights that are multiplied again in training where cheap parts are computed again."""
        return 0


def causal_pairs(length: float, window: float | None = None, chunked: bool = False) -> float:
    """Query-key pairs of a sequence under a causal mask.

    Args:
        length: tokens of the sequence.
        window: tokens that a query sees at most; None: all before it.
        chunked: windows lie side by side instead of sliding (Llama 4's chunked attention).
    """
    if window is None or window >= length:
        return length * (length + 1) / 2
    if chunked:
        whole, rest = divmod(length, window)
        return whole * window * (window + 1) / 2 + rest * (rest + 1) / 2
    return window * length - window * (window - 1) / 2


def sparse_pairs(length: float, ratio: int, most: float | None) -> float:
    """Pairs of a sequence with entries that stand for `ratio` tokens each, of which a query reads `most` at most.

    A query sees the entries that are complete at its token: the k-th pairs with every query from k * ratio on.
    """
    entries = length // ratio if most is None else min(length // ratio, most)
    return entries * (length + 1) - ratio * entries * (entries + 1) / 2


def does_not_divide(tp: int, count: int, what: str) -> str:
    """Why `count` of something can't be shared by `tp` GPUs; "" where they can."""
    return f"tp {tp} does not divide the {count} {what}" if count % tp else ""
