"""Who asks when: requests at random times, requests of a record, or users who ask again as soon as they are served."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.arithmetic import log
from placement.problem.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Recorded:
    """Requests of a record: [requests] ascending seconds of arrival, input and output tokens."""

    arrival_s: FloatArray
    isl: IntArray
    osl: IntArray

    @property
    def requests_per_s(self) -> float:
        """Mean rate; inf where all come at once."""
        span = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self.arrival_s) - 1) / span if span > 0 else float("inf")

    def at_rate(self, requests_per_s: float) -> Recorded:
        """The same requests, faster or slower."""
        scale = self.requests_per_s / requests_per_s
        return Recorded((self.arrival_s - self.arrival_s[0]) * scale, self.isl, self.osl)


def poisson(requests_per_s: float, count: int, seed: int) -> FloatArray:
    """[count] ascending times of arrivals at random."""
    uniform = np.random.default_rng(seed).random(count)
    return np.asarray(np.cumsum(-log(1.0 - uniform)) / requests_per_s)


@dataclass(frozen=True)
class AtRandom:
    """Requests of the workload's lengths, each at a time of its own (a Poisson process)."""

    requests_per_s: float


@dataclass(frozen=True)
class InFlight:
    """So many requests at all times: one that is done makes room for the next.

    Attributes:
        recorded: whose lengths they have; None: the workload's.
    """

    requests: int
    recorded: Recorded | None = None


Demand = AtRandom | Recorded | InFlight
