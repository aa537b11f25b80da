"""How much a migration may move."""

from __future__ import annotations

import math
from dataclasses import dataclass

from placement.errors import InfeasibleError, ParameterError


@dataclass(frozen=True)
class MoveBudget:
    """Most that a migration may move in an instance of a role; at most one is set.

    Attributes:
        max_moves: Experts that come to a GPU, in all layers. max_moves_percent: the same in percent of all slots.
        max_transfer_ms: Time that the busiest link is taken up.

    Raises:
        ParameterError: A value that is no budget, or more than one.
    """

    max_moves: int | None = None
    max_moves_percent: float | None = None
    max_transfer_ms: float | None = None

    def __post_init__(self) -> None:
        given = [
            name for name in ("max_moves", "max_moves_percent", "max_transfer_ms") if getattr(self, name) is not None
        ]
        for name in given:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ParameterError(name, f"{value:g} is no budget", "give a number from 0 on")
        if len(given) > 1:
            raise ParameterError(given[0], "more than one budget is given", f"leave out `{given[1]}`")

    @property
    def given(self) -> bool:
        """Whether there is a budget."""
        return any(value is not None for value in (self.max_moves, self.max_moves_percent, self.max_transfer_ms))

    def moves(self, slots: int) -> int | None:
        """The budget in moves of `slots` slots, or None."""
        if self.max_moves_percent is not None:
            # As written: 0.29 of 100 slots are 29, though the double is less.
            return int(slots * self.max_moves_percent / 100 + 1e-9)
        return self.max_moves

    def check_forced(self, slots: int, forced: int, seconds: float) -> None:
        """Whether there is room for what can't be left out.

        Args:
            slots: Of all layers.
            forced, seconds: Moves that failed, leaving or joining GPUs force, and the time of their transfers.

        Raises:
            InfeasibleError: They exceed the budget.
        """
        if self.max_transfer_ms is not None and seconds > self.max_transfer_ms * 1e-3:
            raise InfeasibleError(
                f"the {forced} moves that failed, leaving or joining GPUs force take {seconds * 1e3:.3g} ms, "
                f"{seconds * 1e3 - self.max_transfer_ms:.3g} ms over `max_transfer_ms`"
            )
        most = self.moves(slots)
        if most is not None and forced > most:
            raise InfeasibleError(
                f"failed, leaving or joining GPUs force {forced} moves, {forced - most} more than the budget of {most}"
            )
