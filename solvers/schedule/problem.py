"""The job shop of a pipeline: pieces on devices, each microbatch through all pieces and back."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.training.schedule.pipe import Pipe
from placement.cost.training.schedule.simulate import StepSeconds, Transfers


@dataclass(frozen=True)
class ShopProblem:
    """Order the passes of `microbatches` alike microbatches so that the last ends soonest.

    Passes run one at a time on a device. Backward passes may be split into those for inputs and those for weights.

    Attributes:
        pipe: What passes take and keep.
        homes: [pieces] device of each piece.
        microbatches: How many.
        transfers: Whether devices wait for them.
    """

    pipe: Pipe
    homes: tuple[int, ...]
    microbatches: int
    transfers: Transfers = "blocking"

    @property
    def devices(self) -> int:
        return len(self.pipe.fixed_bytes)

    @property
    def room_bytes(self) -> tuple[float, ...]:
        """[devices] bytes for activations."""
        return tuple(self.pipe.capacity_bytes - fixed for fixed in self.pipe.fixed_bytes)

    @property
    def seconds(self) -> StepSeconds:
        """Seconds of passes."""
        return StepSeconds(self.pipe, self.homes, self.transfers)

    def pieces_of(self, device: int) -> tuple[int, ...]:
        """The pieces of a device, ascending."""
        return tuple(piece for piece, home in enumerate(self.homes) if home == device)

    def floor_s(self) -> float:
        """No order takes less: a device's passes, after what its first piece waits for.

        Also the first microbatch's way through all pieces and back, and the weight pass at its end.
        """
        seconds = self.seconds
        forward, inputs, weights = (
            [seconds.alone(kind, piece) for piece in range(self.pipe.pieces)] for kind in ("F", "I", "W")
        )
        sent = seconds.link_s
        best = sum(forward) + sum(inputs) + weights[0] + 2 * sum(sent)
        for device in range(self.devices):
            pieces = self.pieces_of(device)
            before = sum(forward[: pieces[0]]) + sum(sent[: pieces[0]])
            each = sum(forward[piece] + inputs[piece] + weights[piece] for piece in pieces)
            best = max(best, before + self.microbatches * each)
        return best


def side_by_side(devices: int) -> tuple[int, ...]:
    """One piece on each device."""
    return tuple(range(devices))


def down_and_up(devices: int) -> tuple[int, ...]:
    """Two pieces on each device: down the devices, and up again."""
    return (*range(devices), *reversed(range(devices)))
