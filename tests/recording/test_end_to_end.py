"""From a model's own routing to the files of three engines: record, solve, export, read back, evaluate."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import TINY, Done
from tests.cli.conftest import call as call
from tests.recording.models import save_model

pytest.importorskip("torch")
#: What the formats call a map.
MAPS = ("expert_location.json", "eplb.npz", "expert_map.json")
pytest.importorskip("transformers")


def test_a_recorded_model_is_solved_exported_and_read_back(call: Callable[..., Done], tmp_path: Path) -> None:
    model = save_model("qwen3_moe", tmp_path / "model")
    (tmp_path / "text.txt").write_text("Experts are chosen by what a token means, and where it stands. " * 12)
    trace, spec = str(tmp_path / "t.npz"), tmp_path / "mine.yaml"
    done = call(
        "trace", "record", "--model", str(model), "--text", str(tmp_path / "text.txt"), "--out", trace,
        "--tokens", "300", "--length", "40", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    scenario = copy.deepcopy({key: value for key, value in TINY.items() if key not in ("model", "pins", "redundant")})
    scenario["cluster"]["gpu"]["peak_tflops"]["fp32"] = 5.0
    spec.write_text(yaml.safe_dump({**scenario, "model": str(model), "pins": {"tp": 1, "pp": 1, "ep": 4, "dp": 4}}))
    plan = str(tmp_path / "plan.json")
    done = call(
        "solve", "--spec", str(spec), "--trace", trace, "--redundant", "4", "--engine", "sglang:deepep",
        "--set", "model.types.kv_cache=bf16", "--work", "0.05", "--out", plan,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert call("verify", plan, "--trace", trace).code == 0
    for engine in ("sglang", "deepseek", "vllm-ascend"):
        folder = tmp_path / engine
        done = call("export", "--plan", plan, "--to", engine, "--out", str(folder))
        assert done.code == 0, done.err
        (held,) = (path for path in (folder / "aggregated").iterdir() if path.name in MAPS)
        done = call("export", "--check", str(held), "--to", engine, "--plan", plan)
        assert done.code == 0, done.err
    scored = json.loads(call("evaluate", plan, "--trace", trace, "--part", "second-half", "--json").out)
    own = json.loads(Path(plan).read_text())["roles"][0]["strategies"][-1]
    assert scored["traces"][0]["plan"]["tokens_per_s"] == own["tokens_per_s"]
