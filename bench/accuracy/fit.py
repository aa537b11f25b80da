"""Fits the cost model's constants to measured serving configurations (docs/cost-model.md, "Calibration").

A penalized, robust least-squares fit: the logarithms of predicted over measured TPOT and TTFT, and of published
throughputs, against Gaussian priors on the logarithms of the multipliers. Kinds of case (an engine, a generation of
GPUs, a kind of attention) are drawn to the population by the width of their priors, as in a mixed-effects model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bench.accuracy.effects import PRIORS, Prior
from bench.accuracy.figures import Figures
from bench.accuracy.published import Deployment
from bench.accuracy.settings import Setting
from bench.accuracy.slopes import Slopes
from placement.cost.calibration.efficiency import ByTypeEntry, Efficiency, ShareEntry, load_efficiency
from placement.cost.calibration.fitted import (
    CEILING,
    Calibration,
    Case,
    Effect,
    GroupError,
    Level,
    calibrated,
)
from placement.cost.step.throughput import ServingModel

Array = NDArray[np.float64]

#: Relative errors of (TPOT, TTFT) from which a row counts in proportion, no longer squared; and the weight of a row
#: against the priors.
SCALE = np.array([0.12, 0.2])
WEIGHT = np.array([0.6, 0.42])
#: The same of a published throughput. They are few, but they alone tell of hundreds of sequences a rank; n rows of one
#: deployment weigh as sqrt(n).
PUBLISHED_SCALE = np.array([0.2])
PUBLISHED_WEIGHT = np.array([math.sqrt(2.0)])
#: A fit ends when a step lowers the sum of squares by less than this share, or after so many steps.
TOLERANCE = 1e-6
MAX_STEPS = 100
#: Times that the cost model is asked for its slopes: where no multiplier is fitted, then where the last fit ended.
POINTS = 3


@dataclass(frozen=True)
class Design:
    """The parameters that a set of cases tells apart.

    Attributes:
        names: (prior, level) of each parameter.
        constants: the constants they multiply, each once.
        member: [rows, constants, levels a constant has at most] parameter of each level of a row, or -1.
    """

    names: tuple[tuple[Prior, str], ...]
    constants: tuple[str, ...]
    member: NDArray[np.int64]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Design:
        constants = tuple(dict.fromkeys(prior.constant for prior in PRIORS))
        depth = max(sum(prior.constant == name for prior in PRIORS) for name in constants)
        index: dict[tuple[Prior, str], int] = {}
        member = np.full((len(cases), len(constants), depth), -1, dtype=np.int64)
        for i, case in enumerate(cases):
            for c, constant in enumerate(constants):
                for j, prior in enumerate(p for p in PRIORS if p.constant == constant):
                    level = case.level(prior.by)
                    if level is not None:
                        member[i, c, j] = index.setdefault((prior, level), len(index))
        return cls(tuple(index), constants, member)

    def multipliers(self, logs: Array) -> Array:
        """[rows, constants] product of every row's multipliers."""
        padded = np.append(logs, 0.0)
        return np.asarray(np.exp(padded[self.member].sum(axis=2)))


def figures(setting: Setting, efficiency: Efficiency) -> Figures:
    """TPOT and TTFT of a setting as placement.cost predicts them."""
    workload = setting.scenario.workload
    if workload.kind != "serving":
        raise TypeError("a measured setting serves")
    point = ServingModel(setting.scenario, workload, setting.split, None, efficiency).at(setting.split.batch)
    return Figures(point.tpot_s, point.ttft_s)


@dataclass(frozen=True)
class _Part:
    """Rows of one kind with their figures in closed form.

    Attributes:
        slopes: of the constants. member: [rows, constants, levels] parameters, see Design.
        measured: [rows, figures] logarithms of seconds. root: [rows, 1] square roots of the rows' weights.
        scale, weight: [figures], see SCALE and WEIGHT.
    """

    slopes: Slopes
    member: NDArray[np.int64]
    measured: Array
    root: Array
    scale: Array
    weight: Array

    def rows(self, chosen: Sequence[int]) -> _Part:
        """Those of some rows."""
        pick = np.asarray(chosen, dtype=np.int64)
        return replace(
            self, slopes=self.slopes.rows(chosen), member=self.member[pick], measured=self.measured[pick],
            root=self.root[pick],
        )  # fmt: skip

    def residuals(self, logs: Array) -> Array:
        """[rows x figures] at parameters."""
        errors = self.slopes.figures(self._of_rows(logs))[0] - self.measured
        return np.asarray(self.root * self.weight * _robust(errors / self.scale)).ravel()

    def jacobian(self, logs: Array) -> Array:
        """[rows x figures, parameters]: a derivative by a constant is one by all parameters that multiply it."""
        found, slopes = self.slopes.figures(self._of_rows(logs))
        steep = self.root * self.weight / self.scale * _robust_slope((found - self.measured) / self.scale)
        slopes = slopes * steep[:, :, None]
        rows, constants, depth = self.member.shape
        jacobian = np.zeros((rows, len(self.scale), len(logs) + 1))
        for c in range(constants):
            for j in range(depth):
                # A row has each parameter once for a constant, so nothing is added to one place twice.
                jacobian[np.arange(rows), :, self.member[:, c, j]] += slopes[:, :, c]
        return jacobian[:, :, :-1].reshape(-1, len(logs))

    def _of_rows(self, logs: Array) -> Array:
        return np.asarray(np.append(logs, 0.0)[self.member].sum(axis=2))


@dataclass(frozen=True)
class Measured:
    """Settings and published deployments with their figures in closed form: what folds are fitted from.

    Attributes:
        settings: what is fitted to, each with its weight: a measurement that is told in two ways counts half in each.
        deployments: what else is fitted to.
        design: the parameters that they tell apart, the settings' rows first.
        served, published: their rows; None without deployments.
    """

    settings: tuple[Setting, ...]
    deployments: tuple[Deployment, ...]
    design: Design
    served: _Part
    published: _Part | None

    @property
    def slopes(self) -> Slopes:
        """Those of the settings."""
        return self.served.slopes

    @classmethod
    def of(cls, settings: Sequence[Setting], deployments: Sequence[Deployment] = ()) -> Measured:
        """Figures around the constants that fit everything."""
        own, others = tuple(settings), tuple(deployments)
        told = Counter(setting.row.measurement for setting in own)
        rows = Counter(each.name for each in others)
        design, base = Design.of([*(each.case for each in own), *(each.case for each in others)]), load_efficiency()
        seconds = np.array([[each.row.tpot_ms, each.row.ttft_ms] for each in own]) * 1e-3
        weights = np.array([[told[each.row.measurement] ** -0.5] for each in own])
        of_rates = np.array([[each.scale / each.measured] for each in others]).reshape(-1, 1)
        of_rows = np.array([[rows[each.name] ** -0.25] for each in others]).reshape(-1, 1)

        def model(i: int, factors: dict[str, float]) -> Array:
            found = figures(own[i], calibrated(base, factors))
            return np.log([found.tpot_s, found.ttft_s])

        def token_s(i: int, factors: dict[str, float]) -> Array:
            return np.log([others[i].scale / others[i].predicted(calibrated(base, factors))])

        first = len(own)
        at = np.zeros((first + len(others), len(design.constants)))
        for _ in range(POINTS):
            served = _Part(
                Slopes.of(design.constants, at[:first], model), design.member[:first], np.log(seconds), weights,
                SCALE, WEIGHT,
            )  # fmt: skip
            published = None
            if others:
                published = _Part(
                    Slopes.of(design.constants, at[first:], token_s), design.member[first:], np.log(of_rates), of_rows,
                    PUBLISHED_SCALE, PUBLISHED_WEIGHT,
                )  # fmt: skip
            known = cls(own, others, design, served, published)
            at = np.log(design.multipliers(_best(design, known._parts(range(first), range(len(others))))[0]))
        return known

    def fit(self, held_out: Container[object] = (), deployments_held_out: Container[str] = ()) -> Calibration:
        """Multipliers that fit all settings but those of the measurements held out, and all deployments but some.

        Args:
            held_out: Measurements (Row.measurement). deployments_held_out: Ids.
        """
        rows = [i for i, setting in enumerate(self.settings) if setting.row.measurement not in held_out]
        others = [i for i, each in enumerate(self.deployments) if each.id not in deployments_held_out]
        logs, errors = _best(self.design, self._parts(rows, others))
        return _calibration(self.design, logs, errors, tuple(self.settings[i] for i in rows))

    def _parts(self, rows: Sequence[int], others: Sequence[int]) -> tuple[_Part, ...]:
        served = self.served.rows(rows)
        return (served,) if self.published is None or not others else (served, self.published.rows(others))


def fit(settings: Sequence[Setting]) -> Calibration:
    """Multipliers that fit the settings, each measurement counted once however many of them state it."""
    return Measured.of(settings).fit()


def _best(design: Design, parts: Sequence[_Part]) -> tuple[Array, Array]:
    """Logarithms of the parameters that fit best, and their standard errors."""
    sigma = np.array([prior.sigma for prior, _ in design.names])

    def residuals(logs: Array) -> Array:
        return np.concatenate([*(part.residuals(logs) for part in parts), logs / sigma])

    def jacobian(logs: Array) -> Array:
        return np.vstack([*(part.jacobian(logs) for part in parts), np.diag(1 / sigma)])

    found = least_squares(
        residuals, np.zeros(len(design.names)), jac=jacobian, max_nfev=MAX_STEPS, xtol=1e-4, ftol=TOLERANCE,
        bounds=(-np.inf, [_most(prior) for prior, _ in design.names]),
    )  # fmt: skip
    return found.x, np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))


def _most(prior: Prior) -> float:
    """The largest logarithm of a multiplier: a rate stays physical."""
    entry = getattr(load_efficiency(), prior.constant)
    if isinstance(entry, ByTypeEntry):
        return math.log(CEILING / max(entry.value.values()))
    return math.log(CEILING / entry.value) if isinstance(entry, ShareEntry) else math.inf


def _robust(errors: Array) -> Array:
    """Pseudo-Huber residuals of scaled errors: squared they grow like errors, not their squares."""
    return np.asarray(errors * np.sqrt(2 / (1 + np.sqrt(1 + errors**2))))


def _robust_slope(errors: Array) -> Array:
    """Derivative of `_robust`."""
    root = np.sqrt(1 + errors**2)
    return np.asarray(np.sqrt((1 + root) / 2) / root)


def _calibration(design: Design, logs: Array, errors: Array, settings: tuple[Setting, ...]) -> Calibration:
    effects = []
    for prior in PRIORS:
        levels = {
            level: Level(multiplier=round(math.exp(logs[i]), 4), error=round(float(errors[i]), 4))
            for i, (each, level) in enumerate(design.names)
            if each is prior
        }
        if levels:
            effects.append(Effect(constant=prior.constant, by=prior.by, levels=dict(sorted(levels.items()))))
    generations = sorted({setting.case.generation for setting in settings if setting.case.generation is not None})
    attentions = sorted({setting.case.attention for setting in settings})
    return Calibration(
        source="fit", generations=tuple(generations), attentions=tuple(attentions), errors={}, effects=tuple(effects)
    )


def predictions(settings: Sequence[Setting], calibration: Calibration) -> tuple[Figures, ...]:
    """Predicted figures of settings under a calibration."""
    base = load_efficiency()
    return tuple(figures(each, calibrated(base, calibration.multipliers(each.case))) for each in settings)


def group_errors(settings: Sequence[Setting], predicted: Sequence[Figures]) -> dict[str, GroupError]:
    """Median errors by model, GPU and data type, and over all."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for setting, found in zip(settings, predicted, strict=True):
        row = setting.row
        error = (abs(found.tpot_s * 1e3 / row.tpot_ms - 1), abs(found.ttft_s * 1e3 / row.ttft_ms - 1))
        for name in ("all", f"{setting.scenario.model.name} {row.gpu} {row.dtype}"):
            groups.setdefault(name, []).append(error)
    return {name: _group(values) for name, values in sorted(groups.items())}


def _group(values: Sequence[tuple[float, float]]) -> GroupError:
    tpot, ttft = (round(float(np.median([value[i] for value in values])), 4) for i in (0, 1))
    return GroupError(rows=len(values), tpot=tpot, ttft=ttft)
