"""The data types of a model: one for each part of it, and exceptions by projection and layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from specs.blocks.base import Weight
from specs.blocks.ffn import Moe
from specs.fields import DataType
from specs.huggingface.architecture import Architecture, Layer
from specs.huggingface.fields import Config
from specs.huggingface.quantization.modules import ffn_paths, mixer_paths
from specs.huggingface.quantization.scheme import WIDE, Format, Scheme
from specs.huggingface.quantization.statements import OF_EXPERTS, modelopt, scheme_of
from specs.model_common import DataTypes

_DTYPES: dict[str, DataType] = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "half": "fp16",
    "auto": "bf16",
}
_STATES: dict[str, DataType] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass
class _Found:
    """Types of one layer's weights by name, apart for mixer and feed-forward block."""

    mixer: dict[str, DataType] = field(default_factory=dict)
    ffn: dict[str, DataType] = field(default_factory=dict)


def read_scheme(config: Config, quantization: Config | None, beside: Config | None, expert_dtype: str) -> Scheme:
    """What the checkpoint says of its quantization.

    Args:
        config: the language model's config.
        quantization: its quantization_config.
        beside: hf_quant_config.json; it wins where both speak.
        expert_dtype: of the family, where the config does not say.
    """
    scheme = Scheme() if quantization is None else scheme_of(quantization)
    stated = config.text("expert_dtype", default=expert_dtype)
    if quantization is not None and stated == "fp4" and scheme.is_float8 and not quantization.has(*OF_EXPERTS):
        # 4-bit elements in blocks of 32 with one exponent; multiplied with 8-bit activations.
        scheme = scheme.with_experts(Format("mxfp4", "fp8"))
    if beside is None:
        return scheme
    own = modelopt(beside)
    return Scheme(own.groups or scheme.groups, own.kv_cache or scheme.kv_cache)


def wide_type(*configs: Config) -> DataType:
    """The type of what is not quantized: `dtype` of the first config that has it."""
    for config in configs:
        name, value = config.raw("dtype", "torch_dtype")
        if value is None:
            continue
        word = config.text(name).removeprefix("torch.")
        return _DTYPES[config.chosen(name, word, _DTYPES)]
    return "bf16"


def assign(
    config: Config, architecture: Architecture, scheme: Scheme, wide: DataType, hidden: int
) -> tuple[tuple[Layer, ...], DataTypes]:
    """The layers with the types that differ from the model's, and the model's types.

    Args:
        config: the language model's config.
        architecture: every block, and what is never quantized.
        scheme: what is quantized.
        wide: type of what is not.
        hidden: width of the model.
    """
    found, totals = [], {part: Counter[DataType]() for part in ("attention", "dense", "shared", "latent", "experts")}
    formats: Counter[Format] = Counter()
    kept = architecture.unquantized
    for layer in architecture.layers:
        each = _Found()
        for weight in layer.mixer.weights(hidden) if layer.mixer else ():
            if _quantizable(weight):
                stored = WIDE if weight.name in kept else scheme.format_of(mixer_paths(layer, weight.name))
                kind = stored.weights or wide
                each.mixer[weight.name] = kind
                totals["attention"][kind] += weight.count
        for name, count in _ffn_weights(layer, hidden):
            stored = WIDE if name in kept else scheme.format_of(ffn_paths(layer, name), experts=name == "experts")
            formats[stored] += name == "experts"
            kind = stored.weights or wide
            each.ffn[name] = kind
            totals["dense" if name == "ffn" else name][kind] += count
        found.append(each)
    usual = {part: counter.most_common(1)[0][0] for part, counter in totals.items() if counter}
    experts = formats.most_common(1)[0][0] if formats else WIDE
    types = _model_types(config, usual, experts, scheme, wide)
    return tuple(_typed(layer, each, types) for layer, each in zip(architecture.layers, found, strict=True)), types


def _quantizable(weight: Weight) -> bool:
    return bool(weight.count) and not weight.plain


def _ffn_weights(layer: Layer, hidden: int) -> list[tuple[str, int]]:
    """Names and elements of what may be quantized in the feed-forward block."""
    if layer.ffn is None:
        return []
    if not isinstance(layer.ffn, Moe):
        return [(weight.name, weight.count) for weight in layer.ffn.weights(hidden) if _quantizable(weight)]
    own = [(weight.name, weight.count) for weight in layer.ffn.shared_weights(hidden) if _quantizable(weight)]
    return [*own, ("experts", layer.ffn.experts * layer.ffn.expert_elements(hidden))]


def _model_types(
    config: Config, usual: dict[str, DataType], experts: Format, scheme: Scheme, wide: DataType
) -> DataTypes:
    dense = usual.get("dense") or usual.get("shared") or usual.get("attention", wide)
    shared = usual.get("shared", dense)
    # Engines differ in what they widen such experts to, or narrow their activations to.
    open_to_engines = experts.activations is None and usual["experts"] == "mxfp4"
    compute = None if open_to_engines else experts.activations or wide
    name, state = config.raw("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    if state is not None:
        state = config.text(name).removeprefix("torch.")
        state = None if state == "auto" else _STATES[config.chosen(name, state, _STATES)]
    values: dict[str, Any] = {
        "attention": usual.get("attention", wide),
        "dense": dense,
        "shared": None if shared == dense else shared,
        "experts": usual["experts"],
        "embedding": wide,
        "kv_cache": scheme.kv_cache or wide,
        "state": state or "fp32",
        "compute": compute,
        # Engines send what they multiply where that is 8-bit, and the activations' type otherwise.
        "dispatch": "fp8" if compute == "fp8" else wide,
        "combine": wide,
        "block": experts.block,
    }
    return config.build(DataTypes, "quantization_config", **values)


def _typed(layer: Layer, found: _Found, types: DataTypes) -> Layer:
    """The layer with the types that differ from the model's."""
    shared = types.dense if types.shared is None else types.shared
    usual = {"ffn": types.dense, "latent": types.dense, "shared": shared, "experts": types.experts}
    mixer_types = {name: kind for name, kind in found.mixer.items() if kind != types.attention}
    ffn_types = {name: kind for name, kind in found.ffn.items() if kind != usual[name]}
    if mixer_types and layer.mixer is not None:
        layer = replace(layer, mixer=layer.mixer.model_copy(update={"types": mixer_types}))
    if ffn_types and layer.ffn is not None:
        layer = replace(layer, ffn=layer.ffn.model_copy(update={"types": ffn_types}))
    return layer
