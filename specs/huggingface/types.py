"""The data types of a checkpoint, from the `dtype` and `quantization_config` of its Hugging Face config."""

from __future__ import annotations

from typing import Any

from specs.documents import shown, told
from specs.errors import InputError

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "half": "fp16", "auto": "bf16"}
_KNOWN = "mxfp4, fp8, fbgemm_fp8, modelopt, compressed-tensors, gptq, awq"


def data_types(config: dict[str, Any], quantization: object, source: str) -> dict[str, str]:
    """Storage, compute and message types, as the fields of DataTypes.

    fp8 checkpoints are taken to send fp8 on dispatch, as their engines do; combine and the KV cache stay as wide as
    the unquantized parts. 4-bit weights multiply as the wider type that the activations have.

    Args:
        config: the language model's config.
        quantization: its quantization_config, or None.
        source: for messages.

    Raises:
        InputError: a dtype or quantization method that is not known.
    """
    wide = _wide(config, source)
    types = dict.fromkeys(
        ("attention", "dense", "experts", "embedding", "kv_cache", "compute", "dispatch", "combine"), wide
    )
    if quantization is None:
        return types
    if not isinstance(quantization, dict):
        raise InputError(source, "quantization_config", f"is {told(quantization)}", "write a mapping")
    method = quantization.get("quant_method")
    if not isinstance(method, str):
        raise InputError(source, "quantization_config.quant_method", f"is {told(method)}", f"write one of {_KNOWN}")
    narrow, everywhere = _narrow(method.lower(), quantization, source)
    for part in ("attention", "dense", "experts") if everywhere else ("experts",):
        types[part] = narrow
    if narrow in ("fp8", "nvfp4"):
        types["compute"] = narrow
    if narrow == "fp8":
        types["dispatch"] = "fp8"
    return types


def _wide(config: dict[str, Any], source: str) -> str:
    for name in ("dtype", "torch_dtype"):
        value = config.get(name)
        if value is not None:
            known = _DTYPES.get(value.removeprefix("torch.")) if isinstance(value, str) else None
            if known is None:
                raise InputError(source, name, f"is {told(value)}", "write bfloat16, float16 or float32")
            return known
    return "bf16"


def _narrow(method: str, quantization: dict[str, Any], source: str) -> tuple[str, bool]:
    """The quantized type, and whether attention and dense weights have it as well as the experts."""
    if method == "mxfp4":
        return "mxfp4", False
    if method in ("fp8", "fbgemm_fp8"):
        return "fp8", True
    if method == "modelopt":
        algorithm = quantization.get("quant_algo")
        if algorithm == "FP8":
            return "fp8", True
        if algorithm == "NVFP4":
            return "nvfp4", False
        field = "quantization_config.quant_algo"
        raise InputError(source, field, f"{shown(algorithm)} is not known", "use FP8 or NVFP4, or a YAML model")
    if method in ("gptq", "awq"):
        return _integer_type(quantization.get("bits"), "quantization_config.bits", source), True
    if method == "compressed-tensors":
        return _compressed(quantization, source)
    field = "quantization_config.quant_method"
    raise InputError(source, field, f"{shown(method)} is not known", f"use one of {_KNOWN}, or a YAML model")


def _compressed(quantization: dict[str, Any], source: str) -> tuple[str, bool]:
    """compressed-tensors: the weights' type of its first group; ignored modules say whether attention is left wide."""
    field = "quantization_config.config_groups"
    groups = quantization.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise InputError(source, field, "names no group with weights", "name the complete config.json")
    ignored = quantization.get("ignore")
    attention_is_wide = isinstance(ignored, list) and any("attn" in str(item) for item in ignored)
    if weights.get("type") == "float" and weights.get("num_bits") == 8:
        return "fp8", not attention_is_wide
    if weights.get("type") == "float" and weights.get("num_bits") == 4:
        return "nvfp4", not attention_is_wide
    return _integer_type(weights.get("num_bits"), f"{field}.weights.num_bits", source), not attention_is_wide


def _integer_type(bits: object, field: str, source: str) -> str:
    if bits == 4:
        return "int4"
    if bits == 8:
        return "int8"
    raise InputError(source, field, f"is {told(bits)}", "use 4 or 8 bits, or a YAML model")
