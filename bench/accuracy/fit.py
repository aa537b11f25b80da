"""Fits the cost model's constants to measured serving configurations (docs/cost-model.md, "Calibration").

A penalized, robust least-squares fit: the logarithms of predicted over measured TPOT and TTFT, against Gaussian priors
on the logarithms of the multipliers. Kinds of case (an engine, a generation of GPUs, a kind of attention) are drawn to
the population by the width of their priors, as in a mixed-effects model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bench.accuracy.effects import PRIORS, Prior
from bench.accuracy.figures import Figures
from bench.accuracy.settings import Setting
from bench.accuracy.slopes import Slopes
from placement.cost.calibration.efficiency import ByTypeEntry, Efficiency, ShareEntry, load_efficiency
from placement.cost.calibration.fitted import (
    CEILING,
    Calibration,
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
#: A fit ends when a step lowers the sum of squares by less than this share, or after so many steps.
TOLERANCE = 1e-6
MAX_STEPS = 100
#: Times that the cost model is asked for its slopes: where no multiplier is fitted, then where the last fit ended.
POINTS = 3


@dataclass(frozen=True)
class Design:
    """The parameters that a set of settings tells apart.

    Attributes:
        names: (prior, level) of each parameter.
        constants: the constants they multiply, each once.
        member: [rows, constants, levels a constant has at most] parameter of each level of a row, or -1.
    """

    names: tuple[tuple[Prior, str], ...]
    constants: tuple[str, ...]
    member: NDArray[np.int64]

    @classmethod
    def of(cls, settings: Sequence[Setting]) -> Design:
        constants = tuple(dict.fromkeys(prior.constant for prior in PRIORS))
        depth = max(sum(prior.constant == name for prior in PRIORS) for name in constants)
        index: dict[tuple[Prior, str], int] = {}
        member = np.full((len(settings), len(constants), depth), -1, dtype=np.int64)
        for i, setting in enumerate(settings):
            for c, constant in enumerate(constants):
                for j, prior in enumerate(p for p in PRIORS if p.constant == constant):
                    level = setting.case.level(prior.by)
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
class Measured:
    """Settings with their figures in closed form: what folds are fitted from.

    Attributes:
        settings: what is fitted to, each with its weight: a measurement that is told in two ways counts half in each.
        design: the parameters that they tell apart. slopes: of the constants that these multiply.
    """

    settings: tuple[Setting, ...]
    weights: Array
    design: Design
    slopes: Slopes

    @classmethod
    def of(cls, settings: Sequence[Setting]) -> Measured:
        """Figures around the constants that fit all settings."""
        own = tuple(settings)
        told = Counter(setting.row.measurement for setting in own)
        weights = np.array([1.0 / told[setting.row.measurement] for setting in own])
        design, base = Design.of(own), load_efficiency()

        def model(i: int, factors: dict[str, float]) -> Array:
            found = figures(own[i], calibrated(base, factors))
            return np.log([found.tpot_s, found.ttft_s])

        at = np.zeros((len(own), len(design.constants)))
        for _ in range(POINTS):
            known = cls(own, weights, design, Slopes.of(design.constants, at, model))
            at = np.log(design.multipliers(known._best(range(len(own)))[0]))
        return known

    def fit(self, held_out: Container[object] = ()) -> Calibration:
        """Multipliers that fit all settings but those of the measurements held out."""
        rows = [i for i, setting in enumerate(self.settings) if setting.row.measurement not in held_out]
        logs, errors = self._best(rows)
        return _calibration(self.design, logs, errors, tuple(self.settings[i] for i in rows))

    def _best(self, rows: Sequence[int]) -> tuple[Array, Array]:
        problem = _Problem(self, rows)
        found = least_squares(
            problem.residuals, np.zeros(len(self.design.names)), jac=problem.jacobian, max_nfev=MAX_STEPS,
            xtol=1e-4, ftol=TOLERANCE, bounds=(-np.inf, [_most(prior) for prior, _ in self.design.names]),
        )  # fmt: skip
        return found.x, np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))


def fit(settings: Sequence[Setting]) -> Calibration:
    """Multipliers that fit the settings, each measurement counted once however many of them state it."""
    return Measured.of(settings).fit()


class _Problem:
    """Residuals of one fit and their derivatives."""

    def __init__(self, known: Measured, rows: Sequence[int]) -> None:
        self.slopes = known.slopes.rows(rows)
        self.member = known.design.member[list(rows)]
        self.sigma = np.array([prior.sigma for prior, _ in known.design.names])
        self.root = np.sqrt(known.weights[list(rows)])[:, None]
        self.measured = np.log(
            np.array([[known.settings[i].row.tpot_ms, known.settings[i].row.ttft_ms] for i in rows]) * 1e-3
        )  # fmt: skip

    def residuals(self, logs: Array) -> Array:
        errors = self.slopes.figures(self._of_rows(logs))[0] - self.measured
        return np.concatenate([(self.root * _robust(errors)).ravel(), logs / self.sigma])

    def jacobian(self, logs: Array) -> Array:
        """Derivatives by a constant are shared by all parameters that multiply it."""
        found, slopes = self.slopes.figures(self._of_rows(logs))
        slopes = slopes * (self.root * _robust_slope(found - self.measured))[:, :, None]
        rows, constants, depth = self.member.shape
        jacobian = np.zeros((rows, 2, len(logs) + 1))
        for c in range(constants):
            for j in range(depth):
                # A row has each parameter once for a constant, so nothing is added to one place twice.
                jacobian[np.arange(rows), :, self.member[:, c, j]] += slopes[:, :, c]
        return np.vstack([jacobian[:, :, :-1].reshape(2 * rows, len(logs)), np.diag(1 / self.sigma)])

    def _of_rows(self, logs: Array) -> Array:
        return np.asarray(np.append(logs, 0.0)[self.member].sum(axis=2))


def _most(prior: Prior) -> float:
    """The largest logarithm of a multiplier: a rate stays physical."""
    entry = getattr(load_efficiency(), prior.constant)
    if isinstance(entry, ByTypeEntry):
        return math.log(CEILING / max(entry.value.values()))
    return math.log(CEILING / entry.value) if isinstance(entry, ShareEntry) else math.inf


def _robust(errors: Array) -> Array:
    """Pseudo-Huber residuals of [..., 2] logarithmic errors: squared they grow like errors, not their squares."""
    scaled = errors / SCALE
    return np.asarray(WEIGHT * scaled * np.sqrt(2 / (1 + np.sqrt(1 + scaled**2))))


def _robust_slope(errors: Array) -> Array:
    """Derivative of `_robust`."""
    root = np.sqrt(1 + (errors / SCALE) ** 2)
    return np.asarray(WEIGHT / SCALE * np.sqrt((1 + root) / 2) / root)


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
