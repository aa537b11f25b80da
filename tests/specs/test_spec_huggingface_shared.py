"""Real configs of served models: each reads, to the published counts, with the types of its checkpoint."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from specs.errors import InputError
from specs.fields import bytes_of
from specs.huggingface.config import UNKNOWN
from specs.loading import load_model
from specs.model import Model
from specs.parameters import block_weights, count_parameters, expert_type

#: Published with two digits or fewer, or cut off instead of rounded ("21B" of 21.8B).
ROUNDED = 0.03


@dataclass(frozen=True)
class Row:
    """A published count."""

    directory: str
    total_b: float
    active_b: float | None


@cache
def _rows(folder: Path) -> tuple[Row, ...]:
    with (folder / "published.csv").open() as file:
        return tuple(
            Row(row["directory"], float(row["total_b"]), float(row["active_b"]) if row["active_b"] else None)
            for row in csv.DictReader(file)
        )


@cache
def _model(path: Path) -> Model:
    return load_model(str(path))


@pytest.fixture(scope="module")
def models(shared_dir: Path) -> Path:
    folder = shared_dir / "models"
    if not folder.is_dir():
        pytest.skip("configs of real models are not beside this checkout (../shared/models)")
    return folder


#: Catalog models by the directory that they were written from.
CATALOG = {
    "deepseek_v3_2": "deepseek-ai__DeepSeek-V3.2",
    "deepseek_v4_flash": "deepseek-ai__DeepSeek-V4-Flash",
    "dots_llm1": "rednote-hilab__dots.llm1.inst",
    "gemma_4_26b_a4b": "google__gemma-4-26B-A4B",
    "glm_4_5_air": "zai-org__GLM-4.5-Air",
    "glm_5": "zai-org__GLM-5",
    "granite_4_0_h_small": "ibm-granite__granite-4.0-h-small",
    "hunyuan_a13b": "tencent__Hunyuan-A13B",
    "kimi_k2_5": "moonshotai__Kimi-K2.5",
    "kimi_k3": "moonshotai__Kimi-K3",
    "llama4_maverick": "meta-llama__Llama-4-Maverick-17B-128E-Instruct",
    "longcat_flash": "meituan-longcat__LongCat-Flash-Chat",
    "mimo_v2_flash": "XiaomiMiMo__MiMo-V2-Flash",
    "minimax_m2_5": "MiniMaxAI__MiniMax-M2.5",
    "nemotron_3_nano": "nvidia__NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "nemotron_3_super": "nvidia__NVIDIA-Nemotron-3-Super-120B-A12B-FP8",
    "phi_3_5_moe": "microsoft__Phi-3.5-MoE",
    "qwen3_5_122b_a10b": "Qwen__Qwen3.5-122B-A10B",
    "qwen3_5_397b_a17b": "Qwen__Qwen3.5-397B-A17B",
    "qwen3_next_80b_a3b": "Qwen__Qwen3-Next-80B-A3B",
}


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_the_catalogs_models_are_those_of_the_configs(name: str, models: Path) -> None:
    other = {"name", "summary", "published"}
    assert load_model(name).model_dump(exclude=other) == _model(models / CATALOG[name]).model_dump(exclude=other)


def test_every_config_reads_as_a_known_family(models: Path) -> None:
    read = []
    for path in sorted(each for each in models.iterdir() if each.is_dir()):
        model = _model(path)
        assert UNKNOWN not in model.summary, path.name
        read.append(path.name)
    assert len(read) >= 35


def test_totals_are_the_published_ones(models: Path) -> None:
    for row in _rows(models):
        total = count_parameters(_model(models / row.directory)).total / 1e9
        digits = len(f"{row.total_b:g}".replace(".", "").rstrip("0"))
        cut_off = math.floor(total) == row.total_b
        assert cut_off or total == pytest.approx(row.total_b, rel=ROUNDED if digits <= 2 else 0.012), row


def test_actives_are_the_published_ones_by_some_custom(models: Path) -> None:
    """Publishers count the embedding, the head, both or neither, and round to whole billions or cut off."""
    for row in _rows(models):
        if row.active_b is None:
            continue
        counts = count_parameters(_model(models / row.directory))
        customs = [
            counts.active_counting(embedding, head) / 1e9 for embedding in (False, True) for head in (True, False)
        ]
        whole = row.active_b == int(row.active_b)
        near = [abs(each - row.active_b) <= max(0.02 * row.active_b, 0.5 * whole) for each in customs]
        assert any(near) or math.floor(min(customs)) == row.active_b, (row, customs)


def _bytes(model: Model, part: str) -> float:
    return sum(
        each.weight.count * bytes_of(each.data_type)
        for block in model.layout
        for each in block_weights(model, block)
        if each.part == part
    )


def _expert_bytes(model: Model) -> float:
    return sum(
        moe.experts * moe.expert_elements(model.hidden) * bytes_of(expert_type(model, block))
        for block in model.layout
        if (moe := model.moe_of(block)) is not None
    )


def _kv_bytes(model: Model, batch: int, context: int) -> float:
    kept = [mixer.stored(context, 1) for block in model.layout if (mixer := model.mixer_of(block)) is not None]
    return batch * sum(each.size(model.types.kv_cache, model.types.state) for each in kept)


def test_attention_left_unquantized_keeps_its_bytes(models: Path) -> None:
    model = _model(models / "rebuilt__Qwen3-30B-A3B-FP8-skip-attn")
    assert _bytes(model, "attention") / 1e9 == pytest.approx(1.812, rel=0.01)
    assert model.types.experts == "fp8"
    assert model.types.block == 128


def test_groups_of_compressed_tensors_are_told_apart(models: Path) -> None:
    model = _model(models / "rebuilt__Qwen3-30B-A3B-ct-mixed")
    assert _expert_bytes(model) / 8e9 == pytest.approx(2.038, rel=0.01)
    assert _bytes(model, "attention") / 1e9 == pytest.approx(0.906, rel=0.01)


def test_the_kv_cache_has_its_own_type(models: Path) -> None:
    model = _model(models / "rebuilt__Qwen3-30B-A3B-modelopt-kvfp8")
    assert _kv_bytes(model, 16, 5120) / 1e9 == pytest.approx(4.03, rel=0.01)
    wide = _model(models / "rebuilt__Qwen3-30B-A3B-FP8-skip-attn")
    assert _kv_bytes(wide, 16, 5120) / 1e9 == pytest.approx(8.05, rel=0.01)


def test_quantization_that_stands_beside_the_config(models: Path) -> None:
    qwen = _model(models / "nvidia__Qwen3-235B-A22B-NVFP4")
    assert (qwen.types.attention, qwen.types.experts, qwen.types.kv_cache) == ("nvfp4", "nvfp4", "fp8")
    assert (qwen.types.compute, qwen.types.embedding, qwen.types.block) == ("nvfp4", "bf16", 16)
    assert _expert_bytes(qwen) == 94 * 128 * 3 * 4096 * 1536 * 4.5 / 8
    deepseek = _model(models / "nvidia__DeepSeek-V3.1-NVFP4")
    wide = dict.fromkeys(("q_a_proj", "q_b_proj", "kv_a_proj", "kv_b_proj"), "bf16")
    assert {name: mixer.types for name, mixer in deepseek.mixers.items()} == {"full": wide}
    assert deepseek.types.attention == "nvfp4"
    down, up = 7168 * (1536 + 576), 1536 * 128 * 192 + 512 * 128 * 256
    assert _bytes(deepseek, "attention") == 61 * ((down + up + 2048) * 2 + 7168 * 128 * 128 * 4.5 / 8)


def test_wildcards_and_regular_expressions_spare_what_they_name(models: Path) -> None:
    kimi = _model(models / "nvidia__Kimi-K2.5-NVFP4")
    assert (kimi.types.attention, kimi.types.experts, kimi.types.kv_cache) == ("bf16", "nvfp4", "fp8")
    native = _model(models / "moonshotai__Kimi-K2.5")
    assert (native.types.attention, native.types.dense, native.types.experts) == ("bf16", "bf16", "int4_g32")
    assert native.types.shared is None
    assert native.types.block == 32
    glm = _model(models / "zai-org__GLM-5.1-FP8")
    assert {mixer.types.get("indexer.weights_proj") for mixer in glm.mixers.values()} == {"bf16"}


def test_experts_of_deepseek_v4_are_4_bit(models: Path) -> None:
    model = _model(models / "deepseek-ai__DeepSeek-V4-Flash")
    assert (model.types.attention, model.types.experts, model.types.compute) == ("fp8", "mxfp4", "fp8")
    assert [model.moe_of(block).hash_routed for block in model.layout[:4]] == [True, True, True, False]  # type: ignore[union-attr]
    assert model.streams == 4


def test_what_is_left_out_is_said(models: Path) -> None:
    assert any("next-token" in text for text in _model(models / "deepseek-ai__DeepSeek-V3.2").left_out)
    assert any("vision" in text for text in _model(models / "google__gemma-4-26B-A4B").left_out)


def test_infinity_where_nobody_reads_it(models: Path) -> None:
    model = _model(models / "nvidia__NVIDIA-Nemotron-3-Super-120B-A12B-FP8")
    assert model.moe.latent == 1024
    assert sum(block.mixer is None for block in model.layout) == len(model.moe_layers)


def test_at_most_three_are_refused(models: Path) -> None:
    refused = []
    for path in models.iterdir():
        try:
            if path.is_dir():
                load_model(str(path))
        except InputError as error:
            refused.append(str(error))
    assert len(refused) <= 3, refused


def test_what_is_read_can_be_written_and_read_again(models: Path) -> None:
    for path in sorted(each for each in models.iterdir() if each.is_dir()):
        model = _model(path)
        assert Model.model_validate(model.model_dump(mode="json")) == model, path.name
