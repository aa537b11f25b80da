"""The targets about presets: both sides, on every scenario that they fit."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.lab.harness import Asked, faults, run_pair
from bench.lab.planner import Planner
from bench.lab.render import screen
from bench.lab.target import LabCase, Outcome, PairResult, Target
from bench.lab.targets import alltoall_tuning, moe_vllm_env
from placement.errors import InfeasibleError, InputError, ParameterError
from specs.loading import catalog_names, load_scenario
from tests.engines.plans import plan, two_roles

TARGETS: dict[str, Target[Any]] = {each.TARGET.name: each.TARGET for each in (moe_vllm_env, alltoall_tuning)}
SPEC = "gpt_oss_120b_gb200_ib"


def _pair(name: str, spec: str = SPEC, **options: Any) -> tuple[Outcome, Outcome]:
    target = TARGETS[name]
    case = LabCase(load_scenario(spec), target.options(**options), "minimal", Planner())
    return target.baseline(case), target.optimized(case)


@pytest.mark.parametrize("name", TARGETS)
def test_never_worse_and_ties_say_why(name: str) -> None:
    """On every scenario of the catalog that fits; what does not fit says what is in the way."""
    fitted = 0
    for spec in catalog_names("scenario"):
        if why := TARGETS[name].fits(load_scenario(spec)):
            assert "training" in why or "GB of HBM" in why
            continue
        before, after = _pair(name, spec)
        fitted += 1
        assert before.throughput is not None
        assert after.throughput is not None
        assert after.throughput >= before.throughput
        assert (after.throughput > before.throughput) == (after.tie == "")
        assert {figure.name for figure in before.compared} <= {figure.name for figure in after.compared}
    assert fitted >= 20


@pytest.mark.parametrize("name", TARGETS)
def test_the_harness_takes_the_example(name: str) -> None:
    """The knob of the documentation turns, and its screen fits 80 columns but for commands that are to be copied."""
    target = TARGETS[name]
    asked = Asked((target,), extra={name: target.example})
    result = run_pair(target, load_scenario(SPEC), asked, Planner())
    assert isinstance(result, PairResult)
    assert faults(result) == []
    assert all(len(line) <= 80 or line.startswith("  $ ") for line in screen([result], []).splitlines())


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("moe_vllm_env", "--fabric ib", "'ib' is not one of 'nvlink', 'nvl72'"),
        ("alltoall_tuning", "--fabric moon", "'moon' is not one of 'nvlink', 'nvl72', 'ib', 'efa', 'ethernet'"),
        ("moe_vllm_env", "--nope 1", "it takes --fabric nvlink|nvl72, --model TEXT, --tp N"),
        ("moe_vllm_env", "--gpu-util 3", "3.0 is not in the range"),
    ],
)
def test_wrong_extra_arguments_name_the_valid_ones(name: str, text: str, told: str) -> None:
    """In a line, which ends a command with exit code 2."""
    with pytest.raises(InputError, match=re.escape(told)):
        run_pair(TARGETS[name], load_scenario(SPEC), Asked((TARGETS[name],), extra={name: text}), Planner())


def test_a_network_where_no_domain_is_large_enough() -> None:
    """Messages go over the cluster's network if one NVLink domain can't hold the model; vLLM's preset says it can't."""
    assert "GB of HBM" in TARGETS["moe_vllm_env"].fits(load_scenario("deepseek_r1_h100_ib"))
    _, after = _pair("alltoall_tuning", "deepseek_r1_h100_ib")
    assert after.label.startswith("preset for ib: ")


@pytest.mark.parametrize("fabric", ["nvlink", "nvl72", "ib", "efa", "ethernet"])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_fabric_has_a_side(fabric: str, engine: str) -> None:
    """Text fits 80 columns, but for commands that are to be copied."""
    _, after = _pair("alltoall_tuning", fabric=fabric, engine=engine)
    stands = any("stands for it" in note for note in after.notes)
    assert stands == (fabric in ("efa", "ethernet"))  # the scenario's racks have InfiniBand
    for drawing in after.drawings:
        for line in drawing.text.splitlines():
            assert len(line) <= 80 or line.startswith("  $ ")
    assert [drawing.title for drawing in after.drawings][-2:] == ["Left out", "How to check, and how to read less"]
    names = [each.name for each in after.attachments]
    assert names == ["env.sh", "preset.env", "env.yaml", "preset.json", "checks.txt"]
    preset = json.loads(after.attachments[3].content)
    assert (preset["fabric"], preset["engine"]) == (fabric, engine)


def test_the_rack_says_what_a_node_is() -> None:
    """NCCL's node is the OS node; what follows is said, and the variable is set where DeepEP needs it."""
    _, after = _pair("moe_vllm_env", fabric="nvl72", backend="deepep_low_latency", dp=16, ep=16, max_seqs=64)
    told = " ".join(after.notes)
    assert "an OS node of 4 GPUs, not the NVLink domain of 72" in told
    assert "IMEX" in told
    files = {each.name: each.content for each in after.attachments}
    assert "export VLLM_DEEPEP_LOW_LATENCY_USE_MNNVL='1'" in files["env.sh"]
    assert "--nnodes 4" in files["serve.sh"]
    assert "--max-num-seqs 64" in files["serve.sh"]
    assert "MNNVL_ENABLE" not in files["env.sh"]
    assert "-x NCCL_MNNVL_ENABLE=1" in files["checks.txt"]
    assert "bash serve.sh" in " ".join(after.production)


def test_options_are_carried_into_the_command() -> None:
    """Each of the extra arguments that a command has."""
    options = {"model": "openai/gpt-oss-120b", "tp": 2, "pp": 2, "ep": 2, "dp": 1, "max_seqs": 24, "max_len": 8192}
    _, after = _pair("moe_vllm_env", fabric="nvlink", gpu_util=0.8, **options)
    script = next(each.content for each in after.attachments if each.name == "serve.sh")
    for word in (
        "--tensor-parallel-size 2", "--pipeline-parallel-size 2", "--max-num-seqs 24", "--max-model-len 8192",
        "--gpu-memory-utilization 0.8", "--enable-expert-parallel", "exec vllm serve openai/gpt-oss-120b",
    ):  # fmt: skip
        assert word in script


def test_what_cannot_be_names_what_can() -> None:
    """A backend, a fabric, a batch."""
    with pytest.raises(ParameterError, match="choose allgather_reducescatter"):
        _pair("alltoall_tuning", fabric="efa", backend="deepep_v2")
    with pytest.raises(ParameterError, match="choose nvlink, nvl72, ib, efa, ethernet"):
        _pair("alltoall_tuning", fabric="token-ring")
    with pytest.raises(InfeasibleError, match="don't fit in HBM"):
        _pair("moe_vllm_env", "deepseek_r1_h200_ib", fabric="nvlink", max_seqs=1000)


def test_a_backend_that_is_asked_for_runs_on_both_sides() -> None:
    """However fast it is: the study is then about its settings. What it is against the default is said."""
    before, after = _pair("alltoall_tuning", "deepseek_r1_h200_ib", fabric="nvlink", backend="deepep_low_latency")
    assert after.throughput == before.throughput
    assert "which was asked for (-" in after.tie
    assert before.label == "vllm, nothing set: deepep_low_latency"


def test_decode_alone_takes_the_low_latency_kernels() -> None:
    """Their passes are short, and their buffers and queue pairs are told."""
    before, after = _pair(
        "alltoall_tuning", "deepseek_r1_h200_ib", fabric="ib", role="decode", backend="deepep_low_latency"
    )
    sizes = next(each.text for each in after.drawings if each.title == "What the backend allocates")
    assert "num_max_dispatch_tokens_per_rank" in sizes
    assert "num_rdma_bytes" in sizes
    held = after.figure("message buffers of a GPU")
    assert held is not None
    assert held.value > 1
    assert before.figure("message buffers of a GPU") == held


def test_a_plan_file_says_the_instance(tmp_path: Path) -> None:
    """Its role's degrees and batch, whatever --spec is; of two roles the one that is named."""
    made = plan("vllm")
    made.save(tmp_path / "plan.json")
    split = made.roles[0].split
    _, after = _pair("alltoall_tuning", plan=str(tmp_path / "plan.json"), fabric="ib", backend="deepep_v2")
    assert f"EP {split.ep}, PP {split.pp}, DP {split.dp}), batch {split.batch}" in after.notes[0]
    two_roles(made).save(tmp_path / "two.json")
    _, decode = _pair("alltoall_tuning", plan=str(tmp_path / "two.json"), fabric="ib", role="decode")
    assert {figure.name.split()[0] for figure in decode.figures} >= {"decode"}
    assert not any(figure.name.startswith("prefill") for figure in decode.figures)
    with pytest.raises(ParameterError, match="no role of the plan"):
        _pair("alltoall_tuning", plan=str(tmp_path / "two.json"), fabric="ib")
    with pytest.raises(ParameterError, match="more than the 2 of an OS node"):
        _pair("moe_vllm_env", plan=str(tmp_path / "plan.json"), fabric="nvlink")


def test_listing_imports_no_more_than_it_needs() -> None:
    """A target's file is read without the planner."""
    code = (
        "import sys; from bench.lab.targets import moe_vllm_env, alltoall_tuning; "
        "print([name for name in ('numpy', 'numba', 'ortools', 'pydantic', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"


def test_options_have_help() -> None:
    """Every extra argument says what it is."""
    for target in TARGETS.values():
        for each in dataclasses.fields(target.options):
            assert each.metadata["told"]
