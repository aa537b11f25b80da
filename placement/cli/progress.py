"""Progress on stderr, for work that takes over a second: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from placement.planning.progress import Progress

#: Nothing is shown before this many seconds; the first plain line is written then.
QUIET_S = 1.5
#: Seconds between plain lines at first; later there are fewer.
LINE_EVERY_S = 5.0


class ProgressBar:
    """Shows the latest Progress that it was called with. Use as a context manager.

    A thread of its own shows it, so that a stage without steps is seen, too.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._at: Progress | None = None
        self._since = time.monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._label = ""

    def __enter__(self) -> Self:
        if not self._quiet:
            self._thread = threading.Thread(target=self._show, args=(sys.stderr.isatty(),), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, at: Progress) -> None:
        """Notes where the work is."""
        from placement.planning.progress import COMPILING

        if at.stage == COMPILING:
            if not self._quiet:
                print(f"{at.stage}: about a minute, later runs do without", file=sys.stderr, flush=True)
            return
        if self._at is None or at.stage != self._at.stage:
            self._since = time.monotonic()
        self._at = at

    def _show(self, terminal: bool) -> None:
        """Runs in the thread."""
        wait, began = QUIET_S, time.monotonic()
        while not self._ended.wait(wait):
            wait = 0.2 if terminal else max(LINE_EVERY_S, (time.monotonic() - began) / 4)
            if self._at is None:
                continue
            if terminal:
                self._show_bar(self._at)
            else:
                print(told(self._at, time.monotonic() - self._since), file=sys.stderr, flush=True)

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


def told(at: Progress, seconds: float) -> str:
    """One line: the stage, its steps, and the time left if the others take as long; `seconds`: since it began."""
    if at.total <= 1:
        return f"{at.stage}: {seconds:.0f} s so far"
    line = f"{at.stage}: {at.done} of {at.total}"
    if not 0 < at.done < at.total:
        return line
    left = seconds / at.done * (at.total - at.done)
    return f"{line}, about {left:.0f} s left" if left < 90 else f"{line}, about {left / 60:.0f} min left"
