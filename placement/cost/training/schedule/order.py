"""An order: which pass each device runs after which, whatever the passes take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from placement.errors import InputError

#: Forward, whole backward, backward for inputs alone, backward for weights alone.
Kind = Literal["F", "B", "I", "W"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Action(NamedTuple):
    """A pass of one microbatch through one piece of the model; "3F7" is microbatch 7 forward through piece 3."""

    piece: int
    kind: Kind
    microbatch: int

    def __str__(self) -> str:
        return f"{self.piece}{self.kind}{self.microbatch}"


#: What a device runs at once: one pass, or a forward and a whole backward pass that hide each other's messages.
Step = tuple[Action, ...]


@dataclass(frozen=True)
class Order:
    """Every pass once, by device.

    Attributes:
        name: The schedule's name.
        pieces, microbatches: How many there are; actions number them from 0.
        steps: [devices] what each runs, first to last.
    """

    name: str
    pieces: int
    microbatches: int
    steps: tuple[tuple[Step, ...], ...]

    def __post_init__(self) -> None:
        """Raises InputError where a pass is missing, runs twice or does not exist."""
        problem = _problem(self)
        if problem:
            raise InputError(f"schedule {self.name}", "order", problem, "give every pass once")

    @property
    def devices(self) -> int:
        return len(self.steps)

    @property
    def pairs(self) -> bool:
        """Whether passes run two at a time somewhere."""
        return any(len(step) == 2 for steps in self.steps for step in steps)

    def device_of_piece(self) -> tuple[int, ...]:
        """[pieces] the device that runs microbatch 0's forward pass."""
        found = {
            action.piece: device
            for device, steps in enumerate(self.steps)
            for step in steps
            for action in step
            if action.kind == "F" and action.microbatch == 0
        }
        return tuple(found[piece] for piece in range(self.pieces))


def order_of(name: str, pieces: int, microbatches: int, steps: Iterable[Sequence[Step]]) -> Order:
    """The order with steps of any sequence."""
    return Order(name, pieces, microbatches, tuple(tuple(each) for each in steps))


def _problem(order: Order) -> str:
    """What is wrong with an order; "" where nothing is."""
    m, size = order.microbatches, order.pieces * order.microbatches
    seen = {kind: bytearray(size) for kind in KINDS}
    home = [-1] * size
    for device, steps in enumerate(order.steps):
        for step in steps:
            if len(step) == 2 and (step[0].kind, step[1].kind) != ("F", "B"):
                return f"({step[0]};{step[1]}) is no forward pass with a whole backward pass"
            for action in step:
                piece, kind, microbatch = action
                if not (0 <= piece < order.pieces and 0 <= microbatch < m):
                    return f"{action} is outside of {order.pieces} pieces and {m} microbatches"
                at = piece * m + microbatch
                if seen[kind][at]:
                    return f"{action} runs twice"
                seen[kind][at] = 1
                if home[at] not in (-1, device):
                    return f"{action} runs on device {device}, other passes of piece and microbatch on {home[at]}"
                home[at] = device
    for at in range(size):
        piece, microbatch = divmod(at, m)
        if not seen["F"][at]:
            return f"{piece}F{microbatch} is missing"
        if seen["B"][at] + seen["I"][at] != 1:
            twice = seen["B"][at]
            return f"the backward pass {piece}B{microbatch} {'runs twice' if twice else 'is missing'}"
        if seen["I"][at] != seen["W"][at]:
            lacks = "W" if seen["I"][at] else "I"
            return f"{piece}{lacks}{microbatch} is missing"
    return ""
