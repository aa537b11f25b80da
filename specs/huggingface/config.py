"""A Hugging Face `config.json` of a mixture-of-experts model as a Model.

What the dimensions mean differs by family (which layers are dense, which projections have a bias, whose field names);
`FAMILIES` holds those facts, taken from the families' modeling code in transformers. Other model types are refused by
name: a model read by guesswork would be planned wrong without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from specs.documents import parse_json, read_text, shown
from specs.errors import InputError
from specs.fields import MAX_LAYERS
from specs.huggingface.fields import Config
from specs.huggingface.types import data_types
from specs.model import Model
from specs.validation import validate


@dataclass(frozen=True)
class Family:
    """What a model type's configs leave unsaid.

    Attributes:
        attention: gqa, or mla (DeepSeek's latent attention).
        dense_rule: which layers are dense: none; deepseek (first_k_dense_replace, moe_layer_freq); qwen
            (decoder_sparse_step, mlp_only_layers).
        qkv_bias: default of the bias of query, key and value projections; output_bias_follows: whether the output
            projection has it too.
        qk_norm: norms of queries and keys, by the span of their weights.
        sinks, expert_bias, router_bias, shared_gate: as in the schema.
        correction_bias: the router has DeepSeek-V3's load-balancing correction, unless topk_method says otherwise.
        alternating_window: without layer_types, even layers slide.
    """

    attention: Literal["gqa", "mla"] = "gqa"
    dense_rule: Literal["none", "deepseek", "qwen"] = "none"
    qkv_bias: bool = False
    output_bias_follows: bool = True
    qk_norm: Literal["none", "head", "all_heads"] = "none"
    sinks: bool = False
    expert_bias: bool = False
    router_bias: bool = False
    shared_gate: bool = False
    correction_bias: bool = False
    alternating_window: bool = False


_DEEPSEEK_V3 = Family(attention="mla", dense_rule="deepseek", correction_bias=True)
_QWEN3 = Family(dense_rule="qwen", qk_norm="head")

FAMILIES: dict[str, Family] = {
    "gpt_oss": Family(qkv_bias=True, sinks=True, expert_bias=True, router_bias=True, alternating_window=True),
    "deepseek_v2": Family(attention="mla", dense_rule="deepseek"),
    "deepseek_v3": _DEEPSEEK_V3,
    "kimi_k2": _DEEPSEEK_V3,
    "qwen2_moe": Family(dense_rule="qwen", qkv_bias=True, output_bias_follows=False, shared_gate=True),
    "qwen3_moe": _QWEN3,
    "qwen3_vl_moe_text": _QWEN3,
    "mixtral": Family(),
    "olmoe": Family(qk_norm="all_heads"),
}

#: Class names in `architectures`, for configs without model_type.
_ARCHITECTURES: dict[str, str] = {
    "GptOssForCausalLM": "gpt_oss",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "KimiK2ForCausalLM": "kimi_k2",
    "Qwen2MoeForCausalLM": "qwen2_moe",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "MixtralForCausalLM": "mixtral",
    "OlmoeForCausalLM": "olmoe",
}

EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "num_routed_experts")
TOP_K = ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_topk", "moe_top_k")


def read_config(path: Path, source: str) -> Model:
    """The model that a `config.json` file describes, named after its folder.

    Args:
        path: the file.
        source: its name in messages.

    Raises:
        InputError: the file can't be read, or is not of a mixture-of-experts model of a known family.
    """
    config = parse_json(read_text(path, source), source)
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return model_from_config(config, source, name=shown(name, 200) or "model")


def model_from_config(config: dict[str, Any], source: str, name: str) -> Model:
    """The model that a parsed config describes.

    Args:
        config: the config; that of a multimodal model may nest the language model's under `text_config`.
        source: where it comes from, for messages.
        name: the model's name.

    Raises:
        InputError: as in read_config.
    """
    outer_type = config.get("model_type")
    text = config.get("text_config")
    quantization = config.get("quantization_config")
    if isinstance(text, dict):
        quantization = text.get("quantization_config", quantization)
        config = text
    family = _family(config, outer_type, source)
    fields = Config(config, source)
    attention = _mla(fields) if family.attention == "mla" else _gqa(fields, family)
    layers = fields.integer("num_hidden_layers")
    if not 1 <= layers <= MAX_LAYERS:
        raise InputError(source, "num_hidden_layers", f"is {layers}", f"write 1 to {MAX_LAYERS}")
    dense = _dense_layers(fields, family, layers)
    data: dict[str, Any] = {
        "name": name,
        "summary": f"imported from a {shown(config.get('model_type') or outer_type or 'Hugging Face')} config",
        "layers": layers,
        "hidden": fields.integer("hidden_size"),
        "vocabulary": fields.integer("vocab_size"),
        "context": fields.optional("max_position_embeddings"),
        "attention": attention,
        "moe": _moe(fields, family),
        "dense_layers": dense,
        "dense_width": fields.integer("intermediate_size") if dense else None,
        "tied_embedding": fields.flag("tie_word_embeddings", False),
        "sliding": _sliding(fields, family, layers),
        "types": data_types(config, quantization, source),
    }
    return fields.named_after_config(lambda: validate(Model, data, source))


def _family(config: dict[str, Any], outer_type: object, source: str) -> Family:
    """The family of a config, or an error that names its model type."""
    model_type = config.get("model_type")
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    if model_type is None and isinstance(first, str):
        model_type = _ARCHITECTURES.get(first, first)
    if model_type is None:
        model_type = outer_type
    if not isinstance(model_type, str):
        raise InputError(source, "model_type", "is missing", "name a Hugging Face config.json of a language model")
    experts = next((config[key] for key in EXPERTS if config.get(key) is not None), None)
    if experts is None or (type(experts) is int and experts <= 1):
        known_field = next((key for key in EXPERTS if config.get(key) is not None), "model_type")
        raise InputError(
            source, known_field, f"{shown(model_type)} is a dense model: its config has no experts", _known_families()
        )
    if model_type not in FAMILIES:
        raise InputError(source, "model_type", f"{shown(model_type)} is not a known model type", _known_families())
    return FAMILIES[model_type]


def _known_families() -> str:
    return f"give one of {', '.join(FAMILIES)}, or describe the model in YAML"


def _gqa(fields: Config, family: Family) -> dict[str, Any]:
    heads = fields.integer("num_attention_heads", to="attention.query_heads")
    head_dim = fields.optional("head_dim", to="attention.head_dim")
    if head_dim is None:
        hidden = fields.integer("hidden_size")
        if heads < 1 or hidden % heads:
            raise InputError(
                fields.source, "num_attention_heads", f"{heads} does not divide hidden_size {hidden}", "add head_dim"
            )
        head_dim = hidden // heads
    bias = fields.flag("attention_bias", fields.flag("qkv_bias", family.qkv_bias))
    return {
        "kind": "gqa",
        "query_heads": heads,
        "kv_heads": fields.optional("num_key_value_heads", to="attention.kv_heads") or heads,
        "head_dim": head_dim,
        "bias": bias,
        "output_bias": bias and family.output_bias_follows,
        "qk_norm": family.qk_norm != "none",
        "qk_norm_span": "all_heads" if family.qk_norm == "all_heads" else "head",
        "sinks": family.sinks,
    }


def _mla(fields: Config) -> dict[str, Any]:
    return {
        "kind": "mla",
        "heads": fields.integer("num_attention_heads", to="attention.heads"),
        "q_rank": fields.optional("q_lora_rank", to="attention.q_rank"),
        "kv_rank": fields.integer("kv_lora_rank", to="attention.kv_rank"),
        "rope_dim": fields.integer("qk_rope_head_dim", to="attention.rope_dim"),
        "nope_dim": fields.integer("qk_nope_head_dim", to="attention.nope_dim"),
        "value_dim": fields.integer("v_head_dim", to="attention.value_dim"),
        "bias": fields.flag("attention_bias", False),
    }


def _moe(fields: Config, family: Family) -> dict[str, Any]:
    shared_total = fields.optional("shared_expert_intermediate_size", to="moe.shared_width")
    shared = fields.optional("n_shared_experts", "num_shared_experts", to="moe.shared_experts") or 0
    correction = family.correction_bias and fields.text("topk_method", "noaux_tc") == "noaux_tc"
    return {
        "experts": fields.integer(*EXPERTS, to="moe.experts"),
        "top_k": fields.integer(*TOP_K, to="moe.top_k"),
        "expert_width": fields.integer("moe_intermediate_size", "intermediate_size", to="moe.expert_width"),
        "shared_experts": shared or (1 if shared_total else 0),
        "shared_width": shared_total or None,
        "groups": fields.optional("n_group", to="moe.groups") or 1,
        "top_groups": fields.optional("topk_group", to="moe.top_groups") or 1,
        "gated": True,
        "bias": family.expert_bias,
        "router_bias": family.router_bias or correction,
        "shared_gate": family.shared_gate and bool(shared or shared_total),
    }


def _dense_layers(fields: Config, family: Family, layers: int) -> list[int]:
    """Indices of the layers whose feed-forward block is dense."""
    count = range(layers)
    if family.dense_rule == "deepseek":
        first = fields.optional("first_k_dense_replace", to="dense_layers") or 0
        step = fields.optional("moe_layer_freq", to="dense_layers") or 1
        fields.at_least(1, step, "moe_layer_freq")
        return [i for i in count if i < first or i % step]
    if family.dense_rule == "qwen":
        only = set(fields.integers("mlp_only_layers"))
        step = fields.optional("decoder_sparse_step", to="dense_layers") or 1
        fields.at_least(1, step, "decoder_sparse_step")
        return [i for i in count if i in only or (i + 1) % step]
    return []


def _sliding(fields: Config, family: Family, layers: int) -> dict[str, Any] | None:
    """The sliding-window layers as a repeating pattern, or None where every layer sees everything."""
    window = fields.optional("sliding_window", to="sliding.window")
    if window is None or not fields.flag("use_sliding_window", True):
        return None
    kinds = fields.texts("layer_types")
    if kinds:
        if len(kinds) != layers:
            raise InputError(
                fields.source, "layer_types", f"names {len(kinds)} layers of {layers}", "name every layer once"
            )
        slides = [kind == "sliding_attention" for kind in kinds]
    elif family.alternating_window:
        slides = [i % 2 == 0 for i in range(layers)]
    else:
        first = fields.optional("max_window_layers", to="sliding.layers") or 0
        slides = [i >= first for i in range(layers)]
    if not any(slides):
        return None
    period = next(p for p in range(1, layers + 1) if all(slides[i] == slides[i % p] for i in range(layers)))
    return {"window": window, "period": period, "layers": [i for i in range(period) if slides[i]]}
