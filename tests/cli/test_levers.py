"""Flags of levers, and what exported files say of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import yaml

from placement import ParameterError, export_plan
from placement.cli.options import DRAFT_METHODS, KV_TYPES
from specs.fields import DataType
from specs.speculation import DraftMethod
from tests.cli.conftest import Done
from tests.cli.test_bad_input import one_line
from tests.engines import plans

Call = Callable[..., Done]
FLAGS = ("--draft", "2", "--accepted", "1.2", "--prefix-hit", "25%", "--chunk-tokens", "48", "--no-cuda-graphs")


def test_choices_are_those_of_the_specs() -> None:
    """Words of the flags are kept beside the types."""
    assert get_args(DraftMethod) == DRAFT_METHODS
    assert set(KV_TYPES) <= set(get_args(DataType))


def test_a_plan_and_its_screen_name_the_levers(call: Call, folder: Path, tmp_path: Path) -> None:
    """Flags end in the plan's fields; the screen says them; the plan is verified."""
    out = str(tmp_path / "plan.json")
    spec = ("--spec", str(folder / "tiny.yaml"))
    done = call("solve", *spec, *FLAGS, "--kv-type", "fp8", "--strategy", "eplb", "--out", out)
    assert done.code == 0, done.err
    assert "2 drafted in a step, 1.20 accepted" in " ".join(done.out.split())
    plan = json.loads(Path(out).read_text())
    spec_ = plan["scenario"]["spec"]
    assert spec_["workload"]["speculation"]["accepted"] == 1.2
    assert (spec_["workload"]["prefix_hit"], spec_["workload"]["chunk_tokens"]) == (0.25, 48)
    assert spec_["engine"]["cuda_graphs"] is False
    assert spec_["model"]["types"]["kv_cache"] == "fp8"
    lines = {line["name"] for line in plan["roles"][0]["memory"]["lines"]}
    assert "draft weights" in lines
    assert call("verify", out).code == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--draft", "2"),
            "--draft: workload.speculation: how many drafts are taken is not said; give --acceptance or --accepted",
        ),
        (
            ("--draft", "2", "--acceptance", "0.5", "--accepted", "1", "--nodes", "3"),
            "--draft, --acceptance and --accepted: workload.speculation: --acceptance and --accepted say the same; ",
        ),
        (
            ("--draft", "1", "--accepted", "1.5"),
            "--accepted 1.5 is more than the 1 tokens drafted; lower --accepted",
        ),
        (("--acceptance", "0.5"), "--acceptance: --draft: is missing; add it"),
        (("--draft-method", "ngram", "--isl", "32"), "--draft-method: --draft: is missing; add it"),
        (
            ("--draft", "1", "--acceptance", "0.5", "--draft-method", "eagle3"),
            "workload.speculation: --draft-method eagle3 needs parameters_b; set it to how many it has, in billions",
        ),
        (
            ("--draft", "1", "--accepted", "1", "--set", "workload.speculation.layers=3"),
            "--draft, --accepted and --set: workload.speculation: --draft-method mtp takes no layers; leave it out",
        ),
        (
            ("--draft", "1", "--accepted", "1", "--draft-method", "ngram", "--set", "workload.speculation.type=fp8"),
            "--draft-method ngram takes no type; leave it out",
        ),
        (("--prefix-hit", "1"), "--prefix-hit: workload.prefix_hit: is 1.0; write at most 0.999"),
    ],
)
def test_mistakes(call: Call, folder: Path, flags: tuple[str, ...], words: str) -> None:
    """One line that names the options."""
    assert words in one_line(call("specs", "show", str(folder / "tiny.yaml"), *flags))


@pytest.mark.parametrize("name", ["sglang", "vllm", "trtllm"])
@pytest.mark.parametrize("method", ["mtp", "eagle3"])
def test_exported(name: str, method: str, tmp_path: Path) -> None:
    """Each lever is the engine's own flag, or a field of its config."""
    own = {} if method == "mtp" else {"parameters_b": 0.1}
    workload = {**plans.TINY["workload"], "prefix_hit": 0.25, "chunk_tokens": 48}
    workload["speculation"] = {"method": method, "draft": 2, "accepted": 1.2, **own}
    made = plans.plan(
        plans.ENGINES[name], workload=workload, model=plans.TINY["model"] | {"types": {"kv_cache": "fp8"}}
    )
    spec = made.scenario.spec
    engine = spec.engine.model_copy(update={"cuda_graphs": False})
    scenario = made.scenario.model_copy(update={"spec": spec.model_copy(update={"engine": engine})})
    made = made.model_copy(update={"scenario": scenario})
    export_plan(made, name, tmp_path / "out")
    assert "the plan counts on 25.0% of the input tokens" in (tmp_path / "out" / "README.md").read_text()
    script = (tmp_path / "out" / "aggregated" / "node-0.sh").read_text()
    if name == "sglang":
        algorithm = {"mtp": "NEXTN", "eagle3": "EAGLE3"}[method]
        for line in (
            f"--speculative-algorithm {algorithm}", "--speculative-num-steps 2", "--speculative-eagle-topk 1",
            "--speculative-num-draft-tokens 3", "--disable-decode-cuda-graph", "--kv-cache-dtype fp8_e4m3",
            "--chunked-prefill-size 192",
        ):  # fmt: skip
            assert f"  {line}\n" in script
    elif name == "vllm":
        told = {"method": method, **({} if method == "mtp" else {"model": "$DRAFT"}), "num_speculative_tokens": 2}
        assert json.dumps(told)[1:-1] in script.replace('\\"', '"')
        for line in (
            "--enforce-eager",
            "--enable-prefix-caching",
            "--kv-cache-dtype fp8",
            "--max-num-batched-tokens 48",
        ):
            assert f"  {line}\n" in script
    else:
        config = yaml.safe_load((tmp_path / "out" / "aggregated" / "config.yaml").read_text())
        balancer = Path(config["moe_config"]["load_balancer"]).name
        rows = yaml.safe_load((tmp_path / "out" / "aggregated" / balancer).read_text())["initial_global_assignments"]
        assert list(rows) == ([1, 2, 3] if method == "mtp" else [1, 2])  # the module is layer 3 of layers 0 to 2
        assert config["kv_cache_config"] == {"dtype": "fp8", "enable_block_reuse": True}
        assert config["enable_chunked_prefill"] is True
        assert config["cuda_graph_config"] is None
        assert config["speculative_config"] == (
            {"decoding_type": "MTP", "num_nextn_predict_layers": 2}
            if method == "mtp"
            else {"decoding_type": "Eagle", "max_draft_len": 2, "speculative_model": "@DRAFT@"}
        )
    assert ("{DRAFT:-}" in script) == (method == "eagle3")
    compose = tmp_path / "out" / "compose.yaml"
    assert not compose.exists() or ("DRAFT" in compose.read_text()) == (method == "eagle3")


@pytest.mark.parametrize("name", ["sglang", "vllm", "trtllm"])
def test_shared_prompts_are_exported(name: str, tmp_path: Path) -> None:
    """Four attention ranks of which two share a prompt are two ranks of data parallelism."""
    made = plans.two_roles(plans.plan(plans.ENGINES[name]))
    first, *rest = made.roles
    made = made.model_copy(update={"roles": (first.model_copy(update={"cp": 2}), *rest)})
    if name == "trtllm":
        with pytest.raises(ParameterError, match="plan it with prefill_cp 1"):
            export_plan(made, name, tmp_path / "out")
        return
    export_plan(made, name, tmp_path / "out")
    prefill, decode = ((tmp_path / "out" / role / "node-0.sh").read_text() for role in ("prefill", "decode"))
    if name == "sglang":
        assert "--attn-dp-size 2\n" in prefill
        assert "--attn-cp-size 2\n" in prefill
        assert "--enable-prefill-cp\n" in prefill
        assert "--attn-dp-size 4\n" in decode
    else:
        assert "--data-parallel-size 2\n" in prefill
        assert "--prefill-context-parallel-size 2\n" in prefill
        assert "--data-parallel-size 4\n" in decode
    assert "-cp" not in decode
    assert "context-parallel" not in decode


def test_a_deployment_keeps_its_shared_prompts(call: Call, tmp_path: Path) -> None:
    """Ranks that share a prompt are pinned in deploy, kept by solve, and no others are taken there."""
    spec, out = ("--spec", "olmoe_1b_7b_h100_ib", "--nodes", "1"), str(tmp_path / "d.json")
    done = call("deploy", *spec, "--mode", "disaggregated", "--balanced", "--prefill-cp", "2", "--out", out)
    assert done.code == 0, done.err
    roles = json.loads(Path(out).read_text())["roles"]
    assert {role["role"]: role["cp"] for role in roles} == {"prefill": 2, "decode": 1}
    again = call("solve", "--deployment", out, "--strategy", "linear", "--json")
    assert again.code == 0, again.err
    assert [role["cp"] for role in json.loads(again.out)["roles"]] == [role["cp"] for role in roles]
    other = call("solve", "--deployment", out, "--strategy", "linear", "--prefill-cp", "4", "--json")
    assert "4 is asked for" in one_line(other)
