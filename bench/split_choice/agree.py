"""How far the planner's choices are from the engineers', by group, and why where it rates its own higher."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.split_choice.choose import Compared
from bench.split_choice.recipes import engine_of
from solvers.deploy.rivals.layouts import named

#: Sizes and ratios within this factor of each other are alike.
NEAR = 2.0
#: The planner rates its own pick higher from this gain on.
HIGHER = 1.10


@dataclass(frozen=True)
class Choice:
    """What of a deployment is compared.

    Attributes:
        prefill: GPUs of a prefill instance; None in one that serves whole requests. ratio: prefill GPUs over decode
            GPUs; likewise. decode: GPUs of an instance that decodes.
        family: "DEP": several attention ranks decode together; else "TP".
    """

    prefill: int | None
    ratio: float | None
    decode: int
    family: str

    @classmethod
    def made(cls, kinds: Sequence[tuple[str, int, int, int]]) -> Choice:
        """Of (role, instances, GPUs of one, its attention ranks)."""
        sizes = {role: (count, gpus, dp) for role, count, gpus, dp in kinds}
        count, gpus, dp = sizes["decode"] if "decode" in sizes else sizes["aggregated"]
        family = "DEP" if dp > 1 else "TP"
        if "prefill" not in sizes:
            return cls(None, None, gpus, family)
        first = sizes["prefill"]
        return cls(first[1], first[0] * first[1] / (count * gpus), gpus, family)


def theirs_of(compared: Compared) -> Choice:
    """What was configured."""
    return Choice.made([(w.role, w.count, w.gpus, named(w.layout).dp) for w in compared.recipe.workers])


def ours_of(compared: Compared) -> Choice | None:
    """What the planner chose; None where nothing fits."""
    if compared.ours is None:
        return None
    return Choice.made([(s.role, count, s.gpus, s.split.dp) for s, count in compared.ours.kinds])


@dataclass(frozen=True)
class Agreement:
    """How many rows of a group agree, each a share; None where no row has the figure.

    Attributes:
        prefill, ratio, decode: within NEAR of theirs. prefill_exactly: the same. family: the same.
        gain: median of the planner's own rating over that of theirs. higher: shares above HIGHER.
    """

    rows: int
    prefill: float | None
    prefill_exactly: float | None
    ratio: float | None
    decode: float | None
    family: float | None
    gain: float | None
    higher: float | None

    @classmethod
    def of(cls, rows: Sequence[Compared]) -> Agreement:
        """Over rows that were answered."""
        pairs = [(theirs_of(row), ours) for row in rows if (ours := ours_of(row)) is not None]
        gains = [row.gain for row in rows if row.gain is not None]
        return cls(
            rows=len(pairs),
            prefill=_share([_near(a.prefill, b.prefill) for a, b in pairs]),
            prefill_exactly=_share([None if a.prefill is None else a.prefill == b.prefill for a, b in pairs]),
            ratio=_share([_near(a.ratio, b.ratio) for a, b in pairs]),
            decode=_share([_near(a.decode, b.decode) for a, b in pairs]),
            family=_share([a.family == b.family for a, b in pairs]),
            gain=statistics.median(gains) if gains else None,
            higher=_share([gain > HIGHER for gain in gains]),
        )


def _near(one: float | None, other: float | None) -> bool | None:
    if one is None or other is None:
        return None
    return max(one, other) <= NEAR * min(one, other) * (1 + 1e-9)


def _share(told: Sequence[bool | None]) -> float | None:
    known = [each for each in told if each is not None]
    return sum(known) / len(known) if known else None


#: Groups of rows by kind: what a row belongs to.
GROUPS: dict[str, Callable[[Compared], str]] = {
    "engine": lambda row: engine_of(row.recipe.question) or row.recipe.question.engine,
    "family": lambda row: f"{theirs_of(row).family} decode",
    "model": lambda row: row.recipe.question.model,
    "GPU": lambda row: row.recipe.question.gpu,
    "lengths": lambda row: f"{row.recipe.question.isl}/{row.recipe.question.osl}",
    "draft tokens": lambda row: str(row.recipe.question.draft or "none"),
}


def grouped(rows: Sequence[Compared], kind: str) -> list[tuple[str, tuple[Compared, ...]]]:
    """The rows of each group of a kind, by name."""
    of = GROUPS[kind]
    return [(name, tuple(row for row in rows if of(row) == name)) for name in sorted({of(row) for row in rows})]
