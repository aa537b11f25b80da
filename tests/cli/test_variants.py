"""Options that change a scenario's fields, on the commands that take one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Done, finish, process
from tests.cli.test_bad_input import one_line

Call = Callable[..., Done]


def test_solve_plans_the_variant_and_the_plan_holds_it(call: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"like: {folder / 'tiny.yaml'}\nmodel: {{moe: {{expert_width: 64}}}}\n")
    changes = ("--set", "pins={ep: 2, dp: 2}", "--nodes", "1", "--isl", "32", "--set", "model.types.experts=fp8")
    done = call("solve", "--spec", str(tmp_path / "mine.yaml"), *changes, "--strategy", "eplb", "--json")
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    spec = plan["scenario"]["spec"]
    assert (spec["name"], spec["cluster"]["nodes"], spec["workload"]["isl"]) == ("mine", 1, 32)
    assert (spec["model"]["moe"]["expert_width"], spec["model"]["types"]["experts"]) == (64, "fp8")
    assert plan["roles"][0]["split"]["ep"] == 2


def test_deploy_and_compare_take_the_same_options(call: Call, folder: Path) -> None:
    spec = ("--spec", str(folder / "tiny.yaml"))
    changes = ("--osl", "16", "--tpot-ms", "90", "--set", "routing.skew=3")
    deployed = call("deploy", *spec, *changes, "--mode", "aggregated", "--balanced", "--json")
    assert deployed.code == 0, deployed.err
    assert json.loads(deployed.out)["scenario"]["spec"]["workload"]["tpot_ms"] == 90
    compared = call("compare", *spec, *changes, "--strategy", "eplb")
    assert compared.code == 0, compared.err
    assert "tiny" in compared.out


@pytest.mark.parametrize("command", ["solve", "compare", "deploy", "specs show"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--set", "model.moe.expert=3"),
            "--set: model.moe.expert: is not a known field; did you mean model.moe.exper",
        ),
        (("--set", "model..x=3"), "--set: model..x: has an empty step"),
        (("--set", "__class__=3"), "--set: __class__: is not a known field"),
        (("--set", "model.dense_layers.0=3"), "--set: model.dense_layers.0: model.dense_layers is a list"),
        (("--set", "cluster"), "--set: is the text 'cluster'; write path=value"),
        (("--set", "cluster=["), "--set: cluster: line 2: not valid YAML"),
        (("--set", f"cluster={'[' * 3000}"), "--set: cluster: line 1: nested over 32 deep"),
        (("--set", "cluster=&a [*a]"), "--set: cluster: line 1: YAML anchors and aliases are not taken"),
        (("--set", "cluster=nowhere"), "--set: cluster: nowhere: no cluster of that name"),
        (("--isl", "3", "--set", "workload.isl=3"), "--set: workload.isl: --isl and --set both give a value"),
        (("--isl", "20000000"), "--isl"),
        (("--nodes", "70000"), "--nodes: cluster.nodes: is 70000; write at most 65536"),
        (("--nodes", "0"), "--nodes"),
    ],
)
def test_a_wrong_value_names_its_option(
    call: Call, folder: Path, command: str, arguments: tuple[str, ...], words: str
) -> None:
    spec = (str(folder / "tiny.yaml"),) if command == "specs show" else ("--spec", str(folder / "tiny.yaml"))
    assert words in one_line(call(*command.split(), *spec, *arguments))


@pytest.mark.parametrize("command", ["solve", "compare", "deploy"])
def test_what_is_no_scenario_is_told(call: Call, folder: Path, command: str) -> None:
    plan = str(folder / "synthetic.json")
    assert "synthetic.json: is a plan (placement.plan/" in one_line(call(command, "--spec", plan))
    assert "is recorded routing" in one_line(call(command, "--spec", str(folder / "a.npz")))
    line = one_line(call(command, "--spec", "h100_hgx_ib"))
    assert "is a cluster, not a scenario; name a scenario, and put this cluster into it: --cluster h100_hgx_ib" in line


def test_variants_as_a_process(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("like: loop.yaml\n")
    (tmp_path / "mine.yaml").write_text("like: gpt_oss_120b_gb200_ib\n")
    for args, words in (
        (("solve", "--spec", "loop.yaml"), "goes round in a circle: loop.yaml -> loop.yaml"),
        (("deploy", "--spec", "mine.yaml", "--set", "cluster.nods=2"), "did you mean cluster.nodes?"),
        (("specs", "show", str(folder / "synthetic.json")), "is a plan"),
    ):
        assert words in one_line(finish(process(["-m", "placement", *args], tmp_path)))
    shown = finish(process(["-m", "placement", "specs", "show", "mine.yaml", "--set", "cluster.nodes=2"], tmp_path))
    assert (shown.code, shown.err) == (0, "")
    assert "name: mine\nsummary: with cluster.nodes=2\n" in shown.out


def test_a_summary_of_many_values_cuts_none(call: Call, folder: Path) -> None:
    """What a line has no room for is counted, as a value cut short would read as another one."""
    flags = ("--isl", "48", "--osl", "17", "--ttft-ms", "1234.5", "--tpot-ms", "123.25", "--prefix-hit", "0.125")
    drafts = ("--draft", "2", "--accepted", "1.25", "--draft-method", "ngram", "--kv-type", "fp8")
    done = call("specs", "show", str(folder / "tiny.yaml"), *flags, *drafts)
    assert done.code == 0, done.err
    summary = yaml.safe_load(done.out)["summary"]
    assert summary.startswith("with workload.isl=48, workload.osl=17, workload.ttft_ms=1234.5, ")
    assert summary.endswith(" and 2 more")
    assert "..." not in summary
