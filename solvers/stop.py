"""When and how a search runs: a budget of work (deterministic), a wall-clock deadline, and the search's parameters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Self

from solvers.params import DEFAULTS, SearchParams

#: Seconds that compiled work goes on without a look at the clock.
SLICE_S = 0.1


class Interrupt:
    """A user's wish to end with the best answer so far. A signal handler tells it by `ask`; searches heed it.

    Attributes:
        heard: whether there was such a wish, and something to keep.
        searching: whether a search runs now, which KeyboardInterrupt ends.
    """

    def __init__(self) -> None:
        self.heard = self.searching = self._begun = False

    def ask(self) -> bool:
        """Notes the wish.

        Returns:
            Whether KeyboardInterrupt is to be raised: it ends a search, or everything where no search has begun or a
            wish came before. Elsewhere the work ends by itself, as after a deadline.
        """
        first, self.heard = not self.heard, self._begun
        return self.searching or not (first and self._begun)

    @contextmanager
    def search(self) -> Iterator[None]:
        """A search that a wish ends: what its block had found by then stands."""
        self._begun = self.searching = True
        try:
            yield
        except KeyboardInterrupt:
            if not self.heard:
                raise
        finally:
            self.searching = False


@dataclass(frozen=True)
class Stop:
    """Small composable stop criterion.

    Attributes:
        work: relative amount of work; 1.0 is each solver's default (iterations, CP-SAT deterministic seconds), so
            that a plan depends on the seed and not on the machine.
        deadline: time.monotonic() value after which a solver returns its best answer so far, or None. A plan that
            was cut by a deadline may differ from run to run, and its termination says so.
        params: what a user may set of the search.
        gap: (objective - bound) / bound from which on an answer is near enough: nothing better is sought. At 0 all is.
        interrupt: a wish to end, or None; once it was heard, all deadlines have passed.
    """

    work: float = 1.0
    deadline: float | None = None
    params: SearchParams = DEFAULTS
    gap: float = 0.0
    interrupt: Interrupt | None = field(default=None, compare=False)

    @classmethod
    def after(cls, seconds: float | None, work: float = 1.0, params: SearchParams = DEFAULTS) -> Self:
        """Stops after `work`, or `seconds` from now if that is sooner."""
        return cls(work, None if seconds is None else time.monotonic() + seconds, params)

    def seconds_left(self) -> float | None:
        """Seconds until the deadline (0 when past), or None without one."""
        if self.interrupted:
            return 0.0
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def interrupted(self) -> bool:
        return self.interrupt is not None and self.interrupt.heard

    @property
    def expired(self) -> bool:
        return self.interrupted or (self.deadline is not None and time.monotonic() >= self.deadline)

    def search(self) -> AbstractContextManager[None]:
        """A search: where it is interrupted, what its block had found by then stands."""
        return nullcontext() if self.interrupt is None else self.interrupt.search()

    def slices(self, total: int, first: int = 1000) -> Iterator[tuple[int, int]]:
        """(start, end) of parts of `total` units of work in turn, each of about SLICE_S by what the last one took; none
        after the deadline. Compiled functions work by such parts, so that deadlines and interrupts are seen.

        Args:
            first: units of the first part; the later ones grow from there.
        """
        done, part = 0, first
        while done < total and not self.expired:
            end, began = min(total, done + part), time.monotonic()
            yield done, end
            spent = max(time.monotonic() - began, 1e-6)
            part = max(1, int((end - done) * min(SLICE_S / spent, 8.0)))
            done = end

    def scaled(self, factor: float) -> Stop:
        """The same deadline with `factor` times the work."""
        return replace(self, work=self.work * factor)

    def share_of_time(self, share: float) -> Stop:
        """The same work, and a deadline after `share` of the time left."""
        left = self.seconds_left()
        return self if left is None else replace(self, deadline=time.monotonic() + left * share)


#: Stops after the default work, whatever the clock says.
DEFAULT = Stop()
