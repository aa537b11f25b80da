"""The benchmark of configured splits, on a few made-up rows."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.split_choice.agree import Agreement, ours_of, theirs_of
from bench.split_choice.choose import Compared, compare
from bench.split_choice.deployments import RAN, deployments
from bench.split_choice.main import command
from bench.split_choice.reason import reason
from bench.split_choice.recipes import COLUMNS, Recipe, Workers, read_recipes, scenario_of
from placement.errors import CheckFailedError, InputError
from solvers.deploy.clients import EQUAL

ROW = {
    "model": "gpt-oss-120b", "gpu": "GB200", "precision": "fp4", "engine": "dynamo-trt", "isl": "1024", "osl": "1024",
    "mode": "disagg", "prefill_workers": "1", "prefill_layout": "TP1", "prefill_gpus_each": "1",
    "decode_workers": "2", "decode_layout": "DEP2", "decode_gpus_each": "2", "concurrency_min": "512",
    "concurrency_max": "512", "mtp": "0",
}  # fmt: skip


def written(path: Path, *rows: dict[str, str]) -> Path:
    """A file of recipes, each as ROW with other values."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        table.writerows(ROW | row for row in rows)
    return path


def test_a_row_becomes_a_question(tmp_path: Path) -> None:
    found, left = read_recipes(
        written(tmp_path / "rows.csv", {}, {"concurrency_min": "4", "concurrency_max": "64", "mtp": "3"})
    )
    assert not left
    plain, drafting = (recipe.question for recipe in found)
    assert (plain.gpus, plain.nodes, plain.clients, plain.draft) == (5, 1, 512, 0)
    assert (drafting.clients, drafting.draft) == (16, 3)  # the middle of a sweep
    told = scenario_of(drafting).workload
    assert told.kind == "serving"
    assert told.speculation is not None
    assert told.speculation.draft == 3
    assert scenario_of(plain).engine.name == "trtllm"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"model": "None-1B"}, "no model None-1B"),
        ({"gpu": "TPU"}, "TPU GPUs"),
        ({"isl": ""}, "no fixed lengths"),
        ({"concurrency_min": "", "concurrency_max": ""}, "no concurrency"),
        ({"decode_layout": "TP8+DCP8"}, "TP8+DCP8"),
        ({"decode_gpus_each": "4"}, "not stated"),
        ({"mode": "both"}, "neither aggregated nor disaggregated"),
    ],
)
def test_a_row_that_cant_be_asked_says_why(tmp_path: Path, row: dict[str, str], reason: str) -> None:
    found, left = read_recipes(written(tmp_path / "rows.csv", row))
    assert not found
    assert reason in left[0].reason


def test_a_file_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("model,gpu\n", encoding="utf-8")
    with pytest.raises(InputError, match="precision"):
        read_recipes(path)


def answered(tmp_path: Path, *rows: dict[str, str]) -> tuple[Compared, ...]:
    found, left = read_recipes(written(tmp_path / "rows.csv", *rows))
    assert not left
    return compare(found, lambda _: None)


def test_answers_have_the_rows_gpus_and_are_no_worse_than_the_recipe(tmp_path: Path) -> None:
    rows = answered(tmp_path, {}, {"concurrency_min": "16", "concurrency_max": "16"}, {"decode_workers": "1"})
    for row in rows:
        assert row.ours is not None
        assert row.theirs is not None
        assert row.ours.gpus <= row.recipe.question.gpus
        # The recipe's own instances are among those that the planner chooses from.
        assert row.ours.requests_per_s >= row.theirs.requests_per_s * (1 - EQUAL)
        assert row.theirs.clients <= row.recipe.question.clients * (1 + 1e-6)


def test_agreement_is_within_a_factor_of_two(tmp_path: Path) -> None:
    (row,) = answered(tmp_path, {})
    mine = ours_of(row)
    assert mine is not None
    assert row.ours is not None
    theirs = theirs_of(row)
    assert (theirs.prefill, theirs.ratio, theirs.decode, theirs.family) == (1, 0.25, 2, "DEP")
    told = row.recipe

    def asked(**changes: object) -> Agreement:
        workers = [replace(told.workers[0]), replace(told.workers[1], **changes)]  # type: ignore[arg-type]
        return Agreement.of([replace(row, recipe=replace(told, workers=tuple(workers)))])

    twice = asked(layout=f"DEP{2 * mine.decode}", count=1)
    assert twice.decode == 1.0
    assert asked(layout=f"DEP{4 * mine.decode}", count=1).decode == 0.0
    assert asked(layout=f"TP{2 * mine.decode}", count=1).family == float(mine.family == "TP")
    assert Agreement.of([]).family is None


def test_a_higher_rating_has_a_reason(tmp_path: Path) -> None:
    # Both decode instances as TP 1: no engineer would give so little to a model that DEP serves better.
    (row,) = answered(tmp_path, {"decode_workers": "4", "decode_layout": "TP1", "decode_gpus_each": "1"})
    why = reason(row)
    assert why.cause in ("counts", "prefill", "decode")
    assert why.worth["decode"] >= why.worth["counts"] * (1 - EQUAL)
    assert "theirs:" in why.words
    assert "ours:" in why.words


def test_the_command_prints_tables_or_json_and_checks_targets(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", {}, {"gpu": "TPU"})
    shown = CliRunner().invoke(command, ["--data", str(path)], catch_exceptions=False)
    assert "1 asked" in shown.output
    assert "TPU GPUs" in shown.output
    told = json.loads(CliRunner().invoke(command, ["--data", str(path), "--json"], catch_exceptions=False).stdout)
    assert told["questions"] == 1
    assert [target["name"].startswith("TensorRT-LLM") for target in told["targets"]] == [True] * 4
    none = CliRunner().invoke(command, ["--data", str(path), "--engine", "vllm"])
    assert isinstance(none.exception, InputError)
    assert none.exception.mend == "leave one out; engines are trtllm"
    # Nobody prefills on four GPUs for one that decodes.
    far = written(
        tmp_path / "far.csv",
        {"prefill_layout": "DEP4", "prefill_gpus_each": "4", "decode_layout": "TP1", "decode_gpus_each": "1",
         "decode_workers": "1"},
    )  # fmt: skip
    failed = CliRunner().invoke(command, ["--data", str(far), "--check", "--rows", "1"])
    assert isinstance(failed.exception, CheckFailedError)
    assert "prefill over decode" in str(failed.exception)


def test_a_described_deployment_stands_beside_the_planners_own(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = (Workers("prefill", 1, "DEP4"), Workers("decode", 1, "DEP4"))
    small = replace(RAN[0], cluster="b300_hgx_ib", nodes=1, workers=workers, clients=100)
    none = replace(small, workers=(Workers("decode", 1, "DEP5"),))
    monkeypatch.setattr("bench.split_choice.deployments.RAN", (small, none))
    beside = deployments(lambda _: None)
    monkeypatch.setattr("bench.split_choice.deployments.deployments", lambda _: beside)
    told = CliRunner().invoke(command, ["--deployments", "--json"], catch_exceptions=False)
    first, second = json.loads(told.stdout)
    assert first["theirs"] == "1 prefill DEP4, 1 decode DEP4"
    assert first["gain"] >= 1 - EQUAL
    assert first["tokens_per_s"]["published"] == RAN[0].tokens_per_s
    assert second["gain"] is None
    assert "DEP5" in second["why"]
    assert "DEP4" in CliRunner().invoke(command, ["--deployments"], catch_exceptions=False).output
    assert CliRunner().invoke(command, []).exit_code == 2


def test_published_layouts_are_those_of_their_clusters() -> None:
    for ran in RAN:
        assert ran.gpus <= ran.scenario.cluster.gpus


def test_configured_rows_are_all_accounted_for(shared_dir: Path) -> None:
    found, left = read_recipes(shared_dir / "measured" / "recipes_2026.csv")
    assert len(found) + len(left) == 1654
    assert len(found) > 1400
    assert all(isinstance(recipe, Recipe) and recipe.question.gpus > 0 for recipe in found)
