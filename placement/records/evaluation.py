"""Figures of a plan and its baselines on other routing."""

from __future__ import annotations

from dataclasses import dataclass

from placement.records.role import RoleName, StrategyRecord, one_of_role


@dataclass(frozen=True)
class Row:
    """One strategy's figures, without its placement; `own` marks the plan's."""

    own: bool
    record: StrategyRecord


@dataclass(frozen=True)
class RoleEvaluation:
    """Figures of one role; `rows`: its strategies, in the plan's order."""

    role: RoleName
    rows: tuple[Row, ...]

    @property
    def own(self) -> StrategyRecord | None:
        """The plan's own figures."""
        return next((row.record for row in self.rows if row.own), None)


@dataclass(frozen=True)
class Evaluation:
    """One trace's figures.

    Attributes:
        trace, file: its name, and its path as given ("" for an object). part: which sequences count.
        tokens: how many tokens they have. roles: those evaluated, in the plan's order.
    """

    trace: str
    file: str
    part: str
    tokens: int
    synthetic: bool
    roles: tuple[RoleEvaluation, ...]

    def role(self, name: RoleName | str | None = None) -> RoleEvaluation:
        """The role of that name, or the only one.

        Raises:
            ParameterError: There is none, or there are several.
        """
        return one_of_role(self.roles, name)

    def __repr__(self) -> str:
        told = "; ".join(
            f"{part.role} {own.tokens_per_s:,.0f} tokens/s, balancedness {own.balancedness:.3f}"
            for part in self.roles
            if (own := part.own) is not None
        )
        return f"<Evaluation on {self.trace}: {told or 'no figures'}>"
