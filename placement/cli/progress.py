"""Progress on stderr, for work that takes over a second: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

#: Nothing is shown before this many seconds.
QUIET_S = 1.0
#: Seconds between plain lines.
LINE_EVERY_S = 5.0


class Progress:
    """A named stage with a count. Use as a context manager; `stage` starts the next stage."""

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._started = time.monotonic()
        self._last_line = self._started
        self._label, self._done, self._total = "", 0, 0
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, label: str, total: int = 1) -> None:
        """Begins a stage of `total` steps."""
        self._label, self._done, self._total = label, 0, total
        self._show(new=True)

    def advance(self, _: int = 0) -> None:
        """One step of the stage is done. Takes and ignores a position, so that it can be a callback."""
        self._done += 1
        self._show(new=False)

    def _show(self, new: bool) -> None:
        now = time.monotonic()
        if not self._enabled or now - self._started < QUIET_S:
            return
        if sys.stderr.isatty():
            self._show_bar(new)
        elif now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            print(f"{self._label}: {self._done}/{self._total}", file=sys.stderr, flush=True)

    def _show_bar(self, new: bool) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(console=Console(stderr=True), transient=True)
            self._bar.start()
            new = True
        if new or self._task is None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(self._label, total=self._total, completed=self._done)
        else:
            self._bar.update(self._task, completed=self._done)
