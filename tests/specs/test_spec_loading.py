"""Names, files, references, and the one line that bad input gives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from specs.documents import MAX_BYTES
from specs.errors import InputError
from specs.loading import (
    CATALOG,
    KINDS,
    catalog_names,
    list_catalog,
    load_cluster,
    load_engine,
    load_model,
    load_scenario,
    load_workload,
)
from specs.scenario import Pins
from specs.workload import TrainingWorkload

INLINE: dict[str, Any] = load_scenario("deepseek_v2_lite_h100_ib").model_dump(mode="json")
# In the short form, as people write it.
INLINE["model"] = yaml.safe_load((CATALOG / "models" / "deepseek_v2_lite.yaml").read_text())
REQUIRED = (
    "gpt_oss_120b_gb200_ib",
    "gpt_oss_120b_gb200_ethernet",
    "deepseek_r1_gb200_ib",
    "dgx_a100_175b",
    "deepseek_v2_lite_h100_ib",
)


def _refusal(text: str | bytes, folder: Path) -> str:
    path = folder / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        load_scenario(str(path))
    message = str(caught.value)
    assert message.isprintable()
    return message.replace(str(path), "s.yaml")


def _with(path: str, value: Any) -> str:
    """The inline scenario as YAML with the field at a dotted path set (or, for ..., deleted)."""
    data: dict[str, Any] = yaml.safe_load(yaml.safe_dump(INLINE))
    *parents, last = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(data)


# Catalog.


def test_every_catalog_entry_loads_under_its_own_name() -> None:
    loaders = {
        "scenario": load_scenario, "model": load_model, "cluster": load_cluster, "workload": load_workload,
        "engine": load_engine,
    }  # fmt: skip
    for kind in KINDS:
        for entry in list_catalog(kind):
            assert loaders[kind](entry.name).name == entry.name
            assert entry.summary


def test_names_are_unique_within_a_kind_and_the_required_are_there() -> None:
    for kind in KINDS:
        names = catalog_names(kind)
        assert len(names) == len(set(names))
    assert set(REQUIRED) <= set(catalog_names("scenario"))


def test_an_alias_is_its_scenario() -> None:
    assert load_scenario("deepseek_r1_678b_gb200_ib") == load_scenario("deepseek_r1_gb200_ib")


def test_the_clusters_have_the_sizes_and_rates_of_the_design() -> None:
    infiniband, ethernet = load_cluster("gb200_nvl72_ib"), load_cluster("gb200_nvl72_ethernet")
    for rack in (infiniband, ethernet):
        assert (rack.nodes, rack.gpus_per_node, rack.gpus_per_tray, rack.fast.gb_per_s) == (8, 72, 4, 900)
    # 2 x 800 and 2 x 400 Gb/s NICs for the four GPUs of a tray.
    assert infiniband.slow.gb_per_s * infiniband.gpus_per_tray * 8 == 2 * 800
    assert ethernet.slow.gb_per_s * ethernet.gpus_per_tray * 8 == 2 * 400
    assert load_cluster("dgx_a100_80gb").gpus == 128
    for name in catalog_names("cluster"):
        cluster = load_cluster(name)
        assert cluster.gpu.source
        assert cluster.fast.bytes_per_s > cluster.slow.bytes_per_s > 0


def test_the_recorded_models_scenario_is_pinned() -> None:
    scenario = load_scenario("deepseek_v2_lite_h100_ib")
    assert (scenario.cluster.nodes, scenario.cluster.gpus_per_node) == (4, 4)
    assert scenario.pins == Pins(tp=1, ep=16, pp=1, dp=16)


def test_the_serving_workload_and_the_training_one() -> None:
    workload = load_scenario("gpt_oss_120b_gb200_ib").workload
    assert workload == load_workload("serving_4k_1k")
    assert workload.model_dump(include={"isl", "osl", "ttft_ms", "tpot_ms"}) == {
        "isl": 4096,
        "osl": 1024,
        "ttft_ms": 2000,
        "tpot_ms": 30,
    }
    assert isinstance(load_scenario("dgx_a100_175b").workload, TrainingWorkload)


# Names and references.


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt_oss_120b_gb200", ["no scenario of that name", "gpt_oss_120b_gb200_ib", "gpt_oss_120b_gb200_ethernet"]),
        ("deepseek_r1_678b", ["deepseek_r1_678b_gb200_ib"]),
        ("zzz", ["choose one of", "dgx_a100_175b"]),
        ("", ["empty name"]),
        ("missing/s.yaml", ["missing/s.yaml", "no such file"]),
        ("missing.yaml", ["no such file"]),
        ("bad\x00name.yaml", ["not a valid path"]),
        ("x" * 5000 + ".yaml", ["can't be read"]),
        ("\ud800.yaml", ["not a valid path"]),
        (os.devnull, ["not a regular file"]),
    ],
)
def test_unknown_names(name: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario(name)
    assert str(caught.value).isprintable()
    for word in words:
        assert word in str(caught.value)


def test_a_folder_and_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        load_scenario(str(tmp_path) + "/")
    secret = tmp_path / "secret.yaml"
    secret.write_text("name: a")
    secret.chmod(0)
    if os.access(secret, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(InputError, match="permission denied"):
        load_scenario(str(secret))


def test_parts_by_relative_path_and_inline_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for part in ("model", "cluster", "workload"):
        (tmp_path / "parts" / f"{part}.yaml").write_text(yaml.safe_dump(INLINE[part]))
    by_path = INLINE | {part: f"parts/{part}.yaml" for part in ("model", "cluster", "workload")}
    (tmp_path / "by_path.yaml").write_text(yaml.safe_dump(by_path))
    (tmp_path / "inline.yaml").write_text(yaml.safe_dump(INLINE))
    assert load_scenario(str(tmp_path / "by_path.yaml")) == load_scenario(str(tmp_path / "inline.yaml"))
    assert load_scenario(str(tmp_path / "inline.yaml")) == load_scenario("deepseek_v2_lite_h100_ib")


def test_an_error_in_a_named_part_names_the_part_and_where_it_stands(tmp_path: Path) -> None:
    named = yaml.safe_dump(INLINE | {"model": "qwen3_235"})
    message = "s.yaml: model: qwen3_235: no model of that name; did you mean qwen3_235b?"
    assert _refusal(named, tmp_path) == message
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(INLINE["model"] | {"layers": 0}))
    message = _refusal(yaml.safe_dump(INLINE | {"model": "m.yaml"}), tmp_path)
    assert message == "m.yaml: layers: is 0; write at least 1"


# Wrong fields.


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.moe.top_k", 0, "model.moe.top_k: is 0; write at least 1"),
        ("model.moe.experts", -64, "model.moe.experts: is -64; write at least 1"),
        ("model.moe.experts", 10**6, "model.moe.experts: is 1000000; write at most 65536"),
        ("model.layers", 2049, "model.layers: is 2049; write at most 2048"),
        ("model.layers", True, "model.layers: is true; write a whole number"),
        ("model.layers", "27", "model.layers: is the text '27'; write a whole number, without quotes"),
        ("model.layers", 27.5, "model.layers: is 27.5; write a whole number"),
        ("model.layers", ..., "model.layers: is missing; add it"),
        ("model.laers", 3, "model.laers: is not a known field; did you mean layers?"),
        ("model.moe.topk", 3, "model.moe.topk: is not a known field; did you mean top_k"),
        ("model.attention.kind", "mha", "model.attention: has kind the text 'mha'; write gqa or mla"),
        ("model.attention.kind", ..., "model.attention: has no kind; add 'kind:' gqa or mla"),
        ("model.attention.heads", 0, "model.attention.heads: is 0; write at least 1"),
        ("model.types.experts", "fp3", "model.types.experts: is the text 'fp3'; write 'fp32', 'bf16'"),
        ("model.dense_layers", [99], "model: dense_layers names layer 99, but layers is 27; count from 0"),
        ("model.moe.top_k", 65, "model.moe: top_k 65 is more than experts 64; lower top_k or raise experts"),
        ("model.tied_embedding", "no", "model.tied_embedding: is the text 'no'; write true or false"),
        ("cluster.slow.gb_per_s", float("nan"), "cluster.slow.gb_per_s: is nan; write a finite number"),
        ("cluster.slow.gb_per_s", float("inf"), "cluster.slow.gb_per_s: is inf; write a finite number"),
        ("cluster.slow.gb_per_s", 0, "cluster.slow.gb_per_s: is 0; write at least 1e-06"),
        ("cluster.slow.efficiency", 1.5, "cluster.slow.efficiency: is 1.5; write at most 1"),
        ("cluster.nodes", 10**5, "cluster.nodes: is 100000; write at most 65536"),
        ("cluster.gpus_per_tray", 3, "cluster: gpus_per_node 4 is not a multiple of gpus_per_tray 3"),
        ("cluster.gpu.peak_tflops", {"fp8": 1}, "cluster.gpu: peak_tflops needs bf16 or fp16; add one"),
        ("cluster.gpu.peak_tflops", {"fp9": 1}, "cluster.gpu.peak_tflops.fp9"),
        ("workload.isl", 2**70, "workload.isl: is a number of 71 bits; write a number of a real system's size"),
        ("workload.isl", 10**6, "workload's sequences of 1001024 tokens are longer than the model's context 163840"),
        ("workload.kind", "batch", "workload: has kind the text 'batch'; write serving or training"),
        ("pins.ep", 17, "pins.ep 17 is more than the cluster's 16 GPUs; lower pins.ep"),
        ("pins.tp", 2, "pins tp x pp x dp is 32, but the cluster has 16 GPUs; lower a pin"),
        ("redundant", "many", "redundant: is the text 'many'; write a whole number or 'auto'"),
        ("redundant", 961, "redundant 961 is more than 64 experts have room for on 16 GPUs"),
        ("routing.sequences", 9000, "routing: sequences 9000 is more than tokens 8192; lower sequences"),
        ("model", 5, "model: is 5; write the name or file of a model, or its fields"),
        ("name", "two\nlines", "name: is the text 'two\\nlines'; write text on one line"),
    ],
)
def test_wrong_fields(path: str, value: Any, message: str, tmp_path: Path) -> None:
    assert _refusal(_with(path, value), tmp_path).startswith(f"s.yaml: {message}")


def test_further_problems_are_counted(tmp_path: Path) -> None:
    data = yaml.safe_load(_with("model.layers", 0))
    data["model"]["hidden"] = 0
    data["model"]["moe"]["top_k"] = "x"
    assert _refusal(yaml.safe_dump(data), tmp_path) == "s.yaml: model.hidden: is 0; write at least 1 (and 2 more)"


def test_absurd_sizes_together_are_refused(tmp_path: Path) -> None:
    data = yaml.safe_load(_with("model.hidden", 1_000_000))
    data["model"]["moe"] |= {"experts": 65_536, "expert_width": 1_000_000}
    assert "1e+15 parameters" in _refusal(yaml.safe_dump(data), tmp_path)
    data = yaml.safe_load(_with("routing.tokens", 1_000_000))
    data["model"]["moe"]["top_k"] = 64
    assert "lower routing.tokens" in _refusal(yaml.safe_dump(data), tmp_path)
    data = yaml.safe_load(_with("model.moe.experts", 65_536))
    data["cluster"] |= {"nodes": 1000, "gpus_per_node": 8}
    assert "GPUs x experts" in _refusal(yaml.safe_dump(data), tmp_path)


# Wrong files.

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


WRONG_FILES: tuple[tuple[str | bytes, str], ...] = (
    ("", "is empty"),
    ("# only a comment\n", "is empty"),
    ("- a\n- b\n", "holds a list at its top"),
    ("just text", "holds just text at its top"),
    ("name: [1, 2\nmodel: x\n", "line 2: not valid YAML"),
    ("name: a\n\tmodel: b\n", "line 2: not valid YAML"),
    ("name: a\nname: b\n", "line 2: not valid YAML: key name is given twice"),
    ("pins: {tp: 1, tp: 2}\n", "key tp is given twice"),
    ("name: &x a\nmodel: *x\n", "line 1: YAML anchors and aliases are not taken"),
    (BOMB, "YAML anchors and aliases are not taken"),
    ("name: &a [*a]\n", "YAML anchors and aliases are not taken"),
    ("name: !!python/object/apply:os.system [ls]\n", "YAML tag"),
    ("name: !!int ''\n", "YAML tag"),
    ("name: 2001-99-99\n", "a value can't be read"),
    ("1: a\n", "key 1 is not text"),
    ("? [a]\n: b\n", "is not text"),
    ("name: " + "[" * 5000 + "]" * 5000, "nested over 32 deep"),
    ("name: " + "9" * 5000, "s.yaml: "),
    ("name: 0x" + "f" * 5000, "name: is a number of 20000 bits"),
    (b"\xff\xfen\x00a\x00", "is not UTF-8 text (byte 0)"),
    (b"name: \xe9\n", "is not UTF-8 text (byte 6)"),
    (b"name: \x00\n", "not valid YAML"),
    (b"name: a\x07\n", "not valid YAML"),
    (b"x" * (MAX_BYTES + 1), f"is over {MAX_BYTES} bytes"),
    ("a: 1\n---\nb: 2\n", "not valid YAML"),
)


@pytest.mark.parametrize(("text", "words"), WRONG_FILES, ids=[words for _, words in WRONG_FILES])
def test_wrong_files(text: str | bytes, words: str, tmp_path: Path) -> None:
    assert words in _refusal(text, tmp_path)


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + yaml.safe_dump(INLINE).encode())
    assert load_scenario(str(path)).name == INLINE["name"]
