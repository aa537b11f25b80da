"""What is known of a layer's routing: loads by window, tokens as sets of experts, drift."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from placement.arithmetic import weighted_sum
from placement.errors import InputError
from placement.problem.arrays import FloatArray, FrozenArrays, frozen

#: Shares that should sum to 1 may be off by this much.
SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class TokenSets(FrozenArrays):
    """The distinct k-sets of experts that tokens of a layer use.

    Attributes:
        ids: [sets, k] experts, ascending in each row.
        weight: [windows, sets] share of the window's tokens; each row sums to 1.

    Raises:
        InputError: shapes that don't match, ids that are negative or not ascending, or weights that are no shares.
    """

    ids: NDArray[np.int32]
    weight: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", frozen(self.ids, np.int32))
        object.__setattr__(self, "weight", frozen(self.weight, np.float64))
        if self.ids.ndim != 2 or 0 in self.ids.shape or self.weight.shape[1:] != self.ids.shape[:1]:
            shapes = f"ids of {self.ids.shape} and weights of {self.weight.shape}"
            raise InputError("layer", "sets", shapes, "give [sets, k] ids and [windows, sets] weights")
        if self.ids.min() < 0 or (self.ids[:, 1:] <= self.ids[:, :-1]).any():
            raise InputError("layer", "sets", "ids are negative or not ascending", "sort each set's distinct experts")
        for window, row in enumerate(self.weight):
            check_shares("sets", row, f"the weights of window {window}")


@dataclass(frozen=True)
class LayerData(FrozenArrays):
    """Routing of one layer.

    Attributes:
        load: [windows, experts] expected copies of a token that go to each expert (a row sums to k).
        window_weight: [windows] weight of each window in the mean; sums to 1. None: all alike.
        sets: tokens as k-sets; None where only load counts are known (then messages are counted per expert).
        drift: [experts, experts] covariance of the loads of short stretches of sequences, or None. No score sees it: it
            tells a solver which experts will grow busy together (placement.routing.drift).
        tokens: how many tokens the mean over windows was estimated from, unequal weights allowed for; None: unknown.
        comovement: [experts, experts] correlation of the loads of stretches inside a domain, mean over domains, or
            None: which experts another domain, too, will make busy together. No score sees it either.

    Raises:
        InputError: a field of the wrong shape or out of its range.
    """

    load: FloatArray
    window_weight: FloatArray = None  # type: ignore[assignment]
    sets: TokenSets | None = None
    drift: FloatArray | None = None
    tokens: float | None = None
    comovement: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "load", frozen(np.atleast_2d(self.load), np.float64))
        if self.window_weight is None:
            object.__setattr__(self, "window_weight", np.full(len(self.load), 1.0 / len(self.load)))
        self._freeze("window_weight", np.float64)
        self._freeze("drift", np.float64)
        self._freeze("comovement", np.float64)
        if not np.isfinite(self.load).all() or (self.load < 0).any():
            raise InputError("loads", "load", "loads must be finite and not negative", "mend the counts")
        if (self.load.sum(axis=1) <= 0).any():
            raise InputError("loads", "load", "a window has no load at all", "leave empty windows out")
        if self.window_weight.shape != (self.windows,):
            told = f"shape {self.window_weight.shape} for {self.windows} windows"
            raise InputError("layer", "window_weight", told, "give one weight a window")
        check_shares("window_weight", self.window_weight, "the weights")
        if self.tokens is not None and not self.tokens > 0:
            raise InputError("layer", "tokens", f"{self.tokens:g} is not positive", "give their number, or None")
        for name in ("drift", "comovement"):
            self._check_square(name, getattr(self, name))
        if self.sets is None:
            return
        if self.sets.weight.shape[0] != self.windows:
            raise InputError(
                "trace", "windows", "token sets and loads have unlike windows", "build both from one trace"
            )
        if self.sets.ids.max() >= self.experts:
            told = f"hold expert {self.sets.ids.max()} of {self.experts}"
            raise InputError("layer", "sets", told, f"use experts from 0 to {self.experts - 1}")

    def _check_square(self, name: str, found: FloatArray | None) -> None:
        if found is None:
            return
        if found.shape != (self.experts, self.experts):
            raise InputError("layer", name, f"{found.shape} for {self.experts} experts", "give a square")
        if not np.isfinite(found).all():
            raise InputError("layer", name, "entries must be finite", "mend the counts")

    def of_experts(self, experts: int) -> LayerData:
        """The routing of a layer that has only the first `experts` of them.

        Raises:
            InputError: tokens go to one that the layer has not.
        """
        if experts == self.experts:
            return self
        if experts > self.experts or self.load[:, experts:].any():
            told = f"tokens go to experts beyond the layer's {experts}"
            raise InputError("layer", "load", told, "use a recording of this model")
        drift, comovement = (
            None if part is None else part[:experts, :experts] for part in (self.drift, self.comovement)
        )
        return LayerData(self.load[:, :experts], self.window_weight, self.sets, drift, self.tokens, comovement)

    @property
    def experts(self) -> int:
        return int(self.load.shape[1])

    @property
    def windows(self) -> int:
        return int(self.load.shape[0])

    @cached_property
    def mean_load(self) -> FloatArray:
        """[experts] load, averaged over the windows."""
        return frozen(weighted_sum(self.window_weight, self.load), np.float64)


def check_shares(field: str, shares: FloatArray, told: str) -> None:
    """Refuses shares that are not finite, negative, or don't sum to 1.

    Raises:
        InputError: so they are; the message calls them `told`.
    """
    if not np.isfinite(shares).all() or (shares < 0).any():
        raise InputError("layer", field, f"{told} must be finite and not negative", "mend them")
    if abs(float(shares.sum()) - 1.0) > SUM_TOLERANCE:
        raise InputError("layer", field, f"{told} sum to {shares.sum():g}", "shares sum to 1")
