"""Progress on stderr, for work that takes over a second: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from placement.planning.progress import Progress

#: Nothing is shown before this many seconds.
QUIET_S = 1.0
#: Seconds between plain lines.
LINE_EVERY_S = 5.0


class ProgressBar:
    """Shows a Progress each time it is called with one. Use as a context manager."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last_line = self._started
        self._label = ""
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, at: Progress) -> None:
        """Shows where the work is."""
        from placement.planning.progress import COMPILING

        if at.stage == COMPILING:
            print(at.stage, file=sys.stderr, flush=True)
            return
        now = time.monotonic()
        if now - self._started < QUIET_S:
            return
        if sys.stderr.isatty():
            self._show_bar(at)
        elif now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            print(f"{at.stage}: {at.done}/{at.total}", file=sys.stderr, flush=True)

    def _show_bar(self, at: Progress) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(console=Console(stderr=True), transient=True)
            self._bar.start()
        if at.stage != self._label or self._task is None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._label = at.stage
            self._task = self._bar.add_task(at.stage, total=at.total, completed=at.done)
        else:
            self._bar.update(self._task, completed=at.done)
