"""ERNIE 4.5: experts from a first to a last layer; the multimodal ones hold a second group of experts for images."""

from __future__ import annotations

from specs.huggingface.architecture import Architecture, Family, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import gqa
from specs.huggingface.parts.experts import first_dense, mixed, moe


def _ernie(config: Config) -> Architecture:
    layers = config.layers()
    experts, left_out = moe(config, **_text_experts(config), router_bias=True), _image_experts(config)
    ffns = mixed(config, experts, _dense(config, layers), layers)
    mixer = gqa(config, output_bias=config.flag("use_bias"))
    return Architecture(stack([mixer] * layers, ffns), tied=True, left_out=left_out)


def _dense(config: Config, layers: int) -> set[int]:
    if config.has("mlp_layer_types"):
        return first_dense(config, layers)
    first = _first(config, "moe_layer_start_index", 1)
    last = _first(config, "moe_layer_end_index", layers - 1)
    step = config.integer("moe_layer_interval", default=1)
    last = layers - 1 if last < 0 else last
    return {i for i in range(layers) if not first <= i <= last or (i + 1) % step}


def _first(config: Config, name: str, default: int) -> int:
    """A number that may be given for text and images apart: the text's."""
    value = config.raw(name)[1]
    if isinstance(value, list):
        return (config.integers(name, least=-1) or [default])[0]
    stated = config.optional(name, least=-1)
    return default if stated is None else stated


def _text_experts(config: Config) -> dict[str, int]:
    names = {"experts": "moe_num_experts", "expert_width": "moe_intermediate_size"}
    return {field: _first(config, name, 0) for field, name in names.items() if isinstance(config.raw(name)[1], list)}


def _image_experts(config: Config) -> tuple[str, ...]:
    counts = config.raw("moe_num_experts")[1]
    widths = config.raw("moe_intermediate_size")[1]
    if not isinstance(widths, list) or len(widths) < 2:
        return ()
    count = counts[1] if isinstance(counts, list) and len(counts) > 1 else counts
    return (f"{count} experts of width {widths[1]} for images, in every MoE layer",)


FAMILIES = (
    Family(
        ("ernie4_5_moe", "ernie4_5_moe_vl", "ernie4_5_vl_moe", "ernie4_5_vl_moe_text"),
        _ernie,
        ("Ernie4_5_MoeForCausalLM", "Ernie4_5_VLMoeForConditionalGeneration"),
    ),
)
