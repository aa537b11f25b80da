"""`--engine` on every command that plans or prices: what is told, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Done
from tests.cli.test_bad_input import one_line

QUICK = ("--strategy", "eplb", "--workers", "1")


def test_solve_names_the_engine_and_what_it_sends(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "p.json")
    done = call("solve", "--spec", str(folder / "tiny.yaml"), *QUICK, "--engine", "sglang:deepep", "--out", out)
    assert done.code == 0
    assert "sglang 0.5.23, deepep" in done.out
    assert "per_rank in decode, per_node in prefill" in " ".join(done.out.split())
    plan = json.loads(Path(out).read_text())
    assert plan["engine"] == {"name": "sglang", "version": "0.5.23", "backend": "deepep", "notes": []}
    role = plan["roles"][0]
    assert role["messages"] == {"decode": "per_rank", "prefill": "per_node"}
    assert (role["dispatch"], role["message_rule"]) == ("sglang_static", "per_node")
    assert call("verify", out).code == 0


def test_dense_messages_are_told(call: Callable[..., Done], folder: Path) -> None:
    done = call("solve", "--spec", str(folder / "tiny.yaml"), *QUICK, "--engine", "vllm")
    told = " ".join(done.out.split())
    assert "vllm 0.33.0, allgather_reducescatter" in told
    assert "expert placement buys balance alone" in told
    assert "loads no static expert map" in told


def test_generic_says_what_it_assumes(call: Callable[..., Done], folder: Path) -> None:
    told = " ".join(call("solve", "--spec", str(folder / "tiny.yaml"), *QUICK).out.split())
    assert "generic, all_to_all (assumed: " in told


def test_compare_deploy_and_migrate_name_it(call: Callable[..., Done], folder: Path) -> None:
    tiny, engine = str(folder / "tiny.yaml"), ("--engine", "sglang:deepep", "--json")
    compared = json.loads(call("compare", "--spec", tiny, *QUICK, *engine).out)
    assert compared["scenarios"][0]["engine"]["backend"] == "deepep"
    deployed = json.loads(call("deploy", "--spec", tiny, "--mode", "aggregated", *engine).out)
    assert deployed["engine"]["name"] == "sglang"
    moved = call("migrate", "--plan", str(folder / "recorded.json"), "--trace", str(folder / "b.npz"), *engine)
    assert json.loads(moved.out)["engine"]["backend"] == "deepep"


def test_a_plan_is_evaluated_as_another_engine_runs_it(call: Callable[..., Done], folder: Path) -> None:
    args = ("evaluate", "--plan", str(folder / "recorded.json"), "--trace", str(folder / "a.npz"), "--json")
    own, other = json.loads(call(*args).out), json.loads(call(*args, "--engine", "vllm").out)
    assert (own["engine"]["name"], other["engine"]["name"]) == ("generic", "vllm")
    assert other["message_rule"] == "dense"
    mine, its = (each["traces"][0]["plan"]["cross_node_bytes_per_token"] for each in (own, other))
    assert its > mine
    assert own["traces"][0]["plan"]["balancedness"] == other["traces"][0]["plan"]["balancedness"]


def test_an_engine_that_does_not_load_the_plan_is_refused(call: Callable[..., Done], folder: Path) -> None:
    args = ("evaluate", "--plan", str(folder / "recorded.json"), "--trace", str(folder / "a.npz"))
    line = one_line(call(*args, "--engine", "vllm:flashinfer_nvlink_one_sided"))
    assert "more than a node of 2 GPUs" in line
    assert "all2all.py" in line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--engine", "vlm"), ("no engine of that name", "did you mean vllm")),
        (("--engine", "sglang:deep_ep"), ("backend", "did you mean deepep")),
        (("--engine", "vllm", "--ep", "2"), ("ep 2 is neither 1 nor tp x dp = 4", "FusedMoEParallelConfig")),
    ],
)
def test_what_can_not_be_is_one_line(
    call: Callable[..., Done], folder: Path, args: tuple[str, ...], words: tuple[str, ...]
) -> None:
    line = one_line(call("solve", "--spec", str(folder / "tiny.yaml"), *args))
    assert all(word in line for word in words)


def test_a_scenario_names_an_engine_file(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    shown = call("specs", "show", "sglang", "--kind", "engine").out
    (tmp_path / "mine.yaml").write_text(shown.replace("name: sglang", "name: my_sglang"))
    text = (folder / "tiny.yaml").read_text() + "\nengine: mine.yaml:deepep\n"
    (tmp_path / "s.yaml").write_text(text)
    plan = json.loads(call("solve", "--spec", str(tmp_path / "s.yaml"), *QUICK, "--json").out)
    assert (plan["engine"]["name"], plan["engine"]["backend"]) == ("my_sglang", "deepep")


def test_another_rule_is_shown_beside_what_the_engine_makes_of_it(
    call: Callable[..., Done], folder: Path, tmp_path: Path
) -> None:
    """Experts are placed for the rule that is asked for; the engine serves by its own, and verify derives that row."""
    out = tmp_path / "p.json"
    asked = ("solve", "--spec", str(folder / "tiny.yaml"), *QUICK, "--engine", "sglang:deepep", "--redundant", "4")
    done = call(*asked, "--dispatch", "planned", "--out", str(out))
    assert done.code == 0
    assert "as sglang serves it" in done.out
    plan = json.loads(out.read_text())
    role = plan["roles"][0]
    own = next(row for row in role["strategies"] if row["placements"] is None)
    assert role["dispatch"] == "planned"
    assert role["served"].keys() == own.keys()
    assert call("verify", str(out)).code == 0
    role["served"]["moe_layer_us"] *= 1.01
    out.write_text(json.dumps(plan))
    assert call("verify", str(out)).code == 6
    plain = call(*asked)
    assert plain.code == 0
    assert "serves it" not in plain.out
