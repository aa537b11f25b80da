"""Figures of a plan and its baselines on other routing."""

from __future__ import annotations

from dataclasses import dataclass

from placement.records.role import StrategyRecord


@dataclass(frozen=True)
class Row:
    """One strategy's figures, without its placement; `own` marks the plan's."""

    own: bool
    record: StrategyRecord


@dataclass(frozen=True)
class Evaluation:
    """One trace's figures.

    Attributes:
        trace, file: its name, and its path as given ("" for an object). part: which sequences count.
        tokens: how many tokens they have. rows: the strategies of the plan, in its order.
    """

    trace: str
    file: str
    part: str
    tokens: int
    synthetic: bool
    rows: tuple[Row, ...]

    @property
    def own(self) -> StrategyRecord | None:
        """The plan's own figures."""
        return next((row.record for row in self.rows if row.own), None)

    def __repr__(self) -> str:
        own = self.own
        figures = "" if own is None else f" {own.tokens_per_s:,.0f} tokens/s, balancedness {own.balancedness:.3f},"
        return f"<Evaluation on {self.trace}:{figures} {len(self.rows)} strategies>"
