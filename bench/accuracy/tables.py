"""The tables of `python -m bench accuracy`: ways to predict, held out in one kind of fold after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bench.accuracy.figures import Figures
from bench.accuracy.fit import Measured, predictions
from bench.accuracy.floor import Floor, floor_of
from bench.accuracy.folds import MEASUREMENT, Folds, folds_of
from bench.accuracy.rivals import aiconfigurator, regression
from bench.accuracy.samples import Sample
from bench.accuracy.validate import Judged, held_out, judge
from placement.cost.calibration.fitted import Calibration, load_calibration

#: Ways to predict.
NAMED, UNNAMED = "constants, engine named", "constants, no engine"
REGRESSION, RIVAL = "regression", "aiconfigurator"
#: The constants on the rows that the rival covers.
COVERED = "constants there, engine named"
STATED = "constants, all that is known of a run"
SHIPPED = "shipped"


@dataclass(frozen=True)
class Table:
    """Ways to predict the same rows.

    Attributes:
        kind: of the folds, or "shipped" for the constants as they are.
        parts: fits that were made.
        missing: why a rival has no line, in words.
        folds: samples of each part.
        planned: figures of every sample by the constants, with the engine named and without it.
    """

    kind: str
    parts: int
    judged: tuple[Judged, ...]
    missing: str = ""
    folds: Folds = ()
    planned: tuple[Sequence[Figures | None], ...] = ()

    @property
    def title(self) -> str:
        """What was held out."""
        if self.kind == SHIPPED:
            return "constants as shipped, nothing held out"
        return f"{self.parts} random folds" if self.kind == MEASUREMENT else f"held out by {self.kind}"


class Ways:
    """Ways to predict some samples; what is costly is worked out once."""

    def __init__(self, samples: Sequence[Sample], note: Callable[[str], None]) -> None:
        """`note` is told what takes long."""
        self.samples, self._note = tuple(samples), note

    @cached_property
    def measured(self) -> Measured:
        """What the constants are fitted to."""
        self._note(f"slopes of {len(self.samples)} measurements")
        return Measured.of([sample.stated for sample in self.samples])

    @cached_property
    def terms(self) -> tuple[regression.Terms, ...]:
        """Terms of the regression."""
        return tuple(regression.terms_of(sample.named) for sample in self.samples)

    @cached_property
    def rival(self) -> tuple[Figures | None, ...]:
        """What AIConfigurator predicts; it is fitted to nothing."""
        if aiconfigurator.missing():
            return (None,) * len(self.samples)
        self._note("aiconfigurator")
        return aiconfigurator.predict([sample.named for sample in self.samples])

    @property
    def floors(self) -> tuple[Floor | None, Floor | None]:
        """What a plan can't tell, with the engine named and without."""
        return floor_of(self.samples, True), floor_of(self.samples, False)

    def shipped(self) -> Table:
        """The constants as they are."""
        fitted = load_calibration()
        stated = predictions([sample.stated for sample in self.samples], fitted)
        return self._table(SHIPPED, 0, [(STATED, stated), *self._as_planned([(range(len(self.samples)), fitted)])])

    def held_out(self, kind: str, parts: int, seed: int) -> Table | None:
        """Everything fitted anew for each part; None where there is nothing to hold out."""
        folds = folds_of(kind, self.samples, parts, seed)
        if len(folds) < 2:
            self._note(f"{kind}: nothing to hold out")
            return None
        self._note(f"{kind}: {len(folds)} fits")
        fits: list[tuple[Sequence[int], Calibration]] = []
        for fold in folds:
            out = set(fold)
            rest = [i for i, each in enumerate(self.samples) if i not in out and not each.queued]
            fits.append((fold, self.measured.fit(rest)))
        plain = held_out(
            self.samples, folds,
            lambda train, test: regression.fit_predict(
                [self.terms[i] for i in train], [self.samples[i].row for i in train], [self.terms[i] for i in test]
            ),
        )  # fmt: skip
        planned = self._as_planned(fits)
        rivals: list[tuple[str, Sequence[Figures | None]]] = [(REGRESSION, plain), (RIVAL, self.rival)]
        there = [mine if his is not None else None for mine, his in zip(planned[0][1], self.rival, strict=True)]
        told = self._table(kind, len(folds), [*planned, *rivals, (COVERED, there)])
        return replace(told, folds=folds, planned=tuple(figures for _, figures in planned))

    def _as_planned(
        self, fits: Sequence[tuple[Sequence[int], Calibration]]
    ) -> list[tuple[str, Sequence[Figures | None]]]:
        """Figures of samples by constants, each by those of its part: with the engine named, and without."""
        found: dict[str, dict[int, Figures]] = {NAMED: {}, UNNAMED: {}}
        for part, fitted in fits:
            own = [self.samples[i] for i in part]
            found[NAMED] |= dict(zip(part, predictions([each.named for each in own], fitted), strict=True))
            found[UNNAMED] |= dict(zip(part, predictions([each.unnamed for each in own], fitted), strict=True))
        return [(name, [each[i] for i in range(len(self.samples))]) for name, each in found.items()]

    def _table(self, kind: str, parts: int, ways: Sequence[tuple[str, Sequence[Figures | None]]]) -> Table:
        judged = (judge(name, self.samples, predicted) for name, predicted in ways)
        told = tuple(each for each in judged if each is not None)
        return Table(kind, parts, told, "" if kind == SHIPPED else aiconfigurator.missing())
