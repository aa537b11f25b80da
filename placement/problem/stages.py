"""The stage problem: unequal layers cut into contiguous pieces under each rank's HBM.

Records only: placement.cost.stage_prices fills them in, solvers.stages solves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from specs.workload import Recompute

#: Passes of a piece: all, only the forward one, or all others.
Part = Literal["all", "forward", "backward"]
#: Pieces, or passes of them, that run one after the other.
Member = tuple[tuple[int, Part], ...]


@dataclass(frozen=True)
class LayerOption:
    """One way to run a layer.

    Attributes:
        recompute: what it computes again in training; None in serving.
        seconds: of one microbatch on its rank, all passes; forward_s: of these, the forward pass.
        kept_bytes: activations that each microbatch in flight keeps.
    """

    recompute: Recompute | None
    seconds: float
    forward_s: float
    kept_bytes: float


@dataclass(frozen=True)
class LayerKind:
    """Layers that cost the same.

    Attributes:
        fixed_bytes: weights and what goes with them; in serving the KV cache, too.
        relief_s: of its seconds, what filling and draining the pipeline does not wait for (ZB-H1: twice W).
        options: ways to run it, at least one.
    """

    name: str
    fixed_bytes: float
    relief_s: float
    options: tuple[LayerOption, ...]


@dataclass(frozen=True)
class StageProblem:
    """Cut `layers` into contiguous pieces, each with at least one layer, and choose an option for every layer.

    Minimized is slowest_weight * (the pace) + total_weight * (the sum of all seconds, less relief), over cuts under
    which every rank's fixed and kept bytes are within its budget. The pace is the seconds from one microbatch to the
    next: of every turn the slowest of its members, turns added up. Seconds and bytes of the model's ends (embedding,
    output head) and of transfers go with the first, the last, and every other piece.

    Attributes:
        kinds: kinds of layers; layers: [layers] index of each layer's kind.
        ranks: [ranks] pieces of each rank, ascending; every piece is on one rank at least.
        turns: [turns][members] what a member runs one after the other; a turn's members run side by side. 1F1B: one
            turn, a member per piece; interleaved: a turn per chunk; DualPipe: two turns with a member per rank, forward
            of its one piece with backward of the other, and the other way round.
        in_flight: [pieces] microbatches whose kept bytes a piece holds at once.
        budget_bytes: [ranks] HBM for what the problem counts.
        end_bytes, end_s, end_forward_s, end_relief_s: [pieces] those of a piece beside its layers'.
    """

    kinds: tuple[LayerKind, ...]
    layers: tuple[int, ...]
    ranks: tuple[tuple[int, ...], ...]
    turns: tuple[tuple[Member, ...], ...]
    in_flight: tuple[int, ...]
    budget_bytes: tuple[float, ...]
    end_bytes: tuple[float, ...]
    end_s: tuple[float, ...]
    end_forward_s: tuple[float, ...]
    end_relief_s: tuple[float, ...]
    slowest_weight: float
    total_weight: float

    @property
    def pieces(self) -> int:
        return len(self.in_flight)

    @property
    def single(self) -> bool:
        """Whether every rank has one piece of its own."""
        own = tuple((piece,) for piece in range(self.pieces))
        return self.ranks == own and self.turns == side_by_side(self.pieces)


def side_by_side(pieces: int) -> tuple[tuple[Member, ...], ...]:
    """The turns of ranks with one piece each."""
    return (tuple(((piece, "all"),) for piece in range(pieces)),)


@dataclass(frozen=True)
class StageCut:
    """An answer.

    Attributes:
        cut: [pieces] layers of each piece.
        options: [layers] index of each layer's option.
    """

    cut: tuple[int, ...]
    options: tuple[int, ...]
