"""`placement scenario`: named ways to plan, on one screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from placement.planning.stances import STANCES, plan_stance
from placement.records.plan import load_plan
from tests.cli.conftest import Done

EXAMPLE = str(Path(__file__).parents[2] / "docs" / "examples" / "tiny_moe.yaml")


@pytest.mark.parametrize("name", ["hash", "locality", "solved"])
def test_a_way_to_plan_is_one_screen_to_act_on(
    name: str, call: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("scenario", "--scenario", name, "--spec", EXAMPLE, "--work", "0.05", "--out", "plan.json", "-q")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) <= 50
    for title in ("DEPLOY", "LINKS", "HBM", "NEXT"):
        assert any(line.startswith(title) for line in lines)
    assert any("experts, NIC" in line for line in lines)
    assert "  placement verify plan.json" in done.out
    assert max(len(line) for line in lines if not line.startswith("  ")) <= 80
    assert load_plan("plan.json").objective == ("traffic" if name == "locality" else "time")


def test_locality_inside_one_node_is_least_time(scenario_of_one_node: str) -> None:
    from placement import Budget

    plan = plan_stance("locality", scenario_of_one_node, budget=Budget(work=0.05), workers=1)
    assert plan.objective == "time"


@pytest.fixture
def scenario_of_one_node(tmp_path: Path) -> str:
    text = Path(EXAMPLE).read_text().replace("  nodes: 2\n  gpus_per_node: 8", "  nodes: 1\n  gpus_per_node: 16")
    path = tmp_path / "one.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--scenario", "localty"], "--scenario: 'localty' is no way to plan; did you mean locality?"),
        (
            ["--scenario", "training", "--spec", EXAMPLE],
            "--scenario: training needs a training workload, and tiny_moe has serving; choose hash, grouped, ",
        ),
        (["--scenario", "disaggregated", "--spec", "dgx_a100_175b"], "--scenario: disaggregated needs a serving"),
        (["--spec", "no_such"], "no_such"),
    ],
)
def test_bad_input_is_one_line(args: list[str], told: str, call: Callable[..., Done]) -> None:
    done = call("scenario", *args)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"error: {told}")


def test_help_names_every_way(call: Callable[..., Done]) -> None:
    text = " ".join(call("scenario", "--help").out.split())
    assert all(name in text for name in STANCES)
