"""Predicted against published throughputs of DeepSeek, SGLang, TensorRT-LLM and vLLM deployments.

What a row does not state is assumed, and its settings say so; or the row has no prediction, and they say why.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.accuracy.offline import decode_tokens_per_s, prefill_tokens_per_s, queue_tokens_per_s
from bench.accuracy.settings import priced_as, quantized
from bench.csv_files import read_csv
from placement.cost.calibration.efficiency import Efficiency
from placement.cost.calibration.fitted import Case
from placement.cost.memory.hbm import MemoryModel
from placement.cost.step.throughput import ServingModel
from placement.errors import InputError
from placement.problem.split import Split, least_redundant, make_split
from specs.cluster import Cluster
from specs.documents import shown
from specs.engine import Measured
from specs.fields import DataType
from specs.loading import load_cluster, load_model
from specs.model import Model
from specs.scenario import Scenario
from specs.workload import ServingWorkload

COLUMNS = (
    "id", "model", "hardware", "gpus", "phase", "tp", "ep", "dp", "pp", "batch_per_gpu", "isl", "osl", "dtype",
    "metric", "value", "unit",
)  # fmt: skip
MODELS = {
    "deepseek": "deepseek_r1",
    "gpt-oss-120b": "gpt_oss_120b",
    "gpt-oss-20b": "gpt_oss_20b",
    "kimi-k2": "kimi_k2",
    "qwen3-235b": "qwen3_235b",
    "qwen3-30b": "qwen3_30b_a3b",
}
#: Longer names first: a GB200 is no B200.
CLUSTERS = {
    "gb200": "gb200_nvl72_ib",
    "b200": "b200_hgx_ib",
    "h800": "h800_2048_ib",
    "h200": "h200_hgx_ib",
    "h100": "h100_hgx_ib",
}
#: Sequences of an attention rank that TensorRT-LLM schedules at once unless told otherwise, and vLLM on an H100.
SCHEDULED = {"trtllm": 2048, "vllm": 1024}
#: Requests of TensorRT-LLM's published runs by (ISL, OSL), from the same page as the figures.
REQUESTS = {(1024, 8192): 1500, (8192, 1024): 1500, (1024, 32768): 1000, (32768, 1024): 1000}
MOST_REQUESTS = 3000


@dataclass(frozen=True)
class PublishedFigure:
    """One published figure.

    Attributes:
        model, generation: the catalog's model and generation of GPUs; empty where unknown.
        settings: what was predicted, with what was assumed, or why there is no prediction.
        measured, predicted: in `unit`; predicted is None without a prediction.
    """

    id: str
    model: str
    generation: str
    metric: str
    unit: str
    settings: str
    measured: float
    predicted: float | None

    @property
    def error(self) -> float | None:
        """Predicted over measured, less 1; None without a prediction."""
        return None if self.predicted is None else self.predicted / self.measured - 1.0


@dataclass(frozen=True)
class _Work:
    """What instances of a deployment do: tokens/s of an attention rank, and in words what was assumed."""

    scenario: Scenario
    split: Split
    rate: Callable[[ServingModel], float]
    settings: str


@dataclass(frozen=True)
class Deployment:
    """A published throughput that the cost model has a figure for.

    Attributes:
        name: rows of one source, model, cluster and layout share it, whatever their lengths.
        model, cluster: catalog entries.
        measured: in the row's unit. scale: that unit for each token/s of an attention rank.
    """

    id: str
    name: str
    model: str
    cluster: str
    measured: float
    scale: float
    work: _Work

    @property
    def case(self) -> Case:
        """What its constants depend on."""
        return Case.of(self.work.scenario)

    def predicted(self, efficiency: Efficiency | None = None) -> float:
        """In the row's unit; by the constants as shipped where none are given."""
        workload = self.work.scenario.workload
        if workload.kind != "serving":
            raise TypeError("a published throughput is of serving")
        serving = ServingModel(self.work.scenario, workload, self.work.split, None, efficiency)
        return self.work.rate(serving) * self.scale


@dataclass(frozen=True)
class Entry:
    """A row of the file as text, and its figure."""

    fields: dict[str, str]
    value: float

    def __getitem__(self, name: str) -> str:
        return self.fields[name]

    def count(self, name: str) -> int | None:
        """The first whole number in a field, or None."""
        found = re.search(r"\d+", self.fields[name])
        return int(found[0]) if found else None


def read_published(path: str | Path) -> tuple[Entry, ...]:
    """All rows of a file of published figures.

    Raises:
        InputError: the file can't be read, lacks a column, or a value is no number.
    """
    entries = []
    for line, row in enumerate(read_csv(path, COLUMNS), start=2):
        try:
            value = float(row["value"])
        except ValueError:
            raise InputError(
                str(path), f"line {line}, value", f"{shown(row['value'], 40)!r} is no number", "mend it"
            ) from None
        entries.append(Entry(row, value))
    return tuple(entries)


def deployments_of(entries: Sequence[Entry]) -> tuple[Deployment, ...]:
    """The serving rows that can be predicted."""
    found = (_deployment(entry) for entry in entries if entry["phase"] not in ("train", "comm"))
    return tuple(each for each in found if isinstance(each, Deployment))


def published_figures(
    entries: Sequence[Entry], held_out: Mapping[str, float] | None = None
) -> tuple[PublishedFigure, ...]:
    """Every serving row with its prediction, or the reason why it has none; training and network rows are left out.

    Args:
        held_out: Predictions by id that take the place of those by the constants as shipped.
    """
    found = []
    for entry in entries:
        if entry["phase"] in ("train", "comm"):
            continue
        known = _deployment(entry)
        predicted: float | None = None
        if isinstance(known, Deployment):
            predicted = known.predicted() if held_out is None else held_out[entry["id"]]
            settings = known.work.settings
        else:
            settings = f"not predicted: {known.problem}"
        model, generation = _model_name(entry) or "", _generation(entry)
        found.append(
            PublishedFigure(
                entry["id"], model, generation, entry["metric"], entry["unit"], settings, entry.value, predicted
            )
        )
    return tuple(found)


def median_error(figures: Sequence[PublishedFigure]) -> float:
    """Median absolute error of the figures with a prediction."""
    return statistics.median(abs(figure.error) for figure in figures if figure.error is not None)


def bias(figures: Sequence[PublishedFigure]) -> float:
    """Median signed error of the figures with a prediction: above 0 where predictions are too high."""
    return statistics.median(figure.error for figure in figures if figure.error is not None)


def _deployment(entry: Entry) -> Deployment | InputError:
    try:
        return _read(entry)
    except InputError as error:
        return error


def _read(entry: Entry) -> Deployment:
    if entry["unit"] not in ("tok/s/node", "tok/s/gpu", "tok/s"):
        raise InputError(entry["id"], "unit", "not a throughput of a stated deployment", "")
    gpus = entry.count("gpus")
    if gpus is None or not entry["tp"]:
        raise InputError(entry["id"], "gpus", "GPUs and degrees are not stated", "")
    engine = _engine(entry)
    cluster = _cluster(entry, gpus)
    model = _model(entry, cluster, engine)
    kinds = {"prefill": _prefill, "decode": _decode, "e2e": _queue}
    work = kinds[entry["phase"]](entry, model, cluster, engine)
    per = {"tok/s/node": 8 / gpus, "tok/s/gpu": 1 / gpus, "tok/s": 1.0}[entry["unit"]]
    hits = re.search(r"incl\. ([\d.]+)% cache hits", entry["metric"])
    fresh = 1 - float(hits[1]) / 100 if hits else 1.0
    source, at = entry["id"].split("_")[0], _cluster_name(entry) or ""
    layout = " ".join(f"{name}{entry[name]}" for name in ("tp", "ep", "dp", "pp"))
    return Deployment(
        entry["id"], f"{source} {model.name} {at} {layout}", model.name, at, entry.value,
        per * work.split.dp / fresh, work,
    )  # fmt: skip


def _engine(entry: Entry) -> Measured | None:
    prefix = entry["id"].split("_")[0]
    known: dict[str, Measured] = {"trt": "trtllm", "sgl": "sglang", "vllm": "vllm", "gps": "vllm"}
    engine = known.get(prefix)
    # SGLang and vLLM were measured with tensor-parallel attention alone: what was fitted to it says nothing of the
    # other path through the engine.
    return engine if engine == "trtllm" or entry["dp"] in ("", "1") else None


def _cluster(entry: Entry, gpus: int) -> Cluster:
    name = _cluster_name(entry)
    if name is None:
        raise InputError(entry["id"], "hardware", f"no cluster of {entry['hardware']!r} is known", "")
    cluster = load_cluster(name)
    if gpus < cluster.gpus_per_node:
        # A part of a node that the deployment fills.
        tray = cluster.gpus_per_tray if gpus % cluster.gpus_per_tray == 0 else 1
        return cluster.model_copy(
            update={"nodes": 1, "gpus_per_node": gpus, "gpus_per_os_node": None, "gpus_per_tray": tray}
        )
    return cluster.model_copy(update={"nodes": -(-gpus // cluster.gpus_per_node)})


def _cluster_name(entry: Entry) -> str | None:
    return next((value for key, value in CLUSTERS.items() if key in entry["hardware"].lower()), None)


def _generation(entry: Entry) -> str:
    name = _cluster_name(entry)
    return "" if name is None else load_cluster(name).gpu.generation or ""


def _model_name(entry: Entry) -> str | None:
    return next((value for key, value in MODELS.items() if key in entry["model"].lower()), None)


def _model(entry: Entry, cluster: Cluster, engine: Measured | None) -> Model:
    name = _model_name(entry)
    if name is None:
        raise InputError(entry["id"], "model", f"no model {entry['model']!r} in the catalog", "")
    model, generation = load_model(name), cluster.gpu.generation or ""
    four = "fp4" in entry["dtype"]
    model = quantized(model, "fp4" if four or model.types.experts == "mxfp4" else "fp8", generation, engine)
    types: dict[str, DataType] = {}
    if "bf16 attn" in entry["dtype"] or "bf16 mla" in entry["dtype"]:
        types["kv_cache"] = "bf16"
    if "bf16 attn" in entry["dtype"]:
        types["attention"] = "bf16"
    if name.startswith("gpt_oss") and generation == "hopper":
        # The page's options keep Hopper's cache in the model's own type.
        types["kv_cache"] = "bf16"
    return model.model_copy(update={"types": model.types.model_copy(update=dict(types))})


def _scenario(
    entry: Entry, model: Model, cluster: Cluster, engine: Measured | None, isl: int, osl: int, tokens: int
) -> Scenario:
    workload = ServingWorkload(
        kind="serving", name="published", isl=isl, osl=osl, ttft_ms=1e9, tpot_ms=1e9, prefill_tokens_per_gpu=tokens
    )
    # Two half batches hide each other's messages: two-batch or dual-batch overlap.
    hides = (
        bool(re.search(r"\b(TBO|DBO|profile trace|24h avg|excl. cache hit|perfect EPLB)\b", entry["metric"]))
        and "TBO off" not in entry["metric"]
    )
    return Scenario(
        name=entry["id"],
        model=model,
        cluster=cluster,
        workload=workload,
        redundant=0,
        engine=priced_as(engine),
        overlap="two_batch" if hides else "none",
        # Kernels for prefill send a token once per node, those for decode once per GPU.
        message_rule="per_node" if entry["phase"] == "prefill" else "per_rank",
    )


def _split(entry: Entry, scenario: Scenario, batch: int) -> Split:
    tp, ep, dp, pp = (int(entry[name]) for name in ("tp", "ep", "dp", "pp"))
    stated = re.search(r"(\d+) redundant", entry["metric"])
    redundant = int(stated[1]) if stated else least_redundant(scenario.model.moe.experts, ep)
    return make_split(scenario, tp, ep, pp, dp, batch, redundant=redundant, instances=1)


def _prefill(entry: Entry, model: Model, cluster: Cluster, engine: Measured | None) -> _Work:
    tokens, isl = entry.count("batch_per_gpu") or 16384, entry.count("isl") or 4096
    scenario = _scenario(entry, model, cluster, engine, isl, 2, tokens)
    assumed = "" if entry["isl"] else ", prompts of 4096 assumed"
    assumed += "" if entry["batch_per_gpu"] else ", passes of 16384 assumed"
    settings = f"full passes of {tokens} tokens a GPU, ISL {isl}{assumed}"
    return _Work(scenario, _split(entry, scenario, 1), prefill_tokens_per_s, settings)


def _decode(entry: Entry, model: Model, cluster: Cluster, engine: Measured | None) -> _Work:
    stated = re.search(r"(\d+)-(\d+) tok/s/user", entry["metric"])
    isl, osl = entry.count("isl") or 4096, entry.count("osl") or 2
    scenario = _scenario(entry, model, cluster, engine, isl, osl, 4096)
    batch, how = entry.count("batch_per_gpu"), "stated"
    if batch is None and stated:
        # Sequences of a GPU from its published rate and that of a user.
        users = (int(stated[1]) + int(stated[2])) / 2
        batch, how = round(entry.value / 8 / users), "from the rate of a user"
    if batch is None:
        batch, how = _fits(entry, scenario), "all that HBM holds"
    draft = " with the rate of plain decoding" if "MTP" in entry["metric"] else ""
    return _Work(
        scenario, _split(entry, scenario, batch), lambda serving: decode_tokens_per_s(serving, batch),
        f"{batch} sequences a GPU ({how}) at {isl} + {osl / 2:g} tokens{draft}",
    )  # fmt: skip


def _queue(entry: Entry, model: Model, cluster: Cluster, engine: Measured | None) -> _Work:
    isl, osl = entry.count("isl"), entry.count("osl")
    if isl is None or osl is None:
        raise InputError(entry["id"], "isl", "lengths are not stated", "")
    scenario = _scenario(entry, model, cluster, engine, isl, osl, max(1, 8192 // int(entry["tp"])))
    dp, limit = int(entry["dp"]), entry.count("batch_per_gpu")
    fits = _fits(entry, scenario)
    if entry["batch_per_gpu"].startswith("<="):
        batch = min(fits, limit or fits)
        return _Work(
            scenario, _split(entry, scenario, batch), lambda serving: serving.at(batch).tokens_per_s,
            f"{batch} sequences a GPU at all times",
        )  # fmt: skip
    requests = limit if limit is not None else REQUESTS.get((isl, osl), MOST_REQUESTS)
    own = -(-requests // dp)
    batch = min(fits, own, SCHEDULED[engine or "trtllm"])
    return _Work(
        scenario, _split(entry, scenario, batch), lambda serving: queue_tokens_per_s(serving, own, batch),
        f"{requests} requests queued at once, {batch} a rank at a time",
    )  # fmt: skip


def _fits(entry: Entry, scenario: Scenario) -> int:
    """The most sequences of an attention rank that HBM holds."""
    memory = MemoryModel(scenario, _split(entry, scenario, 1))
    if memory.total_bytes(1) > memory.capacity_bytes:
        raise InputError(entry["id"], "gpus", "the model does not fit with one sequence", "")
    low, high = 1, 1 << 16
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if memory.total_bytes(middle) <= memory.capacity_bytes else (low, middle)
    return low
