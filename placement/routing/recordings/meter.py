"""How far a conversion is: bytes of stages, told in MB."""

from __future__ import annotations

from collections.abc import Callable

#: Called with a stage, how many MB of it are done, and how many it has.
Tell = Callable[[str, int, int], None]


class Meter:
    """Counts the bytes of a stage and tells of each MB."""

    def __init__(self, tell: Tell | None = None) -> None:
        """Tells `tell`, or nobody."""
        self._tell, self._label, self._total, self._told = tell, "", 0, 0
        self.done = 0

    def stage(self, label: str, total: int) -> None:
        """Begins a stage of `total` bytes."""
        self._label, self._total, self._told, self.done = f"{label}, MB", total, -1, 0
        self.advance(0)

    def advance(self, size: int) -> None:
        """So many bytes more are done."""
        self.reach(self.done + size)

    def reach(self, done: int) -> None:
        """So many bytes of the stage are done, at least."""
        self.done = max(self.done, done)
        now = min(self.done, self._total) // 10**6
        if self._tell is not None and now > self._told:
            self._told = now
            self._tell(self._label, now, max(1, self._total // 10**6))
