"""The predicted training step of DeepSeek-V3's published run against its measured parts.

Rows of `published.csv` whose id starts with `dsv3_train`. The settings are those of the catalog's scenario
`deepseek_v3_train_h800`. The step and its parts are among what the fitted constants were fitted to
(bench/accuracy/training_fit.py), so these rows show the fit, and validate nothing.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.accuracy.flops import training_flops_per_token
from bench.csv_files import read_csv
from placement.cost.calibration.efficiency import load_efficiency
from placement.cost.training.constants import TrainingConstants
from placement.cost.training.step import TrainingModel, TrainingStep
from placement.errors import InputError
from placement.problem.split import Split, make_split
from specs.loading import load_scenario
from specs.scenario import Scenario
from specs.workload import TrainingWorkload

SCENARIO = "deepseek_v3_train_h800"
PREFIX = "dsv3_train"
#: bf16 peak that the published MFU is counted against, FLOP/s.
PUBLISHED_PEAK = 989.4e12
#: Seconds of the step and its parts (arXiv 2505.09343, table 4): constants are fitted to these.
MEASURED_S = {"time/step": 19.926, "1F": 1.13, "bubble": 2.06, "1B": 1.99, "1W": 0.48, "1F1B": 13.95, "opt": 0.29}


@dataclass(frozen=True)
class PublishedRow:
    """One published figure of the run and its prediction.

    Attributes:
        id, metric, unit: as in the file.
        predicted: None where the metric is not one of the model's.
        fitted: constants were fitted to this row.
    """

    id: str
    metric: str
    unit: str
    measured: float
    predicted: float | None
    fitted: bool

    @property
    def error(self) -> float | None:
        """Predicted over measured, less 1; None without a prediction."""
        return None if self.predicted is None else self.predicted / self.measured - 1.0


@dataclass(frozen=True)
class TrainingAccuracy:
    """The rows of the run.

    Attributes:
        settings: what was predicted, in one line.
        rows: every row of the file that is of this run, in its order.
    """

    settings: str
    rows: tuple[PublishedRow, ...]

    @property
    def median_error(self) -> float:
        """Median absolute error of the rows with a prediction."""
        return statistics.median(abs(row.error) for row in self.rows if row.error is not None)

    @property
    def worst_error(self) -> float:
        """Largest absolute error of the rows with a prediction."""
        return max(abs(row.error) for row in self.rows if row.error is not None)


@cache
def published_split() -> tuple[Scenario, TrainingWorkload, Split]:
    """The scenario of the run and its split."""
    scenario = load_scenario(SCENARIO)
    workload, pins = scenario.workload, scenario.pins
    if workload.kind != "training" or None in (pins.tp, pins.ep, pins.pp, pins.dp):
        raise InputError(
            SCENARIO, "pins", "is no training scenario with all degrees pinned", "restore the catalog file"
        )
    tp, ep, pp, dp = (degree or 1 for degree in (pins.tp, pins.ep, pins.pp, pins.dp))
    instances = scenario.cluster.gpus // (tp * dp * pp)
    split = make_split(scenario, tp, ep, pp, dp, workload.global_batch // (dp * instances), instances=instances)
    return scenario, workload, split


def published_run(constants: TrainingConstants | None = None) -> tuple[Scenario, TrainingWorkload, TrainingStep]:
    """The scenario of the run and its predicted step."""
    scenario, workload, split = published_split()
    step = TrainingModel(scenario, workload, split, load_efficiency(), training=constants).step()
    return scenario, workload, step


def step_parts(step: TrainingStep) -> dict[str, float]:
    """Seconds of a step by the published run's names."""
    pipeline = step.pipeline
    return {
        "time/step": step.step_s,
        "1F": pipeline.forward_s,
        "bubble": pipeline.idle_s,
        "1B": pipeline.backward_s,
        "1W": pipeline.weight_s,
        "1F1B": pipeline.pair_s,
        "opt": step.gradients_s + step.optimizer_s,
    }


def training_accuracy(path: str | Path) -> TrainingAccuracy:
    """The run's rows of a file in the format of `shared/measured/published.csv`, each with its prediction.

    Raises:
        InputError: the file can't be read, has no row of the run, or a value is no number.
    """
    scenario, workload, step = published_run()
    predictions = _predictions(scenario, workload, step)
    rows = tuple(
        PublishedRow(
            id=row["id"],
            metric=row["metric"],
            unit=row["unit"],
            measured=_number(path, row),
            predicted=predictions.get(row["metric"]),
            # The rates restate the step.
            fitted=row["metric"] in predictions,
        )
        for row in read_csv(path, ("id", "metric", "unit", "value"))
        if row["id"].startswith(PREFIX)
    )
    if not rows:
        raise InputError(str(path), "id", f"has no row {PREFIX}*", "give shared/measured/published.csv")
    pins = scenario.pins
    settings = (
        f"{scenario.name}: {scenario.cluster.gpus} {scenario.cluster.gpu.name}, PP {pins.pp}, EP {pins.ep}, "
        f"TP {pins.tp}, {step.microbatches} microbatches of {workload.microbatch} x {workload.sequence} tokens, "
        f"{workload.schedule}, recompute {workload.recompute}, ZeRO {workload.zero_stage}, balanced estimate"
    )
    return TrainingAccuracy(settings, rows)


def _predictions(scenario: Scenario, workload: TrainingWorkload, step: TrainingStep) -> dict[str, float]:
    """Predicted figures by the file's name of the metric."""
    tokens, gpus = workload.global_batch * workload.sequence, scenario.cluster.gpus
    rate = tokens / step.step_s
    causal, full = (
        training_flops_per_token(scenario.model, workload.sequence, causal) * rate / gpus for causal in (True, False)
    )
    return {
        **step_parts(step),
        "tokens/day": rate * 86_400,
        "TFLOPS non-causal": full / 1e12,
        "TFLOPS causal": causal / 1e12,
        "MFU non-causal (vs bf16 peak)": 100 * full / PUBLISHED_PEAK,
        "MFU causal": 100 * causal / PUBLISHED_PEAK,
        "GPU-hours per 1T tokens": 1e12 / rate * gpus / 3_600,
    }


def table(accuracy: TrainingAccuracy) -> str:
    """The rows as text: measured, predicted, error."""
    lines = [accuracy.settings, f"{'metric':<34}{'measured':>14}{'predicted':>14}{'error':>9}"]
    for row in accuracy.rows:
        predicted = "-" if row.predicted is None else f"{row.predicted:,.5g}"
        error = "-" if row.error is None else f"{row.error:+.1%}"
        note = "  (fitted on)" if row.fitted else ""
        lines.append(f"{row.metric + ', ' + row.unit:<34}{row.measured:>14,.5g}{predicted:>14}{error:>9}{note}")
    return "\n".join(lines)


def _number(path: str | Path, row: dict[str, str]) -> float:
    try:
        value = float(row["value"])
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(str(path), f"value of {row['id']}", f"{row['value']} is no positive number", "correct it")
    return value
