"""Fits the cost model's constants to measured serving configurations (docs/cost-model.md, "Calibration").

A penalized, robust least-squares fit: the logarithms of predicted over measured TPOT and TTFT, against Gaussian priors
on the logarithms of the multipliers. What is shared by all cases is told apart from what is particular to a GPU, an
engine or a release by the width of the priors, as in a mixed-effects model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bench.accuracy.effects import PRIORS, Prior
from bench.accuracy.settings import Setting
from placement.cost.calibration.efficiency import Efficiency, load_efficiency
from placement.cost.calibration.fitted import (
    Calibration,
    Effect,
    GroupError,
    Level,
    calibrated,
)
from placement.cost.step.throughput import ServingModel

Array = NDArray[np.float64]

#: Relative errors from which a row counts in proportion, no longer squared; and the weight of a row against the priors.
TPOT_SCALE, TTFT_SCALE = 0.12, 0.2
TPOT_WEIGHT, TTFT_WEIGHT = 0.6, 0.42
#: A fit ends when a step lowers the sum of squares by less than this share, or after so many steps.
TOLERANCE = 1e-4
MAX_STEPS = 40
#: Step of the logarithm of a constant for its derivative.
STEP = 1e-4


@dataclass(frozen=True)
class Figures:
    """Predicted seconds."""

    tpot_s: float
    ttft_s: float


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
                    level = level_of(prior, setting)
                    if level is not None:
                        member[i, c, j] = index.setdefault((prior, level), len(index))
        return cls(tuple(index), constants, member)

    def multipliers(self, logs: Array) -> Array:
        """[rows, constants] product of every row's multipliers."""
        padded = np.append(logs, 0.0)
        return np.asarray(np.exp(padded[self.member].sum(axis=2)))


def level_of(prior: Prior, setting: Setting) -> str | None:
    """The level of a prior that a setting belongs to, or None."""
    if prior.attention is not None and setting.case.attention != prior.attention:
        return None
    return setting.case.level(prior.by)


def figures(setting: Setting, efficiency: Efficiency) -> Figures:
    """TPOT and TTFT of a setting as placement.cost predicts them."""
    workload = setting.scenario.workload
    if workload.kind != "serving":
        raise TypeError("a measured setting serves")
    point = ServingModel(setting.scenario, workload, setting.split, None, efficiency).at(setting.split.batch)
    return Figures(point.tpot_s, point.ttft_s)


def fit(settings: Sequence[Setting]) -> Calibration:
    """Multipliers that fit the settings, each measurement counted once however many rows state it."""
    seen: dict[object, Setting] = {}
    for setting in settings:
        seen.setdefault((setting.row.measurement, setting.split), setting)
    problem = _Problem(tuple(seen.values()))
    start = np.zeros(len(problem.design.names))
    found = least_squares(problem.residuals, start, jac=problem.jacobian, max_nfev=MAX_STEPS, xtol=1e-3, ftol=TOLERANCE)
    errors = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
    return _calibration(problem.design, found.x, errors, tuple(seen.values()))


class _Problem:
    """Residuals of one fit and their derivatives; remembers its last point, which both are asked for."""

    def __init__(self, settings: tuple[Setting, ...]) -> None:
        self.settings, self.design = settings, Design.of(settings)
        self.base = load_efficiency()
        self.sigma = np.array([prior.sigma for prior, _ in self.design.names])
        self.measured = np.log(
            np.array([[setting.row.tpot_ms, setting.row.ttft_ms] for setting in settings]) * 1e-3
        )  # fmt: skip

    def residuals(self, logs: Array) -> Array:
        factors = self.design.multipliers(logs)
        predicted = np.array([self._logs(i, self._constants(row)) for i, row in enumerate(factors)])
        return np.concatenate([self._robust(predicted - self.measured).ravel(), logs / self.sigma])

    def jacobian(self, logs: Array) -> Array:
        """Derivatives by a constant are shared by all parameters that multiply it."""
        factors = self.design.multipliers(logs)
        rows, constants, depth = self.design.member.shape
        size = len(self.design.names)
        jacobian = np.zeros((rows, 2, size + 1))
        for i in range(rows):
            constants_here = self._constants(factors[i])
            here = self._robust(self._logs(i, constants_here) - self.measured[i])
            for c in range(constants):
                levels = self.design.member[i, c]
                if (levels < 0).all():
                    continue
                moved = calibrated(constants_here, {self.design.constants[c]: math.exp(STEP)})
                slope = (self._robust(self._logs(i, moved) - self.measured[i]) - here) / STEP
                for j in range(depth):
                    jacobian[i, :, levels[j]] += slope
        return np.vstack([jacobian[:, :, :size].reshape(2 * rows, size), np.diag(1 / self.sigma)])

    def _constants(self, factors: Array) -> Efficiency:
        return calibrated(self.base, dict(zip(self.design.constants, factors.tolist(), strict=True)))

    def _logs(self, i: int, constants: Efficiency) -> Array:
        found = figures(self.settings[i], constants)
        return np.log([found.tpot_s, found.ttft_s])

    @staticmethod
    def _robust(errors: Array) -> Array:
        """Pseudo-Huber residuals of [..., 2] logarithmic errors: squared they grow like errors, not their squares."""
        scale = np.array([TPOT_SCALE, TTFT_SCALE])
        weight = np.array([TPOT_WEIGHT, TTFT_WEIGHT])
        return np.asarray(weight * np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + (errors / scale) ** 2) - 1)))


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
    bare = Calibration(source="fit", generations=tuple(generations), errors={}, effects=tuple(effects))
    return bare.model_copy(update={"errors": group_errors(settings, predictions(settings, bare))})


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
        for name in ("all", f"{setting.case.model} {row.gpu} {row.dtype}"):
            groups.setdefault(name, []).append(error)
    return {name: _group(values) for name, values in sorted(groups.items())}


def _group(values: Sequence[tuple[float, float]]) -> GroupError:
    tpot, ttft = (round(float(np.median([value[i] for value in values])), 4) for i in (0, 1))
    return GroupError(rows=len(values), tpot=tpot, ttft=ttft)


def without(settings: Sequence[Setting], held_out: Sequence[Setting]) -> tuple[Setting, ...]:
    """The settings that state none of the measurements held out."""
    measurements = {setting.row.measurement for setting in held_out}
    return tuple(setting for setting in settings if setting.row.measurement not in measurements)
