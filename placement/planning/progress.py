"""What a use case tells of its progress: stages with a count, by callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where the work is: `done` of `total` steps of a stage."""

    stage: str
    done: int
    total: int


#: The stage that a first run begins with: it takes longer, and no later one does.
COMPILING = "compiling, once"

#: Called at the start of every stage and after each of its steps, from the calling thread.
OnProgress = Callable[[Progress], None]


class Reporter:
    """Counts the steps of stages and tells them to a callback, or to nobody."""

    def __init__(self, callback: OnProgress | None = None) -> None:
        self._callback = callback
        self._now = Progress("", 0, 1)

    def stage(self, label: str, total: int = 1) -> None:
        """Begins a stage of `total` steps."""
        self._tell(Progress(label, 0, total))

    def advance(self, _: int = 0) -> None:
        """One step of the stage is done. Takes and ignores a position, so that it can be a callback."""
        self._tell(Progress(self._now.stage, self._now.done + 1, self._now.total))

    def _tell(self, now: Progress) -> None:
        self._now = now
        if self._callback is not None:
            self._callback(now)
