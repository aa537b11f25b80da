"""The orders of the published schedules. The microbatches of a piece run in turn, so an order is a choice of pieces.

Sources: GPipe (arXiv 1811.06965); 1F1B and interleaved 1F1B (arXiv 2104.04473, section 2.2); ZB-H1 and ZB-V (arXiv
2401.10241, sections 2.3 and 6); DualPipe (arXiv 2412.19437, section 3.2.1) and DualPipe-V with the eight steps of
DeepSeek's published code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from placement.cost.training.schedule.order import Action, Kind, Order, Step, order_of
from placement.errors import InputError

#: Schedules that can be simulated: those that a workload may state, and ZB-V.
OrderName = Literal["gpipe", "1f1b", "interleaved", "zb_h1", "zb_v", "dualpipe", "dualpipe_v"]
ORDERS: tuple[OrderName, ...] = get_args(OrderName)


def schedule_order(name: OrderName, devices: int, microbatches: int, chunks: int = 2) -> Order:
    """The order of a published schedule.

    Args:
        name: Which.
        devices: Pipeline ranks.
        microbatches: Of a step.
        chunks: Pieces of a device under `interleaved`; the others have their own number.

    Raises:
        InputError: the schedule does not exist for so many devices and microbatches.
    """
    problem = _problem(name, devices, microbatches)
    if problem:
        raise InputError(f"schedule {name}", "microbatches", problem, "choose another number, pp or schedule")
    return _MAKERS[name](devices, microbatches, chunks)


def _problem(name: OrderName, devices: int, m: int) -> str:
    if min(devices, m) < 1:
        return f"{devices} devices and {m} microbatches are not both positive"
    if name == "interleaved" and m % max(1, m // devices):
        return f"{m} are not {max(1, m // devices)} equal rounds over {devices} devices"
    if name == "dualpipe" and (devices % 2 or m % 2 or m < 2 * devices):
        return f"it needs an even pp and an even number of at least 2 pp; pp is {devices}, there are {m}"
    if name == "dualpipe_v" and m < 2 * devices:
        return f"it needs at least 2 pp = {2 * devices}, there are {m}"
    return ""


class _Writer:
    """Writes one device's order: counts the microbatches of each piece, and remembers which weight passes are put off.

    Args:
        first: The first microbatch of a piece, where that is not 0.
    """

    def __init__(self, first: Mapping[int, int] | None = None) -> None:
        self.steps: list[Step] = []
        self._next: dict[tuple[int, bool], int] = {}
        self._first = first or {}
        self._put_off: deque[tuple[int, int]] = deque()

    def forward(self, piece: int) -> None:
        self.steps.append((self._take(piece, "F"),))

    def backward(self, piece: int) -> None:
        """The whole backward pass."""
        self.steps.append((self._take(piece, "B"),))

    def inputs(self, piece: int) -> None:
        """The backward pass for inputs; the one for weights is put off."""
        action = self._take(piece, "I")
        self._put_off.append((piece, action.microbatch))
        self.steps.append((action,))

    def weights(self, piece: int | None = None) -> None:
        """The weight pass, of that piece or any, that was put off longest."""
        at = next(i for i, put_off in enumerate(self._put_off) if piece in (None, put_off[0]))
        found = self._put_off[at]
        del self._put_off[at]
        self.steps.append((Action(found[0], "W", found[1]),))

    def late_weights(self, piece: int | None = None) -> None:
        """All weight passes, of that piece or any, that were put off."""
        while any(piece in (None, put_off[0]) for put_off in self._put_off):
            self.weights(piece)

    def pair(self, forward: int, backward: int) -> None:
        """A forward and a whole backward pass at once."""
        self.steps.append((self._take(forward, "F"), self._take(backward, "B")))

    def forwards(self, piece: int) -> int:
        """Forward passes of a piece so far."""
        return self._next.get((piece, True), 0)

    def _take(self, piece: int, kind: Kind) -> Action:
        key = (piece, kind == "F")
        number = self._next.get(key, 0)
        self._next[key] = number + 1
        return Action(piece, kind, number + self._first.get(piece, 0))


def _gpipe(devices: int, m: int, chunks: int) -> Order:
    steps = []
    for device in range(devices):
        writer = _Writer()
        for _ in range(m):
            writer.forward(device)
        for _ in range(m):
            writer.backward(device)
        steps.append(writer.steps)
    return order_of("gpipe", devices, m, steps)


def _one_f_one_b(devices: int, m: int, chunks: int) -> Order:
    return _interleaved_of("1f1b", devices, m, 1, lambda device: devices - 1 - device)


def _interleaved(devices: int, m: int, chunks: int) -> Order:
    rounds = m // max(1, m // devices)
    return _interleaved_of(
        "interleaved", devices, m, chunks, lambda device: (chunks - 1) * rounds + 2 * (devices - 1 - device)
    )


def _interleaved_of(name: str, devices: int, m: int, chunks: int, ahead: Callable[[int], int]) -> Order:
    """One forward, one backward, after `ahead(device)` forward passes; pieces take turns by rounds of microbatches."""
    each = m // max(1, m // devices)
    steps = []
    for device in range(devices):
        writer = _Writer()
        turns = [i // each % chunks for i in range(m * chunks)]
        warm = min(ahead(device), len(turns))
        for i in range(warm):
            writer.forward(turns[i] * devices + device)
        for i, turn in enumerate(turns):
            if warm + i < len(turns):
                writer.forward(turns[warm + i] * devices + device)
            writer.backward((chunks - 1 - turn) * devices + device)
        steps.append(writer.steps)
    return order_of(name, devices * chunks, m, steps)


def _zb_h1(devices: int, m: int, chunks: int) -> Order:
    """1F1B whose device d runs weight passes d microbatches late."""
    steps = []
    for device in range(devices):
        writer = _Writer()
        warm = min(devices - 1 - device, m)
        for _ in range(warm):
            writer.forward(device)
        for i in range(m):
            if warm + i < m:
                writer.forward(device)
            writer.inputs(device)
            if i >= device:
                writer.weights()
        writer.late_weights()
        steps.append(writer.steps)
    return order_of("zb_h1", devices, m, steps)


def _zb_v(devices: int, m: int, chunks: int) -> Order:
    """The handcrafted order of ZB-V, cut off after `m` microbatches where it is longer."""
    many, steps = max(m, 2 * devices - 1), []
    for device in range(devices):
        near, far, writer = device, 2 * devices - 1 - device, _Writer()

        def whole(piece: int, writer: _Writer = writer) -> None:
            writer.inputs(piece)
            writer.weights(piece)

        for _ in range(2 * (devices - device) - 1):
            writer.forward(near)
        for _ in range(device):
            writer.forward(far)
            writer.forward(near)
        for _ in range(devices - device):
            writer.forward(far)
            whole(far)
        while writer.forwards(far) < many:
            if writer.forwards(near) < many:
                writer.forward(near)
            whole(near)
            writer.forward(far)
            whole(far)
        for _ in range(device):
            writer.inputs(near)
            writer.inputs(far)
        for _ in range(devices - device):
            writer.inputs(near)
            writer.weights(near)
        writer.late_weights(far)
        writer.late_weights()
        steps.append([step for step in writer.steps if step[0].microbatch < m])
    return order_of("zb_v", 2 * devices, m, steps)


def _dualpipe(devices: int, m: int, chunks: int) -> Order:
    """Half of the microbatches enter at each end: those from the last device are numbered from m / 2."""
    half, steps = devices // 2, []
    for device in range(devices):
        mirror, distance = devices - 1 - device, min(device, devices - 1 - device)
        # `device` is the piece of the microbatches that enter at device 0, `mirror` of the others.
        near, far = (device, mirror) if device < half else (mirror, device)
        writer = _Writer({mirror: m // 2})
        _two_way(writer, half, distance, m // 2, near, far)
        steps.append(writer.steps)
    return order_of("dualpipe", devices, m, steps)


def _dualpipe_v(devices: int, m: int, chunks: int) -> Order:
    steps = []
    for device in range(devices):
        writer = _Writer()
        _two_way(writer, devices, device, m, device, 2 * devices - 1 - device)
        steps.append(writer.steps)
    return order_of("dualpipe_v", 2 * devices, m, steps)


def _two_way(writer: _Writer, half: int, distance: int, visits: int, near: int, far: int) -> None:
    """The eight steps of a device `distance` from the nearer end; `visits` microbatches pass each of its two pieces."""
    inner = half - distance - 1
    for _ in range(2 * inner):
        writer.forward(near)
    for _ in range(distance + 1):
        writer.forward(near)
        writer.forward(far)
    for _ in range(inner):
        writer.inputs(far)
        writer.weights()
        writer.forward(far)
    for i in range(visits - 2 * half + distance + 1):
        if i == 0 and inner == 0:
            # Apart, they shorten the bubble.
            writer.forward(near)
            writer.backward(far)
        else:
            writer.pair(near, far)
        writer.pair(far, near)
    for _ in range(inner):
        writer.backward(far)
        writer.pair(far, near)
    # The later half of the last backward passes puts off its weight passes.
    last = 2 * (distance + 1)
    for i in range(last):
        run = writer.inputs if i > distance else writer.backward
        run(near if i % 2 else far)
    for _ in range(inner):
        writer.weights()
        writer.inputs(near)
    writer.late_weights()


_MAKERS: Mapping[OrderName, Callable[[int, int, int], Order]] = {
    "gpipe": _gpipe,
    "1f1b": _one_f_one_b,
    "interleaved": _interleaved,
    "zb_h1": _zb_h1,
    "zb_v": _zb_v,
    "dualpipe": _dualpipe,
    "dualpipe_v": _dualpipe_v,
}
