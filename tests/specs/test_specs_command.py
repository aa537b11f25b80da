"""`placement specs list | show | schema`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from placement.cli import options
from placement.cli.specs import KINDS, specs
from specs import loading
from specs.engine import Dispatch, MessageRule
from specs.errors import InputError
from specs.fields import Spec
from specs.scenario import Scenario
from specs.validation import record_classes


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(specs, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def _json(*arguments: str) -> Any:
    return json.loads(_run(*arguments))


def test_options_offer_what_specs_take() -> None:
    assert get_args(Dispatch) == options.DISPATCH
    assert get_args(MessageRule) == options.MESSAGE_RULES


def test_list_names_everything() -> None:
    assert KINDS == loading.KINDS
    text, records = _run("list"), _json("list", "--json")
    expected = {(kind, entry.name) for kind in loading.KINDS for entry in loading.list_catalog(kind)}
    assert {(record["kind"], record["name"]) for record in records} == expected
    for _, name in expected:
        assert f"  {name} " in text
    assert "deepseek_r1_678b_gb200_ib" in text
    assert {record["kind"] for record in _json("list", "--json", "--kind", "model")} == {"model"}


def test_show_gives_the_resolved_scenario_and_its_parameters() -> None:
    shown = _json("show", "gpt_oss_120b_gb200_ib", "--json")
    assert shown["kind"] == "scenario"
    assert shown["spec"] == loading.load_scenario("gpt_oss_120b_gb200_ib").model_dump(mode="json")
    assert shown["parameters"]["total"] / 1e9 == pytest.approx(116.83, abs=0.01)
    assert shown["parameters"]["active"] / 1e9 == pytest.approx(5.13, abs=0.01)


def test_what_show_prints_is_a_spec_file_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(_run("show", "deepseek_r1_678b_gb200_ib"))
    assert loading.load_scenario(str(path)) == loading.load_scenario("deepseek_r1_gb200_ib")
    assert "671.03B in total, 36.63B active" in path.read_text()
    assert _json("show", str(path), "--json")["kind"] == "scenario"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("kimi_k2", "model"), ("h100_hgx_ib", "cluster"), ("serving_4k_1k", "workload"), ("dgx_a100_175b", "scenario")],
)
def test_show_finds_every_kind_by_name_and_by_file(name: str, kind: str, tmp_path: Path) -> None:
    assert _json("show", name, "--json")["kind"] == kind
    path = tmp_path / "spec.yaml"
    path.write_text(_run("show", name))
    assert _json("show", str(path), "--json") == _json("show", name, "--json", "--kind", kind)


def test_show_takes_a_hugging_face_folder() -> None:
    folder = Path(__file__).resolve().parent / "configs" / "qwen1_5_moe_a2_7b"
    shown = _json("show", str(folder) + "/", "--json")
    assert (shown["kind"], shown["spec"]["moe"]["experts"]) == ("model", 60)


@pytest.mark.parametrize(
    ("name", "hint"), [("kimi_k9", "kimi_k2"), ("", "NAME: is empty"), ("no/such.yaml", "no such file")]
)
def test_show_of_nothing_is_an_input_error(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        CliRunner().invoke(specs, ["show", name], catch_exceptions=False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_accepts_the_catalog_and_refuses_a_stranger(kind: str) -> None:
    schema = _json("schema", kind, "--json")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for entry in loading.list_catalog(kind):  # type: ignore[arg-type]
        data = yaml.safe_load(entry.path.read_text())
        assert list(validator.iter_errors(data)) == []
        assert list(validator.iter_errors(data | {"stranger": 1}))


def test_help_imports_no_schema() -> None:
    code = (
        "import sys\nfrom placement.cli.specs import specs\n"
        "try:\n    specs(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('pydantic', 'numpy', 'yaml', 'specs.scenario') if m in sys.modules], file=sys.stderr)"
    )
    root = Path(loading.__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert "schema" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("kind", KINDS)
def test_what_show_prints_of_the_catalog_is_the_same_spec(kind: str, tmp_path: Path) -> None:
    for entry in loading.list_catalog(kind):  # type: ignore[arg-type]
        path = tmp_path / f"{entry.name}.yaml"
        path.write_text(_run("show", entry.name, "--kind", kind))
        assert loading.load(kind, str(path)) == loading.load(kind, entry.name)  # type: ignore[arg-type]
        assert max(map(len, path.read_text().splitlines())) <= 80


def test_show_with_other_values_is_a_spec_file_of_them(tmp_path: Path) -> None:
    changes = ("--nodes", "2", "--isl", "128", "--set", "model.types.experts=fp8", "--set", "pins={tp: 1, ep: 16}")
    path = tmp_path / "mine.yaml"
    path.write_text(_run("show", "deepseek_r1_gb200_ib", *changes))
    scenario = loading.load_scenario(str(path))
    assert (scenario.cluster.nodes, scenario.workload.isl, scenario.model.types.experts) == (2, 128, "fp8")
    assert (scenario.pins.tp, scenario.pins.ep, scenario.pins.dp) == (1, 16, None)
    assert _json("show", str(path), "--json") == _json("show", "deepseek_r1_gb200_ib", *changes, "--json")
    assert "\nnodes: 3\n" in _run("show", "h100_hgx_ib", "--nodes", "3")


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_knows_variants(kind: str) -> None:
    schema = _json("schema", kind, "--json")
    validator = jsonschema.Draft202012Validator(schema)
    for entry in loading.list_catalog(kind):  # type: ignore[arg-type]
        assert list(validator.iter_errors({"like": entry.name, "summary": "Mine."})) == []
        assert list(validator.iter_errors({"like": entry.name, "stranger": 1}))
        assert list(validator.iter_errors({"like": 5}))
    assert list(validator.iter_errors({"name": "nothing else"}))
    if kind == "scenario":
        parts = {"cluster": {"like": "h100_hgx_ib", "nodes": 2}, "model": {"attention": {"kind": "gqa", "bias": True}}}
        assert list(validator.iter_errors({"like": "x", **parts})) == []
        assert list(validator.iter_errors({"like": "x", "cluster": {"node": 2}}))
        assert list(validator.iter_errors({"like": "x", "cluster": {"gpu": {"like": "y"}}}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_as_text_names_every_field(kind: str) -> None:
    text = _run("schema", kind)
    assert max(map(len, text.splitlines())) <= 80
    named = {line.partition(":")[0] for line in text.splitlines()}
    for entry in loading.list_catalog(kind):  # type: ignore[arg-type]
        for path in _paths(loading.load(kind, entry.name).model_dump(mode="json"), kind):  # type: ignore[arg-type]
            assert path in named, path


def _paths(data: dict[str, Any], kind: str, before: str = "") -> Iterator[str]:
    for name, value in data.items():
        if name != "kind":
            yield before + name
        # A scenario's parts have a text of their own, and rates and types by name are no fields.
        plain = name == "peak_tflops" or (name == "types" and before)
        if name in ("mixers", "ffns", "backends"):
            for each in value.values():
                yield from _paths(each, kind, f"{before}{name}.NAME.")
        elif isinstance(value, dict) and not plain and not (kind == "scenario" and name in KINDS):
            yield from _paths(value, kind, f"{before}{name}.")


def test_the_schema_tells_units_limits_defaults_and_meanings() -> None:
    text = _run("schema", "cluster")
    assert "\nslow.latency_us: number from 1e-06 to 1e+09, us, required\n    Time of a small message.\n" in text
    assert "\ngpus_per_tray: whole number from 1 to 65,536, default 1\n" in text
    assert "\nisl: whole number from 1 to 10,000,000, tokens, required\n    Input tokens" in _run("schema", "workload")
    assert "\nengine: name or file of an engine, or its fields, optional\n" in _run("schema")
    link = _json("schema", "cluster", "--json")["$defs"]["Link"]["properties"]
    assert (link["gb_per_s"]["unit"], link["latency_us"]["unit"]) == ("GB/s", "us")


def _records(kind: Any) -> Iterator[type[Spec]]:
    """Every record that a record is made of, itself first."""
    for record in record_classes(kind):
        yield record  # type: ignore[misc]
        for field in record.model_fields.values():
            yield from _records(field.annotation)


@pytest.mark.parametrize("record", dict.fromkeys(_records(Scenario)), ids=lambda record: record.__name__)
def test_every_field_has_a_meaning(record: type[Spec]) -> None:
    assert [name for name, field in record.model_fields.items() if not field.description] == []
