"""The formats in which checkpoints state their quantization, one function each, as a Scheme."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specs.documents import shown, told
from specs.fields import DataType
from specs.huggingface.fields import Config
from specs.huggingface.quantization.patterns import Patterns
from specs.huggingface.quantization.scheme import WIDE, Format, Group, Scheme

#: Lists of modules that stay as they are.
LEFT = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules", "exclude", "llm_int8_skip_modules")

#: Where a statement gives experts an algorithm of their own (DeepSeek-V4, MiniMax-M3, Ling 3).
OF_EXPERTS = ("moe_quant_algo", "routed_experts_quant_method")

#: ModelOpt's algorithms.
_ALGORITHMS: dict[str, Format] = {
    "FP8": Format("fp8", "fp8"),
    "FP8_PER_CHANNEL_PER_TOKEN": Format("fp8", "fp8"),
    "FP8_PB_WO": Format("fp8", "fp8", 128),
    "FP8_PB_REAL": Format("fp8", "fp8", 128),
    "NVFP4": Format("nvfp4", "nvfp4", 16),
    "NVFP4_AWQ": Format("nvfp4", "nvfp4", 16),
    "W4A16_NVFP4": Format("nvfp4", None, 16),
    "W4A8_NVFP4_FP8": Format("nvfp4", "fp8", 16),
    "MXFP8": Format("mxfp8", "fp8", 32),
    "MXFP4": Format("mxfp4", None),
    "W4A8_MXFP4_FP8": Format("mxfp4", "fp8"),
    "W4A16_MXFP4": Format("mxfp4", None),
    "INT8_SQ": Format("int8", "int8"),
    "W8A8_SQ_PER_CHANNEL": Format("int8", "int8"),
    "W4A16_AWQ": Format("int4_g128", None, 128),
    "INT4_AWQ": Format("int4_g128", None, 128),
    "W4A8_AWQ": Format("int4_g128", "fp8", 128),
}
_MIXED = "MIXED_PRECISION"
_KV = {"FP8": "fp8", "FP8_E4M3": "fp8", "NVFP4": "nvfp4", "INT8": "int8"}


def int4(group: int) -> DataType:
    """The type of 4-bit integers with one scale for `group` of them (-1: a whole row, as good as 128)."""
    if group == 64:
        return "int4"
    return "int4_g32" if 0 < group < 64 else "int4_g128"


def integers(config: Config, bits: int | None, group: int, name: str, activations: DataType | None = None) -> Format:
    """The format of integer weights."""
    if bits == 4:
        return Format(int4(group), activations, max(1, group))
    if bits == 8:
        return Format("int8", activations, max(1, group))
    raise config.error(name, f"is {told(bits)}", "use 4 or 8 bits, or describe the model in YAML")


def _left(config: Config) -> Group:
    """The modules that stay as they are, of every list that is there."""
    names = [name for field in LEFT for name in config.texts(field)]
    field = next((field for field in LEFT if config.has(field)), LEFT[0])
    return Group(WIDE, Patterns.of(names, config.source, config.prefix + field))


def _float8(config: Config) -> Scheme:
    block = config.integers("weight_block_size", least=1)
    return Scheme((_left(config), Group(Format("fp8", "fp8", max(block, default=1)))), _kv_scheme(config))


def _mxfp8(config: Config) -> Scheme:
    return Scheme((_left(config), Group(Format("mxfp8", "fp8", 32))), _kv_scheme(config))


def _mxfp4(config: Config) -> Scheme:
    # The method converts experts alone; engines pad their widths to what kernels take.
    return Scheme((_left(config), Group(Format("mxfp4"), experts_only=True)))


def _w4afp8(config: Config) -> Scheme:
    experts = Group(Format("int4_g128", "fp8", 128), experts_only=True)
    return Scheme((_left(config), experts, Group(Format("fp8", "fp8", 128))))


def _weight_only(config: Config) -> Scheme:
    """gptq, awq and auto-round: one width, exceptions by module."""
    bits = config.optional("bits", "w_bit")
    group = config.optional("group_size", "q_group_size", least=-1)
    group = 128 if group is None else group
    groups = [_left(config)]
    for field in ("dynamic", "extra_config"):
        groups += _exceptions(config, field, group)
    only = config.raw("modules_in_block_to_quantize")[1]
    names = [name for item in only if isinstance(item, list) for name in item] if isinstance(only, list) else []
    patterns = None
    if names and all(isinstance(name, str) for name in names):
        patterns = Patterns.of(names, config.source, f"{config.prefix}modules_in_block_to_quantize")
    return Scheme((*groups, Group(integers(config, bits, group, "bits"), patterns)))


def _exceptions(config: Config, field: str, group: int) -> list[Group]:
    """Groups of a mapping from modules to what differs there; `-:` leaves a module as it is (GPTQModel)."""
    found, section = [], config.section(field)
    for key in section.data if section else ():
        name = key.removeprefix("-:").removeprefix("+:")
        marked = name != key or any(mark in name for mark in "*^$\\(")
        patterns = Patterns.of([f"re:{name}" if marked else name], config.source, config.prefix + field)
        each = section.section(key) if section else None
        if key.startswith("-:"):
            found.append(Group(WIDE, patterns))
        elif each is not None and each.has("bits"):
            bits = each.optional("bits") or 16
            own = each.optional("group_size", least=-1) or group
            found.append(Group(WIDE if bits >= 16 else integers(each, bits, own, "bits"), patterns))
    return found


def _bitsandbytes(config: Config) -> Scheme:
    if config.flag("load_in_8bit", "_load_in_8bit"):
        return Scheme((_left(config), Group(Format("int8"))))
    # One 32-bit scale for 64, itself in 8 bits where quantized twice: 4.5 or 4.13 bits.
    twice = config.flag("bnb_4bit_use_double_quant")
    return Scheme((_left(config), Group(Format("int4_g128" if twice else "int4_g32"))))


def modelopt(config: Config) -> Scheme:
    """ModelOpt's statement: in `hf_quant_config.json`, or in a config's `quantization_config`."""
    inner = config.section("quantization")
    if inner is not None:
        return modelopt(inner)
    kv_cache = _kv_scheme(config) or _kv_algorithm(config)
    algorithm = config.text("quant_algo").upper()
    left = _left(config)
    if algorithm == _MIXED:
        return Scheme((left, *_quantized_layers(config)), kv_cache)
    if not algorithm and config.has("config_groups"):
        return compressed(config)
    if not algorithm:
        return Scheme((), kv_cache)
    return Scheme((left, Group(_algorithm(config, algorithm))), kv_cache)


def _algorithm(config: Config, algorithm: str) -> Format:
    stored = _ALGORITHMS.get(algorithm)
    if stored is None:
        known = ", ".join(_ALGORITHMS)
        raise config.error("quant_algo", f"{shown(algorithm)} is not known", f"use one of {known}, or a YAML model")
    group = config.optional("group_size", least=-1)
    if stored.weights == "int4_g128" and group:
        return Format(int4(group), stored.activations, max(1, group))
    return stored


def _quantized_layers(config: Config) -> list[Group]:
    """Groups of `quantized_layers`: a mapping from modules to their algorithms."""
    section = config.section("quantized_layers")
    if section is None:
        raise config.error("quantized_layers", "is missing", "name the complete file, or describe the model in YAML")
    by_format: dict[Format, list[str]] = {}
    for name in section.data:
        each = section.section(name)
        algorithm = each.text("quant_algo").upper() if each is not None else ""
        stored = _algorithm(each, algorithm) if each is not None and algorithm else WIDE
        by_format.setdefault(stored, []).append(name)
    field = f"{config.prefix}quantized_layers"
    return [Group(stored, Patterns.of(names, config.source, field)) for stored, names in by_format.items()]


def compressed(config: Config) -> Scheme:
    """compressed-tensors: groups by targets, which are module names, regular expressions, or the class Linear."""
    groups, section = [], config.section("config_groups")
    for name in section.data if section else ():
        group = section.section(name) if section else None
        weights = group.section("weights") if group else None
        if group is None or weights is None:
            continue
        stored = _weights(
            weights, group.section("input_activations"), f"{config.text('format')} {group.text('format')}"
        )
        targets = group.texts("targets") or ["Linear"]
        field = f"{group.prefix}targets"
        named = [target for target in targets if not target[:1].isupper()]
        if named:
            groups.append(Group(stored, Patterns.of(named, config.source, field)))
        if any(target in ("Linear", "LinearBase") for target in targets):
            groups.append(Group(stored))
        elif any(target[:1].isupper() and "linear" not in target.lower() for target in targets):
            groups.append(Group(stored, experts_only=True))
    if not groups:
        raise config.error("config_groups", "names no group with weights", "name the complete config.json")
    return Scheme((_left(config), *groups), _kv_scheme(config))


def _weights(weights: Config, activations: Config | None, words: str) -> Format:
    """The format of one group of compressed-tensors."""
    bits, group = weights.optional("num_bits"), weights.optional("group_size", least=-1)
    narrow = activations.optional("num_bits") if activations else None
    if weights.text("type", default="int") != "float":
        run: DataType | None = None
        if narrow == 8 and activations is not None:
            run = "fp8" if activations.text("type") == "float" else "int8"
        return integers(weights, bits, group or -1, "num_bits", run)
    if bits == 4 and ("mxfp4" in words or group == 32 or weights.text("scale_dtype").endswith("uint8")):
        return Format("mxfp4", {4: "mxfp4", 8: "fp8"}.get(narrow or 16))  # type: ignore[arg-type]
    if bits == 4:
        return Format("nvfp4", {4: "nvfp4", 8: "fp8"}.get(narrow or 16), 16)  # type: ignore[arg-type]
    if bits == 8 and ("mxfp8" in words or group == 32):
        return Format("mxfp8", "fp8", 32)
    if bits == 8:
        # Engines multiply 8-bit weights in 8 bits unless activations are said to stay wide.
        block = max(weights.integers("block_structure", least=1), default=1)
        return Format("fp8", "fp8" if activations else None, block)
    raise weights.error("num_bits", f"is {told(bits)}", "use 4 or 8 bits, or describe the model in YAML")


def _quark(config: Config) -> Scheme:
    groups = [_left(config)]
    section = config.section("layer_quant_config")
    for name in section.data if section else ():
        each = section.section(name) if section else None
        if each is not None:
            patterns = Patterns.of([name], config.source, f"{config.prefix}layer_quant_config")
            groups.append(Group(_quark_format(each), patterns))
    whole = config.section("global_quant_config")
    if whole is not None:
        groups.append(Group(_quark_format(whole)))
    cache = config.section("kv_cache_quant_config")
    kept = any("fp8" in str(value) for value in cache.data.values()) if cache else False
    return Scheme(tuple(groups), "fp8" if kept else None)


def _quark_format(config: Config) -> Format:
    if not config.has("weight"):
        return WIDE
    weight, inputs = _first_section(config, "weight"), _first_section(config, "input_tensors")
    kind = weight.text("dtype") if weight else ""
    narrow = inputs.text("dtype") if inputs else ""
    group = (weight.optional("group_size", least=-1) if weight else None) or -1
    if weight is not None and kind.startswith("fp8"):
        return Format("fp8", "fp8" if narrow.startswith("fp8") else None)
    if weight is not None and kind in ("fp4", "mxfp4"):
        return Format("mxfp4", "mxfp4" if "fp4" in narrow else "fp8" if narrow.startswith("fp8") else None)
    if weight is not None and kind in ("int4", "uint4"):
        return integers(weight, 4, group, "dtype", "fp8" if narrow.startswith("fp8") else None)
    if weight is not None and kind == "int8":
        return Format("int8", "int8" if narrow == "int8" else None)
    raise config.error("weight", f"has dtype {shown(kind) or 'nothing'}", "use fp8, fp4, int4 or int8, or a YAML model")


def _first_section(config: Config, name: str) -> Config | None:
    value = config.raw(name)[1]
    if isinstance(value, list):
        value = value[0] if value else None
    if value is not None and not isinstance(value, dict):
        raise config.error(name, f"is {told(value)}", "write a mapping")
    return None if value is None else Config(value, config.source, f"{config.prefix}{name}.")


def _kv_scheme(config: Config) -> DataType | None:
    scheme = config.section("kv_cache_scheme")
    if scheme is None:
        return None
    bits, word = scheme.optional("num_bits"), scheme.text("type", default="float")
    kept: dict[tuple[int | None, str], DataType] = {(8, "float"): "fp8", (8, "int"): "int8", (4, "float"): "nvfp4"}
    if (bits, word) not in kept:
        raise scheme.error("num_bits", f"is {told(bits)} of type {shown(word)}", "use 8 bits, or a YAML model")
    return kept[bits, word]


def _kv_algorithm(config: Config) -> DataType | None:
    word = config.text("kv_cache_quant_algo").upper()
    if word in ("", "NONE"):
        return None
    kind = _KV[config.chosen("kv_cache_quant_algo", word, _KV)]
    return kind  # type: ignore[return-value]


METHODS: dict[str, Callable[[Config], Scheme]] = {
    "fp8": _float8,
    "fbgemm_fp8": _float8,
    "mxfp8": _mxfp8,
    "mxfp4": _mxfp4,
    "w4afp8": _w4afp8,
    "gptq": _weight_only,
    "gptq_marlin": _weight_only,
    "gptqmodel": _weight_only,
    "awq": _weight_only,
    "awq_marlin": _weight_only,
    "moe_wna16": _weight_only,
    "auto-round": _weight_only,
    "intel/auto-round": _weight_only,
    "bitsandbytes": _bitsandbytes,
    "modelopt": modelopt,
    "modelopt_fp4": modelopt,
    "modelopt_fp8": modelopt,
    "modelopt_mxfp8": modelopt,
    "modelopt_mixed": modelopt,
    "compressed-tensors": compressed,
    "quark": _quark,
}


def scheme_of(config: Config) -> Scheme:
    """What a `quantization_config` says.

    Raises:
        InputError: its method is not known, or a field of it is wrong.
    """
    known = f"use one of {', '.join(METHODS)}, or describe the model in YAML"
    value: Any = config.raw("quant_method")[1]
    if value is None and config.has("quant_algo", "quantization"):
        value = "modelopt"
    if value is None and config.has("config_groups"):
        value = "compressed-tensors"
    if not isinstance(value, str):
        raise config.error("quant_method", f"is {told(value)}", known)
    method = METHODS.get(value.lower())
    if method is None:
        raise config.error("quant_method", f"{shown(value)} is not known", known)
    scheme = method(config)
    apart = config.text(*OF_EXPERTS).upper()
    return scheme.with_experts(_algorithm(config, apart)) if apart else scheme
