"""What the ranks have to do, as plain records that travel to their processes. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from placement.problem.arrays import FloatArray, FrozenArrays, IntArray
from specs.engine import MessageRule

Backend = Literal["gloo", "nccl"]
#: What hidden states are dispatched as; combine sends bf16, or fp32 where dispatch does.
WireType = Literal["bf16", "fp32", "fp8"]
#: "scale": each expert multiplies by a vector of its own (nothing to compute, wrong routing shows); "mlp": SwiGLU.
ExpertKind = Literal["scale", "mlp"]

#: The timed parts of one exchange, in order. A rule of one hop has its whole exchange in the `across` parts.
PARTS = ("dispatch_across", "dispatch_within", "experts", "combine_within", "combine_across", "pack")
#: What bytes are counted under.
KINDS = ("metadata", "dispatch", "combine")


@dataclass(frozen=True)
class Exchange(FrozenArrays):
    """One layer's dispatch and combine under one layout.

    Attributes:
        layout: its name in reports.
        rule, slots_per_gpu: as in the plan.
        slots: [slots] logical expert of each slot.
        served: [tokens, k] slot that serves each expert of each token.
        entry: [tokens, nodes] GPU at which a token enters a node (a rule that forwards); None: that of its home's local
            rank.
    """

    layout: str
    rule: MessageRule
    slots_per_gpu: int
    slots: IntArray
    served: IntArray
    entry: IntArray | None = None


@dataclass(frozen=True)
class LayerWork(FrozenArrays):
    """One layer's tokens and the exchanges that are measured in turn on them.

    Attributes:
        layer: the model's own layer index.
        ids: [tokens, k] logical experts of each token. weights: [tokens, k] their router weights.
        exchanges: all of the same tokens.
    """

    layer: int
    ids: IntArray
    weights: FloatArray
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True)
class Job(FrozenArrays):
    """A whole run.

    Attributes:
        gpus, gpus_per_node: ranks, and how many consecutive ones share a node.
        hidden, experts, expert_width: of the model; `expert_width` counts with `kind` "mlp" alone.
        home: [tokens] rank that each token lives on.
        warmup, repeats: rounds over a layer's exchanges, untimed and timed.
        timeout_s: after which a rank that waits for another gives up.
    """

    gpus: int
    gpus_per_node: int
    hidden: int
    experts: int
    expert_width: int
    home: IntArray
    layers: tuple[LayerWork, ...]
    backend: Backend = "gloo"
    wire: WireType = "bf16"
    kind: ExpertKind = "scale"
    warmup: int = 1
    repeats: int = 5
    seed: int = 0
    timeout_s: float = 300.0

    @property
    def nodes(self) -> int:
        return self.gpus // self.gpus_per_node


@dataclass(frozen=True)
class RankRecord:
    """What one rank saw of one exchange.

    Attributes:
        sent, received: [kinds, gpus] bytes to and from each rank over the timed rounds' one exchange, by KINDS.
        begun, ended: [repeats, parts] when each of PARTS began and ended, by the machine's monotonic clock, which
            ranks of one machine share. Of "pack" only the difference means anything.
        metadata_s: seconds of exchanging counts, slots and weights, once.
        error: largest error of a token's result against the reference, relative to that token's largest value.
    """

    sent: IntArray
    received: IntArray
    begun: FloatArray
    ended: FloatArray
    metadata_s: float
    error: float


@dataclass(frozen=True)
class WireCount:
    """Bytes that a node's uplink carried for one layer's timed rounds, frames and all, as the kernel counts them."""

    out_bytes: int
    in_bytes: int


@dataclass(frozen=True)
class Ran:
    """What all ranks saw.

    Attributes:
        records: [layers][exchanges][ranks].
        uplinks: [layers][ranks] what the rank's node sent and received in the timed rounds; empty without a fabric.
        device: what the ranks computed on. torch: its version.
        one_machine: whether all ranks share a clock.
    """

    records: tuple[tuple[tuple[RankRecord, ...], ...], ...]
    uplinks: tuple[tuple[WireCount, ...], ...]
    device: str
    torch: str
    one_machine: bool = True


def matrix_of(records: tuple[RankRecord, ...], kind: str, side: Literal["sent", "received"]) -> IntArray:
    """[gpus, gpus] bytes from rank to rank of one kind, as the senders or the receivers counted them, diagonal 0."""
    rows = np.stack([getattr(record, side)[KINDS.index(kind)] for record in records])
    matrix = np.array(rows if side == "sent" else rows.T, dtype=np.int64)
    np.fill_diagonal(matrix, 0)
    return matrix
