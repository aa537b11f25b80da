"""Turns measured rows into scenarios and splits that the cost model can price, or says why it can't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import ValidationError

from bench.accuracy.rows import Row
from placement.cost.calibration.fitted import Case
from placement.errors import InputError
from placement.problem.split import Split, make_split
from specs.cluster import Cluster
from specs.engine import Engine, Measured
from specs.fields import DataType
from specs.loading import catalog_names, generic_engine, load_cluster, load_engine, load_model
from specs.model import Model
from specs.scenario import Scenario
from specs.workload import ServingWorkload

#: Catalog entries by what measurements call them (a model by the part after its organization, in lower case).
MODELS = {
    "deepseek-r1": "deepseek_r1",
    "deepseek-v3": "deepseek_r1",
    "gpt-oss-120b": "gpt_oss_120b",
    "gpt-oss-20b": "gpt_oss_20b",
    "qwen3-235b-a22b": "qwen3_235b",
    "qwen3-235b-a22b-fp8": "qwen3_235b",
    "qwen3-30b-a3b": "qwen3_30b_a3b",
    "kimi-k2": "kimi_k2",
    "kimi-k2.5": "kimi_k2_5",
    "minimax-m2.5": "minimax_m2_5",
    "mixtral-8x7b": "mixtral_8x7b",
}
CLUSTERS = {
    "h100_sxm": "h100_hgx_ib",
    "h200_sxm": "h200_hgx_ib",
    "b200_sxm": "b200_hgx_ib",
    "b300_sxm": "b300_hgx_ib",
    "gb200": "gb200_nvl72_ib",
}


#: How a row is told to the cost model, as a user writes it: with `--engine` or without.
View = Literal["named", "unnamed"]


@dataclass(frozen=True)
class Setting:
    """A row as the cost model sees it."""

    row: Row
    scenario: Scenario
    split: Split
    case: Case


@dataclass(frozen=True)
class Unpredicted:
    """A row that the cost model has no figure for, and why."""

    row: Row
    reason: str


def settings_of(rows: Sequence[Row], view: View = "named") -> tuple[tuple[Setting, ...], tuple[Unpredicted, ...]]:
    """Every row, as a setting or with the reason why it is none."""
    known = _Catalog(view)
    settings: list[Setting] = []
    left: list[Unpredicted] = []
    for row in rows:
        try:
            settings.append(known.setting(row))
        except InputError as error:
            left.append(Unpredicted(row, f"{error.field}: {error.problem}" if error.field else error.problem))
        except ValidationError as error:
            left.append(Unpredicted(row, error.errors()[0]["msg"].removeprefix("Value error, ")))
    return tuple(settings), tuple(left)


class _Catalog:
    """Models and clusters by the names of measurements, each read once."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.names = (set(catalog_names("model")), set(catalog_names("cluster")))
        self.models: dict[tuple[str, str], Model] = {}
        self.clusters: dict[tuple[str, int], Cluster] = {}

    def setting(self, row: Row) -> Setting:
        cluster = self._cluster(row)
        engine = _engine(row)
        model = self._model(row)
        workload = ServingWorkload(
            kind="serving", name="measured", isl=row.isl, osl=row.osl, ttft_ms=1e9, tpot_ms=1e9
        )  # fmt: skip
        scenario = Scenario(
            name="measured", model=model, cluster=cluster, workload=workload, redundant=0, engine=self._runs(engine)
        )
        if row.tp * row.dp * row.pp != row.gpus:
            raise InputError("row", "gpus", f"tp x dp x pp = {row.tp * row.dp * row.pp} is not {row.gpus} GPUs", "")
        split = make_split(scenario, row.tp, row.ep, row.pp, row.dp, max(1, round(row.batch)), instances=1)
        return Setting(row, scenario, split, Case.of(scenario))

    def _runs(self, engine: Measured | None) -> Engine:
        return generic_engine() if engine is None or self.view == "unnamed" else load_engine(engine)

    def _cluster(self, row: Row) -> Cluster:
        name = CLUSTERS.get(row.gpu, row.gpu)
        if name not in self.names[1]:
            raise InputError("row", "gpu", f"no cluster of {row.gpu!r} GPUs is known", "")
        base = load_cluster(name)
        nodes = -(-row.gpus // base.gpus_per_node)
        key = (name, nodes)
        if key not in self.clusters:
            self.clusters[key] = base.model_copy(update={"nodes": nodes})
        return self.clusters[key]

    def _model(self, row: Row) -> Model:
        short = row.model.rpartition("/")[2].lower()
        name = MODELS.get(short, short)
        if name not in self.names[0]:
            raise InputError("row", "model", f"no model {row.model!r} is known", "")
        key = (name, row.dtype)
        if key not in self.models:
            self.models[key] = checkpoint(load_model(name), row.dtype)
        return self.models[key]


def priced_as(engine: Measured | None) -> Engine:
    """The generic engine with the constants fitted to one: the constants were fitted under its message rules."""
    return generic_engine().model_copy(update={"measured_as": engine})


def checkpoint(model: Model, dtype: str) -> Model:
    """The model as the checkpoint that was measured stores it; `dtype` names the routed experts' weights.

    Raises:
        InputError: an unknown data type.
    """
    types: dict[str, DataType] = {}
    stored = model.types.experts
    if dtype == "fp4":
        # Checkpoints in NVFP4 state an 8-bit KV cache, which engines follow.
        types = {} if stored == "mxfp4" else {"experts": "nvfp4", "compute": "nvfp4", "kv_cache": "fp8"}
    elif dtype == "fp8":
        types = {} if stored == "fp8" else {"attention": "fp8", "experts": "fp8", "compute": "fp8"}
    elif dtype in get_args(DataType):
        types = {"experts": dtype, "compute": dtype}  # type: ignore[dict-item]
    else:
        raise InputError("row", "dtype", f"{dtype!r} is no known data type", "")
    return model.model_copy(update={"types": model.types.model_copy(update=dict(types))})


def quantized(model: Model, dtype: str, generation: str, engine: Measured | None) -> Model:
    """The model in the data types of a measurement: its checkpoint, and what the engine is assumed to run it in.

    On Blackwell, products with 4-bit weights of gpt-oss take 8-bit activations: vLLM was told to, others do by default
    (specs/catalog/engines, runs). TensorRT-LLM and SGLang keep the KV cache in 8 bits in these runs, vLLM as the
    checkpoint says.

    Raises:
        InputError: an unknown data type.
    """
    model = checkpoint(model, dtype)
    types: dict[str, DataType] = {} if engine == "vllm" else {"kv_cache": "fp8"}
    if model.types.experts == "mxfp4" and generation == "blackwell":
        types["compute"] = "fp8"
    return model.model_copy(update={"types": model.types.model_copy(update=dict(types))})


def _engine(row: Row) -> Measured | None:
    family = row.engine.split()[0].lower() if row.engine else ""
    return next((name for name in get_args(Measured) if name == family), None)
