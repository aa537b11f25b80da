"""An order run on a pipe, event by event: when each pass and each transfer runs, and what memory is held."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from placement.cost.training.passes import PassSeconds
from placement.cost.training.pipeline import pair_seconds
from placement.cost.training.schedule.order import Action, Kind, Order, Step
from placement.cost.training.schedule.pipe import Pipe
from placement.errors import InputError

#: `blocking`: a device computes nothing while it sends hidden states, or receives gradients, as the scorer counts it.
#: `overlapped`: it goes on; the transfers of a link run one after the other.
Transfers = Literal["blocking", "overlapped"]


class Event(NamedTuple):
    """A step that ran.

    Attributes:
        after: (device, step) of what it waited for last: an earlier step of its own device, or the sender of its input.
    """

    step: Step
    start_s: float
    end_s: float
    after: tuple[int, int] | None


class Send(NamedTuple):
    """A transfer from one device to another beside the computation; `action` is the pass whose result it carries."""

    source: int
    target: int
    action: Action
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Run:
    """A pipeline that ran.

    Attributes:
        order, pipe, transfers: What ran on what.
        events: [devices][steps] in the order of their start.
        sends: Transfers, where these run beside the computation.
        peak_bytes: [devices] the most that was held at once, everything counted.
    """

    order: Order
    pipe: Pipe
    transfers: Transfers
    events: tuple[tuple[Event, ...], ...]
    sends: tuple[Send, ...]
    peak_bytes: tuple[float, ...]

    @property
    def makespan_s(self) -> float:
        return max(events[-1].end_s for events in self.events)

    @property
    def busy_s(self) -> tuple[float, ...]:
        """[devices] seconds in passes."""
        return tuple(sum(event.end_s - event.start_s for event in events) for events in self.events)

    @property
    def idle_s(self) -> tuple[float, ...]:
        """[devices] seconds without a pass: the bubble."""
        return tuple(self.makespan_s - busy for busy in self.busy_s)

    @property
    def bubble_share(self) -> float:
        """Idle share of all devices' time."""
        return sum(self.idle_s) / (self.makespan_s * len(self.events))

    @property
    def over_bytes(self) -> float:
        """What the fullest device lacks; 0 or less where everything fits."""
        return max(self.peak_bytes) - self.pipe.capacity_bytes

    @property
    def fits(self) -> bool:
        return self.over_bytes <= 0


class StepSeconds:
    """Seconds of the steps of an order on a pipe.

    Args:
        homes: [pieces] device of each; a transfer within a device takes no time.
    """

    def __init__(self, pipe: Pipe, homes: tuple[int, ...], transfers: Transfers) -> None:
        self.pipe = pipe
        #: [pieces] transfer to the next piece, where that is on another device.
        self.transfer_s = tuple(
            seconds if here != there else 0.0
            for seconds, here, there in zip(pipe.transfer_s, homes[:-1], homes[1:], strict=True)
        ) + (0.0,)
        #: [pieces] what of it runs beside the computation.
        self.link_s = self.transfer_s if transfers == "overlapped" else (0.0,) * pipe.pieces
        self._passes = pipe.passes
        if transfers == "blocking":
            self._passes = tuple(
                each + PassSeconds(forward_messages_s=seconds, backward_messages_s=seconds)
                for each, seconds in zip(pipe.passes, self.transfer_s, strict=True)
            )
        self._alone: dict[Kind, list[float]] = {
            "F": [each.forward_s + each.forward_messages_s for each in self._passes],
            "B": [each.input_s + each.weight_s + each.backward_messages_s for each in self._passes],
            "I": [each.input_s + each.backward_messages_s for each in self._passes],
            "W": [each.weight_s for each in self._passes],
        }
        self._pairs: dict[tuple[int, int], float] = {}

    def alone(self, kind: Kind, piece: int) -> float:
        """Seconds of a pass by itself."""
        return self._alone[kind][piece]

    def of(self, step: Step) -> float:
        """Seconds of a step; a blocking transfer is part of it."""
        if len(step) == 1:
            return self.alone(step[0].kind, step[0].piece)
        key = (step[0].piece, step[1].piece)
        if key not in self._pairs:
            forward, backward = (self._passes[piece] for piece in key)
            self._pairs[key] = pair_seconds(forward, backward, self.pipe.communication_share)
        return self._pairs[key]


def simulate(order: Order, pipe: Pipe, transfers: Transfers = "blocking") -> Run:
    """Run an order, each step as soon as its device is free and its inputs are there.

    Args:
        order: What each device runs after what.
        pipe: [pieces] what passes take and keep; as many pieces and devices as the order has.
        transfers: Whether devices wait for them.

    Raises:
        InputError: the order has another number of pieces or devices than the pipe, or its devices wait for each other.
    """
    if (order.pieces, order.devices) != (pipe.pieces, len(pipe.fixed_bytes)):
        raise InputError(
            f"schedule {order.name}", "order",
            f"{order.pieces} pieces on {order.devices} devices, the pipeline has {pipe.pieces} on "
            f"{len(pipe.fixed_bytes)}", "cut the model for the schedule",
        )  # fmt: skip
    return _Simulation(order, pipe, transfers).run()


class _Simulation:
    def __init__(self, order: Order, pipe: Pipe, transfers: Transfers) -> None:
        self.order, self.pipe, self.transfers = order, pipe, transfers
        self.seconds = StepSeconds(pipe, order.device_of_piece(), transfers)
        self.events: list[list[Event]] = [[] for _ in order.steps]
        self.sends: list[Send] = []
        self.free: list[float] = [0.0] * order.devices
        self.link_free: dict[tuple[int, int], float] = defaultdict(float)
        #: (arrival, sending device, its step) of each result, [2 * pieces * microbatches], forward ones first.
        self.done: list[tuple[float, int, int] | None] = [None] * (2 * order.pieces * order.microbatches)
        self.waiting: dict[int, int] = {}
        self.home = self._homes()

    def run(self) -> Run:
        todo = list(range(self.order.devices))
        while todo:
            todo.extend(self._advance(todo.pop()))
        for device, events in enumerate(self.events):
            if len(events) < len(self.order.steps[device]):
                told = ";".join(map(str, self.order.steps[device][len(events)]))
                raise InputError(
                    f"schedule {self.order.name}", "order", f"device {device} waits for ever before {told}",
                    "order every pass after those that it needs",
                )  # fmt: skip
        ran = tuple(tuple(events) for events in self.events)
        return Run(self.order, self.pipe, self.transfers, ran, tuple(self.sends), self._peaks())

    def _homes(self) -> list[int]:
        """[2 * pieces * microbatches] device of each forward and backward pass."""
        home = [0] * len(self.done)
        for device, steps in enumerate(self.order.steps):
            for step in steps:
                for action in step:
                    if action.kind != "W":
                        home[self._key(action)] = device
        return home

    def _key(self, action: Action) -> int:
        m = self.order.microbatches
        forward = action.piece * m + action.microbatch
        return forward if action.kind == "F" else self.order.pieces * m + forward

    def _own(self, action: Action) -> int | None:
        """The result of the same piece and microbatch that a pass needs; its device runs both, so it is no wait."""
        key = self._key(action)
        if action.kind == "F":
            return None
        return key if action.kind == "W" else key - self.order.pieces * self.order.microbatches

    def _other(self, action: Action) -> int | None:
        """The result of the piece before, or of the one after, that a pass needs."""
        key, m = self._key(action), self.order.microbatches
        if action.kind == "F":
            return key - m if action.piece else None
        return key + m if action.kind != "W" and action.piece < self.order.pieces - 1 else None

    def _advance(self, device: int) -> list[int]:
        """Runs a device as far as it can; the devices that may go on now."""
        woken: list[int] = []
        steps, events = self.order.steps[device], self.events[device]
        while len(events) < len(steps):
            step = steps[len(events)]
            start, after = self.free[device], (device, len(events) - 1) if events else None
            for action in step:
                own, other = self._own(action), self._other(action)
                if own is not None and self.done[own] is None:
                    return woken
                if other is None:
                    continue
                found = self.done[other]
                if found is None:
                    self.waiting[other] = device
                    return woken
                if found[0] > start:
                    start, after = found[0], found[1:]
            end = start + self.seconds.of(step)
            self.free[device] = end
            for action in step:
                if action.kind != "W":
                    woken += self._finish(action, device, end)
            events.append(Event(step, start, end, after))
        return woken

    def _finish(self, action: Action, device: int, end: float) -> list[int]:
        """Notes a result and sends it on; the devices that waited for it."""
        key, index = self._key(action), len(self.events[device])
        self.done[key] = (end, device, index)
        forward, m = action.kind == "F", self.order.microbatches
        boundary = action.piece if forward else action.piece - 1
        if 0 <= boundary < self.order.pieces - 1 and self.seconds.link_s[boundary] > 0:
            target = self.home[key + m if forward else key - m]
            begin = max(end, self.link_free[device, target])
            arrival = begin + self.seconds.link_s[boundary]
            self.link_free[device, target] = arrival
            self.sends.append(Send(device, target, action, begin, arrival))
            self.done[key] = (arrival, device, index)
        woken = self.waiting.pop(key, None)
        return [] if woken is None else [woken]

    def _peaks(self) -> tuple[float, ...]:
        """[devices] the most bytes at once."""
        return tuple(
            fixed + max(held for _, held in held_bytes(self.pipe, events))
            for fixed, events in zip(self.pipe.fixed_bytes, self.events, strict=True)
        )


def held_bytes(pipe: Pipe, events: Sequence[Event]) -> Iterator[tuple[float, float]]:
    """(seconds, bytes of activations from then on) of a device, in time: a pass takes its room as it starts, and gives
    it back as it ends."""
    held = 0.0
    for event in events:
        held += sum(pipe.kept_bytes[action.piece] for action in event.step if action.kind == "F")
        yield event.start_s, held
        for piece, kind, _ in event.step:
            if kind in ("B", "I"):
                held -= pipe.kept_bytes[piece]
            if kind == "I":
                held += pipe.operand_bytes[piece]
            elif kind == "W":
                held -= pipe.operand_bytes[piece]
        yield event.end_s, held
