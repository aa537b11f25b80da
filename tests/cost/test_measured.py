"""Predictions against measured serving configurations. Run with -s to see the error by group."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

from placement.cost.throughput import predict
from placement.split import make_split
from specs.loading import load_cluster, load_model
from specs.schema import Model, Scenario, ServingWorkload

CLUSTERS = {"b200_sxm": "b200_hgx_ib", "h200_sxm": "h200_hgx_ib", "h100_sxm": "h100_hgx_ib"}
MODELS = {
    "deepseek-ai/DeepSeek-R1": "deepseek_r1",
    "deepseek-ai/DeepSeek-V3": "deepseek_r1",
    "openai/gpt-oss-120b": "gpt_oss_120b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3_235b",
}
#: Tokens of an engine's prefill pass per attention rank.
CHUNK = 8192


def quantized(model: Model, row: dict[str, str]) -> Model:
    """The model in the data types that the row was measured in."""
    types: dict[str, str] = {}
    if row["dtype"] == "fp4" and "gpt-oss" not in row["model"]:
        types = {"experts": "nvfp4", "compute": "nvfp4"}
    elif row["dtype"] == "fp8" and "Qwen3" in row["model"]:
        types = {"attention": "fp8", "experts": "fp8", "compute": "fp8"}
    return model.model_copy(update={"types": model.types.model_copy(update=types)})


def test_tpot_is_near_what_was_measured_on_one_node(shared_dir: Path) -> None:
    path = shared_dir / "measured" / "serving.csv"
    if not path.is_file():
        pytest.skip("no measurements beside this checkout (../shared/measured/serving.csv)")
    errors: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    models = {name: load_model(entry) for name, entry in MODELS.items()}
    nodes = {name: load_cluster(entry).model_copy(update={"nodes": 1}) for name, entry in CLUSTERS.items()}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            tp, ep, dp, gpus = (int(row[name]) for name in ("tp", "ep", "dp", "gpus"))
            # Larger rows state degrees that no single instance of these models can have.
            if row["gpu"] not in nodes or gpus > 8 or tp * dp != gpus:
                continue
            workload = ServingWorkload(
                kind="serving", name="measured", isl=int(row["isl"]), osl=int(row["osl"]), ttft_ms=1e6, tpot_ms=1e6,
                prefill_tokens_per_gpu=CHUNK // tp,
            )  # fmt: skip
            scenario = Scenario(
                name=row["id"], model=quantized(models[row["model"]], row), cluster=nodes[row["gpu"]],
                workload=workload, redundant=0,
            )  # fmt: skip
            batch = max(1, round(float(row["batch_per_attention_rank"])))
            got = predict(scenario, make_split(scenario, tp, ep, 1, dp, batch, instances=1))
            assert got.tpot_s is not None
            assert got.ttft_s is not None
            group = (row["model"].split("/")[1], row["gpu"], row["dtype"], "tp" if ep == 1 else "ep")
            errors[group].append((got.tpot_s * 1e3 / float(row["tpot_ms"]), got.ttft_s * 1e3 / float(row["ttft_ms"])))
    for group, ratios in sorted(errors.items()):
        tpot, ttft = (statistics.median(ratio[i] for ratio in ratios) for i in (0, 1))
        print(f"{' '.join(group):45} rows {len(ratios):4} predicted/measured: TPOT {tpot:.2f} TTFT {ttft:.2f}")
    every = [ratio for ratios in errors.values() for ratio in ratios]
    tpot_error, ttft_error = (statistics.median(abs(ratio[i] - 1) for ratio in every) for i in (0, 1))
    print(f"{len(every)} rows, median absolute error: TPOT {tpot_error:.1%}, TTFT {ttft_error:.1%}")
    assert len(every) > 500
    assert tpot_error < 0.25
    assert ttft_error < 0.6
