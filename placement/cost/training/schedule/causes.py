"""Where a pipeline's time goes: what of the makespan is work, and what uneven pieces, transfers and filling cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from placement.cost.training.schedule.simulate import Run, simulate


@dataclass(frozen=True)
class Causes:
    """Parts of a makespan; they sum to it.

    Attributes:
        work_s: Passes of the mean device: no schedule of the same passes takes less.
        uneven_s: What the busiest device works longer.
        filling_s: What it waits: for the first and the last microbatches, and between passes.
        transfers_s: What transfers between devices add.
    """

    work_s: float
    uneven_s: float
    filling_s: float
    transfers_s: float

    @property
    def makespan_s(self) -> float:
        return self.work_s + self.uneven_s + self.filling_s + self.transfers_s


@dataclass(frozen=True)
class CriticalPath:
    """The chain of passes that the makespan consists of.

    Attributes:
        device_s: [devices] seconds of passes on it.
        transfer_s: Seconds of transfers on it that run beside the computation.
    """

    device_s: tuple[float, ...]
    transfer_s: float

    @property
    def device(self) -> int:
        """The device with most of it; the first of those that are even."""
        return max(range(len(self.device_s)), key=lambda device: self.device_s[device])


def causes_of(run: Run) -> Causes:
    """Take the makespan apart, by running the order again without transfers."""
    still = simulate(run.order, run.pipe.without_transfers(), run.transfers)
    work, most = sum(still.busy_s) / run.order.devices, max(still.busy_s)
    return Causes(
        work_s=work,
        uneven_s=most - work,
        filling_s=still.makespan_s - most,
        transfers_s=run.makespan_s - still.makespan_s,
    )


def critical_path(run: Run) -> CriticalPath:
    """The path back from the last event; a device's own order before a message where both came at once."""
    last = max(range(run.order.devices), key=lambda device: run.events[device][-1].end_s)
    at: tuple[int, int] | None = (last, len(run.events[last]) - 1)
    device_s: dict[int, float] = defaultdict(float)
    transfer_s = 0.0
    while at is not None:
        event = run.events[at[0]][at[1]]
        device_s[at[0]] += event.end_s - event.start_s
        if event.after is not None:
            transfer_s += event.start_s - run.events[event.after[0]][event.after[1]].end_s
        at = event.after
    return CriticalPath(tuple(device_s[device] for device in range(run.order.devices)), transfer_s)
