"""The plan file: its schema, reading and writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import placement
from placement.errors import InputError
from placement.records.files import check_writable, write_text
from placement.records.plan import Plan, load_plan, plan_from_json, plan_json, schema_text
from placement.records.role import RolePlan

OPTIONAL = ("schema_", "timings", "nodes", "choice", "demand", "witness")
SCHEMA_FILE = Path(placement.__file__).parent / "records" / "schemas" / "plan.schema.json"


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    """A plan of the small scenario."""
    return load_plan(folder / "recorded.json")


def test_schema_file_is_the_models_own() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "write placement.records.plan.schema_text() to the file"


@pytest.mark.parametrize("name", ["recorded.json", "synthetic.json"])
def test_plans_fit_the_schema(folder: Path, name: str) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    data = json.loads((folder / name).read_text())
    jsonschema.Draft202012Validator(schema).validate(data)
    data["roles"][0]["layers"][0]["physical_to_logical"][0] = "0"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(data)


def test_text_comes_back_the_same(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "p.json")
    assert load_plan(tmp_path / "p.json") == plan
    assert (tmp_path / "p.json").read_text() == plan_json(plan)


def test_failed_gpus_are_left_out_where_there_are_none_and_come_back(plan: Plan) -> None:
    assert "failed_gpus" not in json.loads(plan_json(plan))["roles"][0]
    data = json.loads(plan_json(plan))
    data["roles"][0]["failed_gpus"] = [2]
    rows = [layer["physical_to_logical"] for layer in data["roles"][0]["layers"]]
    rows += [row for strategy in data["roles"][0]["strategies"] for row in strategy["placements"] or ()]
    for row in rows:
        row[6:9] = [-1, -1, -1]
    lost = plan_from_json(json.dumps(data), "p.json")
    assert lost.role().failed_gpus == (2,)
    assert plan_from_json(plan_json(lost), "p.json") == lost
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(json.loads(plan_json(lost)))
    # A slot of a GPU that has not failed can't be empty, nor one of a failed GPU hold an expert.
    for slot, expert in ((0, -1), (7, 3)):
        kept = rows[0][slot]
        rows[0][slot] = expert
        with pytest.raises(InputError, match="slots of failed_gpus"):
            plan_from_json(json.dumps(data), "p.json")
        rows[0][slot] = kept


def test_layers_carry_the_models_own_indices(plan: Plan) -> None:
    assert [layer.layer for layer in plan.role().layers] == [1, 2]
    assert {len(layer.physical_to_logical) for layer in plan.role().layers} == {12}


def _changed(plan: Plan, *path: Any, value: Any = None, delete: bool = False) -> str:
    data = json.loads(plan_json(plan))
    place: Any = data["roles"][0] if path[0] in RolePlan.model_fields and path[0] != "predicted" else data
    for step in path[:-1]:
        place = place[step]
    if delete:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("layers", 0, "layer"), 0, "MoE layers"),
        (("layers", 0, "physical_to_logical"), [0, 1, 2], "slots"),
        (("layers", 0, "physical_to_logical", 0), 8, "8 experts"),
        (("layers", 0, "physical_to_logical", 0), -1, "failed_gpus"),
        (("layers", 0, "physical_to_logical", 0), -2, "at least -1"),
        (("failed_gpus",), [0], "failed_gpus"),
        (("failed_gpus",), [4], "below 4"),
        (("failed_gpus",), [1, 0], "in order"),
        (("failed_gpus",), [0, 0], "in order"),
        (("layers", 0, "physical_to_logical", 0), 1.5, "whole number"),
        (("layers",), [], "layers"),
        (("topology", "gpus"), 8, "split.ep"),
        (("slots_per_gpu",), 4, "slots_per_gpu"),
        (("split", "tp"), 0, "split.tp"),
        (("split", "tq"), 1, "split.tq"),
        (("certificate", "status"), "great", "status"),
        (("strategies", 0, "placements"), [[0] * 12], "placements"),
        (("strategies", 0, "dispatch_fractions"), [None], "dispatch_fractions"),
        (("strategies", 0, "name"), "eplb", "twice"),
        (("strategies", 0, "balancedness"), 1.5, "at most 1"),
        (("provenance", "inputs", 0, "sha256"), "00", "sha256"),
        (("provenance", "seed"), -1, "seed"),
        (("scenario", "spec", "model", "layers"), 0, "layers"),
        (("memory", "lines"), 5, "memory.lines"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_defects_are_one_input_error(plan: Plan, path: tuple[Any, ...], value: Any, word: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_from_json(_changed(plan, *path, value=value), "p.json")
    assert word in str(caught.value)
    assert str(caught.value).startswith("p.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", sorted(name for name in Plan.model_fields if name not in OPTIONAL))
def test_no_field_may_be_missing(plan: Plan, field: str) -> None:
    with pytest.raises(InputError, match="is missing"):
        plan_from_json(_changed(plan, field, delete=True), "p.json")


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "plan.json"
    target.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("placement.records.files.os.replace", refuse)
    with pytest.raises(InputError, match="No space left"):
        write_text(target, "new", "--out")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_writing_follows_links_and_keeps_permissions(tmp_path: Path) -> None:
    target, link = tmp_path / "plan.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_text(link, "new", "--out")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "plan.json", "--out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cut", [2, 2], "split.cut has 2 pieces, the schedule 1"),
        ("cut", [2], "split.cut holds 2 layers, the model has 3"),
        ("cut", [0], "split.cut"),
        ("recompute", ["full"] * 3, "split.recompute is given for 3 layers; training has it"),
        ("recompute", ["some"], "split.recompute"),
    ],
)
def test_cuts_of_other_models_are_refused(folder: Path, field: str, value: Any, message: str) -> None:
    data = json.loads((folder / "synthetic.json").read_text())
    data["roles"][0]["split"][field] = value
    with pytest.raises(InputError, match=message) as caught:
        plan_from_json(json.dumps(data), "plan.json")
    assert "\n" not in str(caught.value)
