"""Reads the layouts that engineers configured from a CSV file, and makes each a question that a planner can answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bench.accuracy.settings import quantized
from bench.csv_files import read_csv
from placement.cost.step.roles import Role
from placement.errors import InputError
from solvers.deploy.layout import pack
from solvers.deploy.problem import Pool
from solvers.deploy.rivals.layouts import gpus_of, named
from specs.documents import shown
from specs.engine import Measured
from specs.loading import generic_engine, load_cluster, load_engine, load_model
from specs.scenario import Scenario
from specs.speculation import Speculation
from specs.workload import ServingWorkload

COLUMNS = (
    "model", "gpu", "precision", "engine", "isl", "osl", "mode", "prefill_workers", "prefill_layout",
    "prefill_gpus_each", "decode_workers", "decode_layout", "decode_gpus_each", "concurrency_min", "concurrency_max",
    "mtp",
)  # fmt: skip
#: Catalog entries by what recipes call them.
MODELS = {
    "DeepSeek-R1-0528": "deepseek_r1",
    "DeepSeek-R1": "deepseek_r1",
    "DeepSeek-V3": "deepseek_r1",
    "DeepSeek-V3.1": "deepseek_r1",
    "DeepSeek-V3.2": "deepseek_v3_2",
    "DeepSeek-V3.2-Exp": "deepseek_v3_2",
    "DeepSeek-V4-Flash": "deepseek_v4_flash",
    "GLM-5": "glm_5",
    "Kimi-K2-Instruct": "kimi_k2",
    "Kimi-K2-Thinking": "kimi_k2",
    "Kimi-K2.5": "kimi_k2_5",
    "Kimi-K2.6": "kimi_k2_5",
    "MiniMax-M2.5": "minimax_m2_5",
    "Qwen3-235B-A22B": "qwen3_235b",
    "Qwen3.5-397B-A17B": "qwen3_5_397b_a17b",
    "gpt-oss-120b": "gpt_oss_120b",
}
CLUSTERS = {
    "H100": "h100_hgx_ib",
    "H200": "h200_hgx_ib",
    "B200": "b200_hgx_ib",
    "B300": "b300_hgx_ib",
    "GB200": "gb200_nvl72_ib",
    "GB300": "gb300_nvl72_ib",
    "MI300X": "mi300x_ib",
    "MI355X": "mi355x_ib",
}
ENGINES: dict[str, Measured] = {"trt": "trtllm", "trtllm": "trtllm", "sglang": "sglang", "vllm": "vllm"}
PRECISIONS = {"fp4": "fp4", "nvfp4": "fp4", "fp8": "fp8", "bf16": "bf16"}
#: Chance that a drafted token is accepted, which no recipe states: DeepSeek-V3's report has 0.85 to 0.90 for the first.
ACCEPTANCE = 0.8
#: Limits that nobody misses: clients in a closed loop wait.
_PATIENCE_MS = 1e9


@dataclass(frozen=True)
class Question:
    """What a planner is asked.

    Attributes:
        model, gpu: as the file names them. clients: requests in flight. gpus: in use at most.
        draft: tokens drafted in a step.
    """

    model: str
    gpu: str
    precision: str
    engine: str
    mode: str
    isl: int
    osl: int
    gpus: int
    nodes: int
    clients: int
    draft: int


@dataclass(frozen=True)
class Workers:
    """Instances of a role."""

    role: Role
    count: int
    layout: str

    @property
    def gpus(self) -> int:
        """GPUs of an instance."""
        return gpus_of(self.layout)


@dataclass(frozen=True)
class Recipe:
    """A row of the file: what was asked, and what was configured."""

    line: int
    question: Question
    workers: tuple[Workers, ...]

    def of(self, role: Role) -> Workers | None:
        """The instances of a role."""
        return next((each for each in self.workers if each.role == role), None)


@dataclass(frozen=True)
class LeftOut:
    """A row that can't be asked, and why."""

    line: int
    reason: str


def read_recipes(path: str | Path) -> tuple[tuple[Recipe, ...], tuple[LeftOut, ...]]:
    """Every row of a file: as a recipe, or why it is none.

    Raises:
        InputError: the file can't be read, or lacks a column.
    """
    recipes: list[Recipe] = []
    left: list[LeftOut] = []
    for line, row in enumerate(read_csv(path, COLUMNS), start=2):
        try:
            recipes.append(_recipe(line, row))
        except InputError as error:
            left.append(LeftOut(line, error.problem))
    return tuple(recipes), tuple(left)


def _recipe(line: int, row: dict[str, str]) -> Recipe:
    if row["model"] not in MODELS:
        raise _lacking("model", f"no model {shown(row['model'], 40)} in the catalog")
    if row["gpu"] not in CLUSTERS:
        raise _lacking("gpu", f"no cluster of {shown(row['gpu'], 40)} GPUs in the catalog")
    if row["mode"] not in ("agg", "disagg"):
        raise _lacking("mode", "neither aggregated nor disaggregated")
    lengths = [_count(row[name]) for name in ("isl", "osl")]
    if None in lengths:
        raise _lacking("isl", "no fixed lengths stated")
    clients = [_count(row[name]) for name in ("concurrency_min", "concurrency_max")]
    least, most = clients[0] or clients[1], clients[1] or clients[0]
    if least is None or most is None:
        raise _lacking("concurrency_max", "no concurrency stated")
    roles: tuple[tuple[Role, str], ...] = (("prefill", "prefill"), ("decode", "decode"))
    if row["mode"] == "agg":
        roles = (("aggregated", "decode"),)
    workers = tuple(_workers(row, role, cells) for role, cells in roles)
    cluster = load_cluster(CLUSTERS[row["gpu"]])
    gpus = sum(each.count * each.gpus for each in workers)
    question = Question(
        model=row["model"], gpu=row["gpu"], precision=row["precision"], engine=row["engine"], mode=row["mode"],
        isl=lengths[0] or 1, osl=lengths[1] or 1, gpus=gpus, nodes=_nodes(cluster.gpus_per_node, workers),
        clients=round(math.sqrt(least * most)), draft=_count(row["mtp"]) or 0,
    )  # fmt: skip
    return Recipe(line, question, workers)


def _workers(row: dict[str, str], role: Role, cells: str) -> Workers:
    count, layout, each = (row[f"{cells}_{name}"] for name in ("workers", "layout", "gpus_each"))
    try:
        named(layout)
    except ValueError:
        raise _lacking("layout", f"layout {shown(layout, 40)!r} is not planned") from None
    if _count(count) is None or _count(each) != gpus_of(layout):
        raise _lacking("layout", "workers or GPUs of a layout are not stated")
    return Workers(role, _count(count) or 1, layout)


def _nodes(room: int, workers: tuple[Workers, ...]) -> int:
    """The fewest nodes that hold all workers."""
    kinds = [(0, each.gpus, each.count) for each in workers]
    nodes = -(-sum(gpus * count for _, gpus, count in kinds) // room)
    while pack((Pool("", nodes, room, 1.0),), kinds) is None:
        nodes += 1
    return nodes


def _count(text: str) -> int | None:
    return int(text) if text.isdigit() and int(text) > 0 else None


def _lacking(field: str, problem: str) -> InputError:
    return InputError("row", field, problem, "")


@lru_cache(maxsize=4096)
def scenario_of(question: Question) -> Scenario:
    """The scenario of a question, with the engine named."""
    cluster = load_cluster(CLUSTERS[question.gpu])
    cluster = cluster.model_copy(update={"nodes": question.nodes})
    engine = engine_of(question)
    model = load_model(MODELS[question.model])
    model = quantized(
        model, PRECISIONS.get(question.precision, model.types.experts), cluster.gpu.generation or "", engine
    )
    return Scenario(
        name=f"{question.model} on {question.gpu}",
        model=model,
        cluster=cluster,
        workload=ServingWorkload(
            kind="serving", name="clients", isl=question.isl, osl=question.osl, ttft_ms=_PATIENCE_MS,
            tpot_ms=_PATIENCE_MS,
            speculation=Speculation(draft=question.draft, acceptance=ACCEPTANCE) if question.draft else None,
        ),
        engine=generic_engine() if engine is None else load_engine(engine),
    )  # fmt: skip


def engine_of(question: Question) -> Measured | None:
    """The engine of the catalog that a question names; None for another."""
    return next((ENGINES[word] for word in question.engine.split("-") if word in ENGINES), None)
