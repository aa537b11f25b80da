"""Specs that are like others, and specs with other values: what results, and the one line that a mistake gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.documents import parse_yaml, yaml_text
from specs.errors import InputError
from specs.fields import Spec
from specs.kinds import KINDS, PARTS, Kind, with_article
from specs.loading import MAX_CHAIN, find_kind, list_catalog, load, load_cluster, load_model, load_scenario, merged
from specs.overrides import overridden, overridden_spec, read_settings
from specs.workload import ServingWorkload

BASE = "gpt_oss_120b_gb200_ib"
CONFIG = Path(__file__).resolve().parent / "configs" / "qwen1_5_moe_a2_7b"
SETTINGS = settings(deadline=None, derandomize=True, database=None, max_examples=100)


def _write(path: Path, data: Any) -> str:
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return str(path)


def _refusal(path: Path, data: Any, kind: Kind = "scenario") -> str:
    with pytest.raises(InputError) as caught:
        load(kind, _write(path, data))
    assert str(caught.value).isprintable()
    return str(caught.value).replace(f"{path.parent}/", "")


def _untold(spec: Spec) -> dict[str, Any]:
    """The fields of a scenario, without what it and its parts are called."""
    told = {"name", "summary"}
    return spec.model_dump(exclude={**dict.fromkeys((*told, "aliases"), True), **dict.fromkeys(PARTS, told)})


# Merging.

INTEGERS = st.integers(-(2**62), 2**62)
SCALARS = st.none() | st.booleans() | INTEGERS | st.text(max_size=3) | st.lists(INTEGERS, max_size=2)
KEYS = st.sampled_from(["a", "b", "c", "kind"])
DATA = st.dictionaries(
    KEYS, st.recursive(SCALARS, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6), max_size=4
)


def _same_kind(base: Any, over: Any) -> bool:
    return isinstance(base, dict) and isinstance(over, dict) and over.get("kind", base.get("kind")) == base.get("kind")


def _expected(base: Any, over: Any, step: str) -> Any:
    if step not in over:
        return base[step]
    return merged(base[step], over[step]) if step in base and _same_kind(base[step], over[step]) else over[step]


@SETTINGS
@given(base=DATA, over=DATA)
def test_merging_goes_by_field(base: dict[str, Any], over: dict[str, Any]) -> None:
    result = merged(base, over)
    if _same_kind(base, over):
        assert result == {step: _expected(base, over, step) for step in base | over}
    else:
        assert result == over
    assert merged(result, over) == result
    assert merged(base, {}) == base == merged(base, base)
    assert merged({}, {"a": over}) == {"a": over}


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"kind": "gqa", "heads": 4}}, {"a": {"kind": "mla", "rank": 2}}, {"a": {"kind": "mla", "rank": 2}}),
        ({"a": {"kind": "gqa", "heads": 4}}, {"a": {"heads": 2}}, {"a": {"kind": "gqa", "heads": 2}}),
    ],
)
def test_merging_by_example(base: dict[str, Any], over: dict[str, Any], result: dict[str, Any]) -> None:
    assert merged(base, over) == result


# `like`.


def test_a_variant_differs_in_what_it_states_and_nothing_else(tmp_path: Path) -> None:
    file = {"like": BASE, "model": {"types": {"experts": "fp8"}}, "cluster": {"nodes": 2}, "reserve_gib": 8}
    variant, base = load_scenario(_write(tmp_path / "mine.yaml", file)), load_scenario(BASE)
    expected = base.model_dump()
    expected["model"]["types"]["experts"], expected["cluster"]["nodes"], expected["reserve_gib"] = "fp8", 2, 8.0
    assert _untold(variant) == _untold(type(base).model_validate(expected))
    assert (variant.name, variant.aliases, variant.model.name) == ("mine", (), "gpt_oss_120b")
    # What is said of the base no longer holds.
    assert variant.summary == f"A variant of {BASE}."
    assert variant.cluster.summary == "A variant of gb200_nvl72_ib."
    assert variant.workload == base.workload


@pytest.mark.parametrize("kind", KINDS)
def test_every_catalog_entry_can_be_varied(kind: Kind, tmp_path: Path) -> None:
    for entry in list_catalog(kind):
        path = _write(tmp_path / f"{entry.name}_2.yaml", {"like": entry.name})
        variant, base = load(kind, path), load(kind, entry.name)
        told = {"name", "summary", "aliases"}
        assert variant.model_dump(exclude=told) == base.model_dump(exclude=told)
        assert variant.name == f"{entry.name}_2"
        assert find_kind(path) == kind


def test_a_part_may_be_like_another(tmp_path: Path) -> None:
    file = {
        "like": BASE,
        "name": "mixed",
        "model": {"like": str(CONFIG / "config.json"), "types": {"experts": "fp8"}},
        "cluster": {"like": "h200_hgx_ib", "nodes": 3, "gpu": {"peak_tflops": {"fp8": 1}}},
        "workload": {"like": "serving_2k_1k", "osl": 7},
    }
    scenario = load_scenario(_write(tmp_path / "s.yaml", file))
    assert scenario.name == "mixed"
    assert (scenario.model.moe.experts, scenario.model.types.experts) == (60, "fp8")
    assert (scenario.cluster.name, scenario.cluster.nodes, scenario.cluster.gpus_per_node) == ("h200_hgx_ib", 3, 8)
    assert scenario.cluster.gpu.peak_tflops == load_cluster("h200_hgx_ib").gpu.peak_tflops | {"fp8": 1.0}
    assert isinstance(scenario.workload, ServingWorkload)
    assert (scenario.workload.isl, scenario.workload.osl) == (2048, 7)


def test_a_named_part_takes_the_place_of_the_whole_part(tmp_path: Path) -> None:
    scenario = load_scenario(_write(tmp_path / "s.yaml", {"like": BASE, "cluster": "h100_hgx_ib"}))
    assert scenario.cluster == load_cluster("h100_hgx_ib")


def test_a_chain_of_files_with_paths_relative_to_each(tmp_path: Path) -> None:
    for folder in ("a", "a/parts", "b"):
        (tmp_path / folder).mkdir()
    _write(tmp_path / "a/parts/c.yaml", {"like": "h100_hgx_ib", "nodes": 2})
    _write(tmp_path / "a/one.yaml", {"like": BASE, "cluster": "parts/c.yaml", "redundant": 4})
    _write(tmp_path / "b/two.yaml", {"like": "../a/one.yaml", "redundant": 8})
    scenario = load_scenario(_write(tmp_path / "three.yaml", {"like": "b/two.yaml", "workload": {"isl": 5}}))
    assert (scenario.cluster.nodes, scenario.redundant, scenario.workload.isl) == (2, 8, 5)
    assert scenario.summary == "A variant of two."


def test_a_circle_is_told(tmp_path: Path) -> None:
    message = "s.yaml: like: ./s.yaml: goes round in a circle: s.yaml -> s.yaml; leave one 'like' out"
    assert _refusal(tmp_path / "s.yaml", {"like": "./s.yaml"}) == message
    (tmp_path / "d").mkdir()
    _write(tmp_path / "d/b.yaml", {"like": "../d/../a.yaml"})
    assert "a.yaml -> b.yaml -> a.yaml" in _refusal(tmp_path / "a.yaml", {"like": "d/b.yaml"})
    _write(tmp_path / "m.yaml", {"like": "m.yaml"})
    message = "m.yaml: like: m.yaml: goes round in a circle: m.yaml -> m.yaml; leave one 'like' out"
    assert _refusal(tmp_path / "s.yaml", {"like": BASE, "model": {"like": "m.yaml"}}) == message
    link = tmp_path / "link.yaml"
    link.symlink_to(_write(tmp_path / "to.yaml", {"like": "link.yaml"}))
    assert find_kind(str(link)) == "scenario"
    assert "circle" in _refusal(tmp_path / "s.yaml", {"like": "link.yaml"})


def test_a_long_chain_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "0.yaml", {"like": BASE})
    for number in range(1, 200):
        _write(tmp_path / f"{number}.yaml", {"like": f"{number - 1}.yaml"})
    assert load_scenario(str(tmp_path / f"{MAX_CHAIN - 3}.yaml")).name == str(MAX_CHAIN - 3)
    with pytest.raises(InputError, match=f"168.yaml: like: 167.yaml: is more than {MAX_CHAIN} specs away"):
        load_scenario(str(tmp_path / "199.yaml"))
    assert find_kind(str(tmp_path / "199.yaml")) == "scenario"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"like": 5}, "like: is 5; write the name or file of a scenario"),
        ({"like": {"like": BASE}}, "like: is a mapping; write the name or file of a scenario"),
        ({"like": None}, "like: is nothing; write the name or file of a scenario"),
        ({"like": "nowhere.yaml"}, "like: nowhere.yaml: no such file; check the path"),
        ({"like": f"{BASE}x"}, f"like: {BASE}x: no scenario of that name; did you mean {BASE}"),
        ({"like": "kimi_k2"}, "like: kimi_k2: is a model, not a scenario; name a scenario, and put this model into it"),
        ({"like": BASE, "cluster": {"like": "kimi_k2"}}, "cluster.like: kimi_k2: is a model, not a cluster; name a cl"),
        ({"like": BASE, "model": {"like": ["x"]}}, "model.like: is a list; write the name or file of a model"),
        ({"like": BASE, "model": 5}, "model: is 5; write the name or file of a model, or its fields"),
        ({"like": BASE, "modle": {"layers": 3}}, "modle: is not a known field; did you mean model?"),
        ({"like": BASE, "nodes": 2}, "nodes: is not a known field; did you mean cluster.nodes?"),
        ({"like": BASE, "isl": 2, "osl": 3}, "isl: is not a known field; did you mean workload.isl? (and 1 more)"),
        ({"like": "kimi_k2", "types": {"experts": "fp8"}}, "is a model, not a scenario; name a scenario, and put this"),
        ({"like": BASE, "model": {"typs": {}}}, "model.typs: is not a known field; did you mean types?"),
        ({"like": BASE, "cluster": {"gpu": {"like": "x"}}}, "cluster.gpu.like: is not a known field"),
        ({"like": BASE, "cluster": {"like": "h100_hgx_ib", "nodes": 0}}, "cluster.nodes: is 0; write at least 1"),
        ({"like": BASE, "cluster": {"gpus_per_tray": 5}}, "cluster: gpus_per_node 72 is not a multiple of gpus_per_tr"),
        ({"like": BASE, "workload": {"kind": "training"}}, "workload.name: is missing; add it (and 2 more)"),
        (f"like: &a {BASE}\nname: *a\n", "line 1: YAML anchors and aliases are not taken"),
        (f"like: {BASE}\nmodel: {'{model: ' * 40}x{'}' * 40}\n", "line 2: nested over 32 deep"),
    ],
)
def test_a_wrong_variant_names_its_file_and_field(data: Any, message: str, tmp_path: Path) -> None:
    assert _refusal(tmp_path / "s.yaml", data).startswith(f"s.yaml: {message}")


def test_an_error_of_the_base_names_the_base(tmp_path: Path) -> None:
    _write(tmp_path / "base.yaml", {"like": BASE, "reserve_gib": -1})
    message = _refusal(tmp_path / "s.yaml", {"like": "base.yaml", "reserve_gib": 3})
    assert message == "base.yaml: reserve_gib: is -1; write at least 0"


@SETTINGS
@given(text=st.text(max_size=90), inner=DATA)
def test_what_is_written_as_yaml_is_read_again(text: str, inner: dict[str, Any]) -> None:
    data = {"text": text, "inner": inner, "list": [text, 1.5e-06, True, None], "records": [inner, {"a": text}]}
    assert parse_yaml(yaml_text(data), "it") == data


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
    example = text.partition("## Variants\n\n```yaml\n")[2].partition("```")[0]
    scenario = load_scenario(_write(tmp_path / "s.yaml", example))
    assert (scenario.cluster.nodes, scenario.model.types.experts, scenario.workload.isl) == (2, "fp8", 2048)


# A typo, and what a file is.


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gpus_per_node", "gpus_per_nod", "gpus_per_nod: is not a known field; did you mean gpus_per_node"),
        ("nodes", "node", "node: is not a known field; did you mean nodes"),
        ("slow", "slwo", "slwo: is not a known field; did you mean slow"),
    ],
)
def test_a_typo_comes_before_what_is_missing(old: str, new: str, message: str, tmp_path: Path) -> None:
    data = load_cluster("h100_hgx_ib").model_dump(mode="json")
    data[new] = data.pop(old)
    told = _refusal(tmp_path / "c.yaml", data, "cluster")
    assert told.startswith(f"c.yaml: {message}")
    assert told.endswith("(and 1 more)")


def test_a_misspelt_kind_is_told(tmp_path: Path) -> None:
    data = load("workload", "serving_4k_1k").model_dump(mode="json")
    data["knid"] = data.pop("kind")
    assert "has no kind, but knid; did you mean kind?" in _refusal(tmp_path / "w.yaml", data, "workload")


@pytest.mark.parametrize("wanted", KINDS)
@pytest.mark.parametrize("given", KINDS)
def test_another_kind_is_told_by_name_and_by_file(given: Kind, wanted: Kind, tmp_path: Path) -> None:
    for entry in list_catalog(given):
        path = _write(tmp_path / "file.yaml", load(given, entry.name).model_dump(mode="json"))
        if given == wanted:
            assert load(wanted, path) == load(wanted, entry.name)
            continue
        for name in (path, entry.name):
            with pytest.raises(InputError) as caught:
                load(wanted, name)
            assert f"{name}: is {with_article(given)}, not {with_article(wanted)}; name " in str(caught.value)


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
@pytest.mark.parametrize(
    ("record", "mend"), [("plan", "placement evaluate"), ("deployment", ""), ("thing", "name an?")]
)
@pytest.mark.parametrize("wanted", KINDS)
def test_a_file_that_a_command_wrote_is_told(wanted: Kind, record: str, mend: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_text(f'{{"schema": "placement.{record}/1", "name": "x", "slots": [{"1, " * 400_000}1]}}')
    if suffix == ".yaml":
        path.write_text(f'{{"schema": "placement.{record}/1", "name": "x"}}')
    with pytest.raises(InputError, match=f"is a {record} .placement.{record}/1., not {with_article(wanted)}; .*{mend}"):
        load(wanted, str(path))


def test_a_hugging_face_config_is_told(tmp_path: Path) -> None:
    for name, what in ((CONFIG, "folder"), (CONFIG / "config.json", "config.json")):
        for kind in ("scenario", "cluster", "workload"):
            with pytest.raises(
                InputError, match=f"is the {what} of a Hugging Face model, not {with_article(kind)}; name an? "
            ):
                load(kind, str(name))  # type: ignore[arg-type]
    (tmp_path / "t.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="is recorded routing, not a spec"):
        load_scenario(str(tmp_path / "t.npz"))


# Overrides.


def test_names_are_short_for_paths() -> None:
    base = load_scenario(BASE)
    by_name = overridden(base, nodes=2, isl=100, osl=50, ttft_ms=900.0, tpot_ms=20, ep=8, redundant=4)
    paths = {"cluster.nodes": 2, "workload.isl": 100, "workload.osl": 50, "workload.ttft_ms": 900, "pins.ep": 8}
    by_path = overridden(base, set={**paths, "workload.tpot_ms": 20, "redundant": 4})
    assert _untold(by_name) == _untold(by_path)
    assert (by_name.cluster.nodes, by_name.workload.isl, by_name.pins.ep, by_name.redundant) == (2, 100, 8, 4)
    assert by_name.name == base.name
    assert by_name.summary == (
        "with cluster.nodes=2, workload.isl=100, workload.osl=50, workload.ttft_ms=900.0, workload.tpot_ms=20, "
        "pins.ep=8, redundant=4"
    )
    assert overridden(base, ep=8).summary == base.summary
    assert overridden(base, set={"summary": "Mine.", "cluster.nodes": 3}).summary == "Mine."
    assert overridden(base, isl=None, set={}) is base


def test_a_part_is_replaced_before_its_fields_are_changed() -> None:
    values = {"cluster.nodes": 3, "cluster": "h200_hgx_ib", "workload": {"like": "serving_2k_1k", "osl": 9}}
    scenario = overridden(load_scenario(BASE), set=values, isl=77)
    assert scenario.cluster == load_cluster("h200_hgx_ib").model_copy(
        update={"nodes": 3, "summary": "A variant of h200_hgx_ib."}
    )
    assert (scenario.workload.name, scenario.workload.isl, scenario.workload.osl) == ("serving_2k_1k", 77, 9)
    values = {"model": {"types": {"experts": "fp8"}}, "model.types.attention": "fp8", "model.context": None}
    types = overridden(load_scenario(BASE), set=values).model
    assert (types.types.experts, types.types.attention, types.types.dense, types.context) == (
        "fp8",
        "fp8",
        "bf16",
        None,
    )


def test_other_kinds_take_paths_from_their_own_top() -> None:
    assert overridden_spec("cluster", load_cluster("h100_hgx_ib"), nodes=3).nodes == 3
    assert overridden_spec("model", load_model("kimi_k2"), set={"types.experts": "fp8"}).types.experts == "fp8"
    with pytest.raises(InputError, match=r"^`isl`: is no value of a cluster; leave it out$"):
        overridden_spec("cluster", load_cluster("h100_hgx_ib"), isl=3)
    with pytest.raises(TypeError, match="degree: no override"):
        overridden(load_scenario(BASE), degree=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "`nodes`: cluster.nodes: is 0; write at least 1"),
        ({"model.types.expert": "fp8"}, "model.types.expert: is not a known field; did you mean model.types.experts?"),
        ({"modl.types.experts": "fp8"}, "modl.types.experts: is not a known field; did you mean model.types.experts?"),
        ({"moe.experts": 4}, "moe.experts: is not a known field; did you mean model.moe.experts?"),
        ({"experts": 4}, "experts: is not a known field; did you mean model.moe.experts or model.types.experts?"),
        ({"cluster.ttft": 4}, "cluster.ttft: is not a known field; did you mean workload.ttft_ms?"),
        ({"zzz": 4}, "zzz: is not a known field; choose one of name, summary"),
        ({"__class__": 4}, "__class__: is not a known field"),
        ({"model.__class__.__init__": 4}, "model.__class__.__init__: is not a known field"),
        ({"like": BASE}, "like: is not a known field"),
        ({"model..x": 1}, "model..x: has an empty step; write a path such as model.types.experts"),
        ({".": 1}, ".: has an empty step"),
        ({"model.dense_layers.0": 1}, "model.dense_layers.0: model.dense_layers is a list; give model.dense_layers as"),
        ({"model.layers.x": 1}, "model.layers.x: model.layers is one value, 36; give model.layers as a whole"),
        ({"model.types.experts": "fp3"}, "model.types.experts: is the text 'fp3'; write 'fp32'"),
        ({"model.types": {"expert": "fp8"}}, "model.types.expert: is not a known field; did you mean experts?"),
        ({"cluster.gpu.peak_tflops.fp9": 1.0}, "cluster.gpu.peak_tflops.fp9: is the text 'fp9'; write 'fp32'"),
        ({"cluster": "nowhere"}, "cluster: nowhere: no cluster of that name; choose one of"),
        ({"cluster": {"like": "nowhere"}}, "cluster.like: nowhere: no cluster of that name"),
        ({"model": BASE}, f"model: {BASE}: is a scenario, not a model; name its model, gpt_oss_120b"),
        ({"model": 5}, "model: is 5; write the name or file of a model, or its fields"),
        ({"cluster.gpus_per_tray": 5}, "cluster: gpus_per_node 72 is not a multiple of gpus_per_tray 5"),
        ({"isl": 3, "workload.isl": 4}, "workload.isl: `isl` and `set` both give a value; keep one"),
        ({"model.types": {"experts": "fp8"}, "model.types.experts": "fp8"}, "model.types.experts: is given twice"),
        ({"isl": 3, "workload": "training_2k"}, "`isl`: workload.isl: is not a known field"),
        ({"nodes": 1, "ep": 73}, f"{BASE} with the given options: pins.ep 73 is more than the cluster's 72 GPUs"),
    ],
)
def test_a_wrong_override_is_named(changes: dict[str, Any], message: str) -> None:
    named = {name: changes.pop(name) for name in ("nodes", "isl", "ep") if name in changes}
    with pytest.raises(InputError) as caught:
        overridden(load_scenario(BASE), **named, set=changes)
    told = message if message.startswith(("`", BASE)) else f"`set`: {message}"
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=3", 3), ("a = fp8", "fp8"), ("a=[1, 2]", [1, 2]), ("a={b: 1.5}", {"b": 1.5}), ("a=null", None),
        ("a=b=c", "b=c"), ("a='3'", "3"), ("a=true", True),
    ],
)  # fmt: skip
def test_settings_are_yaml(text: str, value: Any) -> None:
    assert read_settings([text]) == {"a": value}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a"], "is the text 'a'; write path=value"),
        (["=3"], "is the text '=3'; write path=value"),
        (["a="], "is the text 'a='; write path=value"),
        (["a=1", "a=2"], "a: is given twice; keep one"),
        (["a=["], "a: line 2: not valid YAML"),
        (["a=&x 1"], "a: line 1: YAML anchors and aliases are not taken"),
        (["a=*x"], "a: line 1: YAML anchors and aliases are not taken"),
        (["a=!!python/object/apply:os.system [ls]"], "a: line 1: YAML tag"),
        ([f"a={'[' * 5000}"], "a: line 1: nested over 32 deep"),
        ([f"a={'9' * 30}"], "a: is a number of 100 bits"),
        (["a={b: 1, b: 2}"], "a: line 1: not valid YAML: key b is given twice"),
        (["a=2001-99-99"], "a: a value can't be read"),
        (["a=x\x01"], "a: not valid YAML: unacceptable character #x0001"),
        (["a=1\n---\n2"], "a: line 2: not valid YAML"),
        (["\ud800=1", "\ud800=1"], "\\ud800: is given twice"),
    ],
)
def test_settings_that_cannot_be_read(texts: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_settings(texts)
    assert str(caught.value).startswith(f"`set`: {message}")
    assert str(caught.value).isprintable()


STEPS = (
    "model",
    "types",
    "experts",
    "cluster",
    "gpu",
    "peak_tflops",
    "fp8",
    "nodes",
    "workload",
    "isl",
    "pins",
    "0",
    "",
)
VALUES = (
    "1",
    "-1",
    "fp8",
    "null",
    "kimi_k2",
    "h100_hgx_ib",
    "[1]",
    "{like: kimi_k2}",
    "{nodes: 2}",
    "{kind: mla}",
    "~",
)


@SETTINGS
@given(
    texts=st.lists(
        st.builds(
            lambda steps, value: f"{'.'.join(steps)}={value}",
            st.lists(st.sampled_from(STEPS) | st.text(max_size=3), min_size=1, max_size=5),
            st.sampled_from(VALUES) | st.text(max_size=6),
        ),
        max_size=3,
    )
)
def test_any_setting_gives_a_scenario_or_one_line(texts: list[str]) -> None:
    try:
        overridden(load_scenario("olmoe_1b_7b_h100_ib"), set=read_settings(texts))
    except InputError as error:
        _check_one_line(str(error))


def _check_one_line(message: str) -> None:
    assert message.isprintable()
    # A file that is named, such as "0", may be told by itself.
    assert message.startswith(("`set`", "olmoe_1b_7b_h100_ib with the given options", "0: "))
