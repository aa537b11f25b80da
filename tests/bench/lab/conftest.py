"""Small scenarios that every study is tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.lab.planner import Planner
from placement import load_scenario
from specs.scenario import Scenario

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"

GPU = "{name: G, generation: hopper, hbm_gib: 79.65, hbm_gb_per_s: 3350, peak_tflops: {bf16: 989.4, fp8: 1978.9}}"
MODEL = """hidden: 1024
  vocabulary: 32000
  attention: {kind: gqa, query_heads: 16, kv_heads: 8, head_dim: 64}
  moe: {experts: 16, top_k: 2, expert_width: 512}"""
RACK = f"""
name: NAME_rack
model:
  name: NAME
  layers: 2
  {MODEL}
cluster:
  name: small_rack
  gpu: {GPU}
  nodes: 1
  gpus_per_node: 72
  gpus_per_tray: 4
  fast: {{gb_per_s: 900, latency_us: 3.33}}
  slow: {{gb_per_s: 50, latency_us: 3.7}}
workload: serving_4k_1k
"""
TRAINING = f"""
name: small_training
model:
  name: small
  layers: 4
  {MODEL}
cluster:
  name: two_boxes
  gpu: {GPU}
  nodes: 2
  gpus_per_node: 4
  fast: {{gb_per_s: 450, latency_us: 3.33}}
  slow: {{gb_per_s: 50, latency_us: 3.7}}
workload: {{kind: training, name: t, global_batch: 64, sequence: 2048}}
pins: {{tp: 1, pp: 2}}
"""


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scenario files by what they are: serving, training, and racks of either model family."""
    folder = tmp_path_factory.mktemp("lab")
    found = {"serving": EXAMPLES / "tiny_moe.yaml", "training": folder / "training.yaml"}
    found["training"].write_text(TRAINING)
    for name in ("gpt_oss", "deepseek_r1"):
        found[name] = folder / f"{name}.yaml"
        found[name].write_text(RACK.replace("NAME", name))
    return found


@pytest.fixture(scope="session")
def scenarios(files: dict[str, Path]) -> dict[str, Scenario]:
    return {name: load_scenario(path) for name, path in files.items()}


@pytest.fixture(scope="session")
def planner() -> Planner:
    """One for all tests: what one study planned, the others take."""
    return Planner("minimal", workers=1)
