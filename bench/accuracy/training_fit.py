"""The fitted constants of a training step: from published runs, and anew without those of one model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.training import MEASURED_S, SCENARIO, published_run, step_parts
from bench.accuracy.training_runs import PosedRun
from placement.cost.training.constants import FITTED, Fitted, FittedEntry, TrainingConstants, load_training
from specs.loading import load_scenario

#: What kernels and data sheets tell of each constant, and the spread of its logarithm.
PRIORS: dict[Fitted, tuple[float, float]] = {
    "in_step": (0.92, 0.08),
    "weight_narrow": (0.50, 0.25),
    "hbm": (0.80, 0.15),
    "launch_s": (8e-6, 0.70),
}
#: No rate above these shares.
LIMITS: dict[Fitted, float] = {"in_step": 1.0, "weight_narrow": 0.705, "hbm": 0.95}
#: Errors of a run's rate, and of the parts of DeepSeek-V3's step, which were measured one by one.
RUN_SCALE, PART_SCALE = 0.20, 0.04
#: Runs that are judged alone: 2021's kernels knew no fused attention.
NOT_FITTED = ("deepspeed_moe_52b",)
_STEP = 0.02
_ROUNDS = 6


@dataclass(frozen=True)
class TrainingFit:
    """Constants and the standard errors of their logarithms."""

    constants: TrainingConstants
    errors: dict[Fitted, float]


class Fitter:
    """Fits to runs; predictions are linearized in the constants' logarithms, around those found last."""

    def __init__(self, runs: Sequence[PosedRun]) -> None:
        self.runs = [posed for posed in runs if posed.run.model not in NOT_FITTED]
        same = Counter(posed.run.settings for posed in self.runs)
        # Releases of one measurement count as one together.
        self._weights = np.array([same[posed.run.settings] ** -0.5 for posed in self.runs])
        self._measured = np.log([posed.run.measured for posed in self.runs])
        self._parts = np.log(list(MEASURED_S.values()))
        self._prior = np.log([PRIORS[name][0] for name in FITTED])
        self._spread = np.array([PRIORS[name][1] for name in FITTED])
        self._own = load_scenario(SCENARIO).model.name

    def fit(self) -> TrainingFit:
        """The constants of all runs."""
        at = _logarithms(load_training())
        for _ in range(_ROUNDS):
            found, errors = self._solve(at, *self._linear(at), without=None)
            moved, at = np.abs(found - at).max(), found
            if moved < 1e-3:
                break
        return TrainingFit(_constants(at), dict(zip(FITTED, map(float, errors), strict=True)))

    def without(self, models: Sequence[str]) -> dict[str, TrainingFit]:
        """The constants without the runs of each model, linearized around the shipped ones. DeepSeek-V3's parts go with
        its runs."""
        at = _logarithms(load_training())
        linear = self._linear(at)
        fits = {}
        for model in models:
            found, errors = self._solve(at, *linear, without=model)
            fits[model] = TrainingFit(_constants(found), dict(zip(FITTED, map(float, errors), strict=True)))
        return fits

    def _predict(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """[runs + parts] logarithms of predictions; runs of the same settings are predicted once."""
        constants = _constants(at)
        known: dict[tuple[object, ...], float] = {}
        for posed in self.runs:
            if posed.run.settings not in known:
                known[posed.run.settings] = posed.predicted(constants)
        parts = step_parts(published_run(constants)[2])
        rates = [known[posed.run.settings] for posed in self.runs]
        return np.log([*rates, *(parts[name] for name in MEASURED_S)])

    def _linear(self, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(predictions, [runs + parts, constants] their slopes) at `at`."""
        middle = self._predict(at)
        slopes = np.empty((len(middle), len(at)))
        for i in range(len(at)):
            # Downwards: a share's limit lies above.
            moved = at.copy()
            moved[i] -= _STEP
            slopes[:, i] = (middle - self._predict(moved)) / _STEP
        return middle, slopes

    def _solve(
        self, at: NDArray[np.float64], middle: NDArray[np.float64], slopes: NDArray[np.float64], without: str | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        from scipy.optimize import least_squares

        count = len(self.runs)
        runs = np.array([posed.run.model != without for posed in self.runs])
        parts = self._own != without

        def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
            predicted = middle + slopes @ (x - at)
            off = (predicted[:count] - self._measured) / RUN_SCALE
            # Cauchy's loss: a run that waits for what is not modelled does not bend the rest.
            off = np.sign(off) * np.sqrt(np.log1p(off**2)) * self._weights
            found = [off[runs], (x - self._prior) / self._spread]
            if parts:
                found.append((predicted[count:] - self._parts) / PART_SCALE)
            return np.concatenate(found)

        top = np.array([math.log(LIMITS.get(name, math.inf)) for name in FITTED])
        start = np.minimum(at, top - 1e-6)
        solved = least_squares(residuals, start, bounds=(np.full(len(at), -np.inf), top))
        covariance = np.linalg.inv(solved.jac.T @ solved.jac)
        return solved.x, np.sqrt(np.diag(covariance))


def _logarithms(constants: TrainingConstants) -> NDArray[np.float64]:
    return np.log([getattr(constants, name).value for name in FITTED])


def _constants(at: NDArray[np.float64]) -> TrainingConstants:
    shipped = load_training()
    update: dict[str, FittedEntry] = {
        name: getattr(shipped, name).model_copy(update={"value": math.exp(value)})
        for name, value in zip(FITTED, at, strict=True)
    }
    return shipped.model_copy(update=update)
