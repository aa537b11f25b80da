"""List scheduling: each device takes the most pressing pass that is ready, under its memory.

Backward passes for inputs come before forward passes, and weight passes fill what is left (as in arXiv 2401.10241,
section 3.1). How far forward passes run ahead and how many weight passes wait are tried in turn; the simulation judges.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

from placement.cost.training.schedule.order import Action, Kind, Order, Step, order_of
from solvers.schedule.problem import ShopProblem

#: Microbatches in flight at a piece over the pieces that are left behind it.
AHEAD = (1.0, 1.25, 1.5, 2.0, math.inf)
#: Weight passes of a device that may wait, over the devices.
LATE = (0.0, 0.5, 1.0, math.inf)


@dataclass(frozen=True)
class Policy:
    """What is taken when.

    Attributes:
        ahead: [pieces] most microbatches between a forward pass and the backward pass for inputs.
        late: Weight passes of a device that may wait; one more runs at once.
    """

    ahead: tuple[float, ...]
    late: float


def policies(problem: ShopProblem) -> Iterator[Policy]:
    """The policies that are tried."""
    pieces, devices = problem.pipe.pieces, problem.devices
    for factor in AHEAD:
        ahead = tuple(
            math.ceil(factor * (pieces - piece)) if factor < math.inf else math.inf for piece in range(pieces)
        )
        for late in LATE:
            yield Policy(ahead, late * devices)


def list_order(problem: ShopProblem, policy: Policy, name: str = "list") -> Order | None:
    """The order that a policy makes; None where memory has no room for a microbatch."""
    return _Listing(problem, policy).run(name)


class _Listing:
    def __init__(self, problem: ShopProblem, policy: Policy) -> None:
        self.problem, self.policy, self.pipe = problem, policy, problem.pipe
        n, m = self.pipe.pieces, problem.microbatches
        self.seconds = problem.seconds
        self.room = problem.room_bytes
        self.pieces = [problem.pieces_of(device) for device in range(problem.devices)]
        self.held = [0.0] * problem.devices
        self.free = [0.0] * problem.devices
        self.steps: list[list[Step]] = [[] for _ in range(problem.devices)]
        #: [pieces] passes begun: forward, backward for inputs, weights; whole backward passes count for both.
        self.forward, self.backward = [0] * n, [0] * n
        self.waiting: list[list[int]] = [[] for _ in range(n)]
        #: [pieces][microbatches so far] when inputs arrive.
        self.forward_at: list[list[float]] = [[0.0] * m if piece == 0 else [] for piece in range(n)]
        self.backward_at: list[list[float]] = [[] for _ in range(n)]

    def run(self, name: str) -> Order | None:
        m = self.problem.microbatches
        todo = [(0.0, device) for device in range(self.problem.devices)]
        while todo:
            now, device = heapq.heappop(todo)
            if self.free[device] > now:
                continue
            action = self._choose(device, now)
            if action is None:
                continue
            end = now + self.seconds.of((action,))
            self.free[device] = end
            self.steps[device].append((action,))
            heapq.heappush(todo, (end, device))
            for at, other in self._finish(action, end):
                heapq.heappush(todo, (at, other))
        if any(count < m for count in self.backward) or any(self.waiting):
            return None
        return order_of(name, self.pipe.pieces, m, self.steps)

    def _choose(self, device: int, now: float) -> Action | None:
        pieces = self.pieces[device]
        late = [piece for piece in pieces if self.waiting[piece]]
        if late and sum(len(self.waiting[piece]) for piece in late) > self.policy.late:
            return self._weights(late)
        # The latest piece first: it holds what is oldest.
        for piece in reversed(pieces):
            at = self.backward[piece]
            if at < len(self.backward_at[piece]) and self.backward_at[piece][at] <= now:
                grows = self.pipe.operand_bytes[piece] - self.pipe.kept_bytes[piece]
                kind: Kind = "I" if self.held[device] + grows <= self.room[device] else "B"
                return Action(piece, kind, at)
        for piece in reversed(pieces):
            at = self.forward[piece]
            if at < len(self.forward_at[piece]) and self.forward_at[piece][at] <= now and self._has_room(device, piece):
                return Action(piece, "F", at)
        return self._weights(late) if late else None

    def _weights(self, late: list[int]) -> Action:
        piece = max(late, key=lambda each: len(self.waiting[each]))
        return Action(piece, "W", self.waiting[piece][0])

    def _has_room(self, device: int, piece: int) -> bool:
        """Whether a forward pass may run: its microbatch must find room in the device's later pieces, too."""
        if self.forward[piece] - self.backward[piece] >= self.policy.ahead[piece]:
            return False
        needed = sum(self.pipe.kept_bytes[each] for each in self.pieces[device] if each >= piece)
        return self.held[device] + needed <= self.room[device]

    def _finish(self, action: Action, end: float) -> Iterator[tuple[float, int]]:
        """Notes a pass that ends; (time, device) of whoever may go on then."""
        piece, kind, number = action
        device, last = self.problem.homes[piece], self.pipe.pieces - 1
        if kind == "F":
            self.forward[piece] += 1
            self.held[device] += self.pipe.kept_bytes[piece]
            if piece < last:
                yield self._arrives(self.forward_at, piece + 1, end + self.seconds.link_s[piece])
            else:
                yield self._arrives(self.backward_at, piece, end)
        elif kind == "W":
            self.waiting[piece].remove(number)
            self.held[device] -= self.pipe.operand_bytes[piece]
        else:
            self.backward[piece] += 1
            self.held[device] -= self.pipe.kept_bytes[piece]
            if kind == "I":
                self.waiting[piece].append(number)
                self.held[device] += self.pipe.operand_bytes[piece]
            if piece:
                yield self._arrives(self.backward_at, piece - 1, end + self.seconds.link_s[piece - 1])

    def _arrives(self, queue: list[list[float]], piece: int, at: float) -> tuple[float, int]:
        # A link carries one transfer at a time.
        queue[piece].append(max(at, queue[piece][-1] if queue[piece] else 0.0))
        return queue[piece][-1], self.problem.homes[piece]
