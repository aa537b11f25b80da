"""A plain nonnegative regression: eight roofline terms each for TPOT and TTFT, no structure beside.

The terms are times at nominal rates. Least squares of the relative error find what each is multiplied by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from bench.accuracy.figures import Figures
from bench.accuracy.rows import Row
from bench.accuracy.settings import Setting
from placement.cost.calibration.efficiency import AmountEntry, ByTypeEntry, Efficiency, ShareEntry, load_efficiency
from placement.cost.step.pass_times import LayerTimes, PassModel
from placement.cost.step.passes import decode_context
from placement.problem.pieces import count_kinds

Array = NDArray[np.float64]
#: Names of the terms, in seconds each; those of TPOT, then those of TTFT.
TPOT_TERMS = (
    "step", "layers", "sequences", "dense weights and products", "experts", "KV cache", "collectives", "prefills",
)  # fmt: skip
TTFT_TERMS = (
    "request", "layers", "sequences", "a prompt's products", "a prompt's experts", "a prompt's attention core",
    "a prompt's collectives", "all prompts",
)  # fmt: skip


@dataclass(frozen=True)
class Terms:
    """The terms of one setting, in seconds."""

    tpot: Array
    ttft: Array


def fit_predict(train: Sequence[Terms], rows: Sequence[Row], test: Sequence[Terms]) -> tuple[Figures, ...]:
    """Figures of `test` by a regression on the measurements `rows` of `train`."""
    tpot = _fitted([each.tpot for each in train], [row.tpot_ms * 1e-3 for row in rows])
    ttft = _fitted([each.ttft for each in train], [row.ttft_ms * 1e-3 for row in rows])
    return tuple(Figures(float(each.tpot @ tpot), float(each.ttft @ ttft)) for each in test)


def _fitted(terms: Sequence[Array], seconds: Sequence[float]) -> Array:
    measured = np.array(seconds)
    weights, _ = nnls(np.array(terms) / measured[:, None], np.ones(len(measured)))
    return np.asarray(weights)


def terms_of(setting: Setting) -> Terms:
    """The terms of a setting."""
    workload, split, model = setting.scenario.workload, setting.split, setting.scenario.model
    if workload.kind != "serving":
        raise TypeError("a measured setting serves")
    passes = PassModel(setting.scenario, split, nominal())
    batch, isl, layers = float(split.batch), float(workload.isl), float(model.layers)
    step = passes.decode(batch, decode_context(workload))
    prompt = passes.prompt(isl, isl, 1.0)
    whole_s = passes.stage_seconds(prompt)[0]

    def part(times: LayerTimes, *names: str) -> float:
        counts = count_kinds(model, range(model.layers))
        return sum(times.part(name, counts) for name in names)

    dense = ("projections", "router", "shared", "dense")
    tpot = (
        1.0, layers, batch, part(step, *dense) + step.head, part(step, "moe"), part(step, "core"),
        part(step, "collectives"), split.dp * batch * whole_s / workload.osl,
    )  # fmt: skip
    ttft = (
        1.0, layers, batch, part(prompt, *dense), part(prompt, "moe"), part(prompt, "core"),
        part(prompt, "collectives"), split.dp * batch * whole_s,
    )  # fmt: skip
    return Terms(np.array(tpot), np.array(ttft))


@cache
def nominal() -> Efficiency:
    """Nominal rates, and no fixed costs."""
    base = load_efficiency()
    update: dict[str, object] = {}
    for name, entry in base:
        if isinstance(entry, ByTypeEntry):
            update[name] = entry.model_copy(update={"value": dict.fromkeys(entry.value, 1.0)})
        elif isinstance(entry, ShareEntry):
            update[name] = entry.model_copy(update={"value": 1.0})
        elif isinstance(entry, AmountEntry) and name.endswith("_s"):
            update[name] = entry.model_copy(update={"value": 0.0})
    return base.model_copy(update=update)
