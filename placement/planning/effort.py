"""How long and with what to search. Nothing of it changes what is asked."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field

from placement.errors import ParameterError
from solvers.parallel import Backend
from solvers.params import DEFAULTS, SearchParams
from solvers.stop import Interrupt, Stop

#: As of a MILP solver: nothing is searched where a heuristic is proven within so much of the optimum.
DEFAULT_GAP = 0.01


@dataclass(frozen=True)
class Budget:
    """When solving stops.

    Attributes:
        work: Effort of search and bounds over the default. The plan depends on it and the seed, not on the clock.
        time_limit: Seconds after which the best answer so far is taken, or None. They are shared out between all
            steps and count from when the case was posed. Plans cut by it may differ, and say what was cut.
        gap: (objective - bound) / bound of a layer's best heuristic from which on `auto` searches nothing. Where token
            sets are a sample it is no less than what the search must gain (`SearchParams.least_gain`). A half that
            carries all that the other one can is near enough at any (placement.planning.worth). 0 searches all.

    Raises:
        ParameterError: A value that is not positive and finite; a gap that is no share.
    """

    work: float = 1.0
    time_limit: float | None = None
    gap: float = DEFAULT_GAP

    def __post_init__(self) -> None:
        if not 0 <= self.gap <= 1:
            raise ParameterError("gap", f"{self.gap:g} is no share", "give a number from 0 to 1")
        for name in ("work", "time_limit"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ParameterError(name, f"{value:g} is not a positive number", "give a positive number")

    @property
    def stated_gap(self) -> float | None:
        """The gap, as plans state it: None where it is the default."""
        return None if self.gap == DEFAULT_GAP else self.gap


@dataclass(frozen=True)
class Effort:
    """A budget, the seed of every random choice, and what runs layers in parallel.

    Attributes:
        params: What may be set of the search.
        workers: Processes or threads; 0 takes one per core. backend: None: processes, or threads where little is to do.
        interrupt: A wish to end with the best answer so far, or None.
        began: When the clock of the time limit started (time.monotonic).

    Raises:
        ParameterError: A seed or number of workers out of range.
    """

    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    workers: int = 0
    backend: Backend | None = None
    params: SearchParams = DEFAULTS
    interrupt: Interrupt | None = field(default=None, compare=False)
    began: float = field(default_factory=time.monotonic, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ParameterError("seed", f"{self.seed} is not in the range 0 to 2**63 - 1", "give another seed")
        if self.workers < 0:
            raise ParameterError("workers", f"{self.workers} workers", "give 0 for one per core, or more")

    @property
    def threads(self) -> int:
        """Workers: as asked, or one per core of this process."""
        return self.workers or len(os.sched_getaffinity(0))

    def stop(self) -> Stop:
        """The budget as a stop criterion, by one clock however often it is asked for."""
        limit = self.budget.time_limit
        deadline = None if limit is None else self.began + limit
        return Stop(self.budget.work, deadline, self.params, self.budget.gap, self.interrupt)
