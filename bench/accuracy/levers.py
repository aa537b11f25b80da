"""Levers against published pairs: how many times faster with one than without, predicted and measured."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bench.accuracy.shown import Shown
from placement.cost.step.roles import prompt_alone_s
from placement.cost.step.throughput import ServingModel
from placement.planning.case import load_scenario
from placement.problem.split import make_split
from placement.report.text import columns, rendered
from specs.documents import parse_value

#: A scenario that the pairs' model, cluster and lengths take the place of.
BASE = "deepseek_r1_h200_ib"
_DEGREES = ("tp", "ep", "pp", "dp", "batch")


@dataclass(frozen=True)
class Pair:
    """A published pair.

    Attributes:
        lever, case: which lever, and what was run.
        without, switched: levers of either side, by the names of `load_scenario`.
        figure: what is compared: "step" (a token in decode), "ttft" (of a prompt that meets no other), "tokens"
            (output tokens/s at the batch).
        published: times faster with the lever.
        provenance: of the constants that predict it.
    """

    lever: str
    case: str
    without: Mapping[str, Any]
    switched: Mapping[str, Any]
    figure: str
    published: float
    predicted: float
    provenance: str
    source: str
    note: str

    @property
    def error(self) -> float:
        """Of the predicted ratio."""
        return self.predicted / self.published - 1


def read_pairs() -> tuple[Pair, ...]:
    """All pairs of levers.csv with their predictions."""
    text = files("bench.accuracy").joinpath("levers.csv").read_text(encoding="utf-8")
    return tuple(map(_pair, csv.DictReader(text.splitlines())))


def _pair(row: Mapping[str, str]) -> Pair:
    without, switched = _settings(row["without"]), _settings(row["with"])
    before, after = (_model(row, levers) for levers in (without, switched))
    batch, figure = int(row["batch"]), row["figure"]
    return Pair(
        lever=row["lever"], case=row["case"], without=without, switched=switched, figure=figure,
        published=float(row["published"]), predicted=_seconds(before, batch, figure) / _seconds(after, batch, figure),
        provenance=after.efficiency.provenance, source=row["source"], note=row["note"],
    )  # fmt: skip


def _settings(text: str) -> dict[str, Any]:
    pairs = (each.partition("=") for each in text.split())
    return {name: parse_value(value, "levers.csv", name) for name, _, value in pairs}


def _model(row: Mapping[str, str], levers: Mapping[str, Any]) -> ServingModel:
    degrees = {name: int(row[name]) for name in _DEGREES}
    scenario = load_scenario(
        BASE, model=row["model"], cluster=row["cluster"], nodes=12 if degrees["dp"] > 72 else 4, engine=row["engine"],
        isl=int(row["isl"]), osl=int(row["osl"]), **levers, set=_settings(row["set"]),
    )  # fmt: skip
    if scenario.workload.kind != "serving":
        raise TypeError(f"{BASE} serves")
    split = make_split(
        scenario, degrees["tp"], degrees["ep"], degrees["pp"], degrees["dp"], degrees["batch"], instances=1
    )
    return ServingModel(scenario, scenario.workload, split)


def _seconds(model: ServingModel, batch: int, figure: str) -> float:
    if figure == "step":
        return model.decode_step_s(batch)
    return prompt_alone_s(model) if figure == "ttft" else 1.0 / model.at(batch).tokens_per_s


def report() -> Shown:
    """Every pair with the error of its predicted ratio, and the levers that no pair was found for."""
    pairs = read_pairs()
    rows = [
        (each.lever, each.case, f"{each.published:.2f}", f"{each.predicted:.2f}", f"{each.error:+.0%}")
        for each in pairs
    ]
    table = columns(("lever", "case", "published", "predicted", "error"), rows)
    text = rendered(
        [
            "Times faster with a lever than without, published and predicted",
            table,
            "KV type, context parallelism: no pair on a model of the catalog was found (roofline).",
        ]
    )
    record = {
        "pairs": [
            {name: getattr(each, name) for name in ("lever", "case", "figure", "published", "predicted", "error")}
            | {"provenance": each.provenance, "source": each.source, "note": each.note}
            for each in pairs
        ]
    }
    return Shown(text, record, ())
