"""A Hugging Face `config.json` of a mixture-of-experts model as a Model.

What the fields mean differs by family: `families/` says it, a small file each. A model type that no family knows is
read only where nothing in its config is unknown, and marked; what can't be represented is refused by its name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from specs.blocks.ffn import Moe
from specs.blocks.run import Block, runs_of
from specs.documents import parse_json, read_text, shown
from specs.errors import InputError
from specs.fields import MAX_LAYERS
from specs.huggingface.architecture import CONTEXT, HIDDEN, VOCABULARY, Architecture, Family, Layer, modules_left_out
from specs.huggingface.families import ALL
from specs.huggingface.families.unknown import read_unknown
from specs.huggingface.fields import Config
from specs.huggingface.nesting import TOWERS, language_model, model_type, towers
from specs.huggingface.parts.experts import EXPERTS
from specs.huggingface.quantization.assign import assign, read_scheme, wide_type
from specs.model import Model
from specs.parameters import count_block
from specs.validation import validate

#: Checkpoints list the modules that they leave unquantized, by the hundred thousand.
MAX_CONFIG_BYTES = 64_000_000
BESIDE = "hf_quant_config.json"
UNKNOWN = "unknown family: check the count"

#: Sections that say nothing of the language model's layers.
_NO_LAYERS = frozenset({"quantization_config", "compression_config", "auto_map", *TOWERS})

#: Fields that only a model with experts has.
_SMELL = re.compile(r"(^|_)(moe|expert)(s?_|s?$)|experts", re.IGNORECASE)


def read_config(path: Path, source: str) -> Model:
    """The model that a `config.json` file describes, named after its folder.

    Args:
        path: the file; `hf_quant_config.json` beside it is read, too.
        source: its name in messages.

    Raises:
        InputError: the file can't be read, or is not of a mixture-of-experts model that can be represented.
    """
    config = parse_json(read_text(path, source, MAX_CONFIG_BYTES), source, finite=False)
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    beside, other = None, path.with_name(BESIDE)
    if path.name == "config.json" and other.is_file():
        where = f"{source.removesuffix('/config.json').rstrip('/')}/{BESIDE}"
        beside = Config(parse_json(read_text(other, where, MAX_CONFIG_BYTES), where, finite=False), where)
    return model_from_config(config, source, name=shown(name, 200) or "model", beside=beside)


def model_from_config(config: dict[str, Any], source: str, name: str, beside: Config | None = None) -> Model:
    """The model that a parsed config describes.

    Args:
        config: the config; that of a multimodal model nests the language model's.
        source: where it comes from, for messages.
        name: the model's name.
        beside: what `hf_quant_config.json` says.

    Raises:
        InputError: as in read_config.
    """
    configs = language_model(Config(config, source))
    language = configs[-1]
    family, word = _family(configs)
    architecture = _unknown(language, word) if family is None else family.read(language)
    if len(architecture.layers) > MAX_LAYERS:
        count = len(architecture.layers)
        raise InputError(source, "", f"has {count} layers; at most {MAX_LAYERS} are planned", "check the layer list")
    if not any(isinstance(layer.ffn, Moe) for layer in architecture.layers):
        raise InputError(source, "", "every layer is dense: this is no mixture-of-experts model", "give one")
    quantization = next(
        (c.section(field) for c in reversed(configs) for field in _QUANTIZATION if c.data.get(field)), None
    )
    scheme = read_scheme(language, quantization, beside, architecture.expert_dtype)
    hidden = language.integer(*HIDDEN)
    wide = wide_type(*reversed(configs))
    layers, types = assign(language, architecture, scheme, wide, hidden)
    tied = [c.flag("tie_word_embeddings") for c in reversed(configs) if c.has("tie_word_embeddings")]
    summary = f"imported from a {shown(word)} config" + (f"; {UNKNOWN}" if family is None else "")
    data: dict[str, Any] = {
        "name": name,
        "summary": summary,
        "hidden": hidden,
        "vocabulary": language.integer(*VOCABULARY),
        "context": language.optional(*CONTEXT),
        "blocks_per_layer": architecture.blocks_per_layer,
        "streams": architecture.streams,
        "tied_embedding": (tied or [architecture.tied])[0],
        "types": types,
        **_blocks(layers),
    }
    model: Model = validate(Model, data, source)
    left_out = (*_next_token(model, architecture.next_token), *architecture.left_out, *towers(configs))
    return model.model_copy(update={"left_out": left_out})


def _unknown(language: Config, word: str) -> Architecture:
    """The architecture of a model type that no family knows; errors say that, too."""
    try:
        return read_unknown(language)
    except InputError as error:
        problem = f"{error.problem} ({shown(word)} is no known model type)"
        raise InputError(error.source, error.field, problem, error.mend) from None


#: The last is written by MLX, whose formats no engine here loads: its method is refused by name.
_QUANTIZATION = ("quantization_config", "compression_config", "quantization")


def _family(configs: list[Config]) -> tuple[Family | None, str]:
    """The family of a config, None for an unknown one, and the model type that says so.

    Raises:
        InputError: the config names no architecture, or a dense one.
    """
    outer, language = configs[0], configs[-1]
    names = model_type(configs)
    if not names:
        raise InputError(
            outer.source, "model_type", "is missing", "name a Hugging Face config.json of a language model"
        )
    word = names[0]
    known = next(((f, name) for name in names for f in ALL if name in f.model_types or name in f.classes), None)
    field, count = language.raw(*EXPERTS)
    smell = "" if count is not None else _smell(language.data)
    if known is not None and (smell or _several(count)):
        return known[0], word if word in known[0].model_types else known[1]
    if _several(count):
        return None, word
    if smell:
        raise InputError(
            outer.source,
            smell,
            f"says that {shown(word)} has experts, in a way that is not known",
            "describe the model in YAML",
        )
    raise InputError(
        outer.source,
        "model_type" if count is None else field,
        f"{shown(word)} is a dense model: its config has no experts",
        "give a mixture-of-experts model",
    )


def _smell(data: dict[str, Any], depth: int = 4) -> str:
    """The dotted name of a field that only a model with experts has, nested ones included; "" without one."""
    for key, value in data.items():
        if _SMELL.search(str(key)) and _some(value):
            return shown(key)
        if isinstance(value, dict) and depth and key not in _NO_LAYERS:
            inner = _smell(value, depth - 1)
            if inner:
                return f"{shown(key)}.{inner}"
    return ""


def _several(count: object) -> bool:
    """Whether a field's value can be a number of experts: not 0 or 1."""
    return isinstance(count, list) or (type(count) is int and count > 1) or isinstance(count, str | float | dict)


def _some(value: object) -> bool:
    """Whether a field's value says that there is something."""
    return value is not None and value is not False and value not in (0, 1, "", [], {})


def _blocks(layers: tuple[Layer, ...]) -> dict[str, Any]:
    """Mixers, feed-forward blocks and runs as fields of Model; what is alike has one name."""
    mixers: dict[str, str] = {}
    ffns: dict[str, str] = {}
    parts: dict[str, dict[str, Any]] = {"mixers": {}, "ffns": {}}
    blocks = []
    for layer in layers:
        mixer = _named(layer.mixer, mixers, parts["mixers"])
        ffn = _named(layer.ffn, ffns, parts["ffns"])
        blocks.append(Block(mixer=mixer, ffn=ffn))
    return {**parts, "blocks": runs_of(blocks)}


def _named(part: Any, names: dict[str, str], parts: dict[str, Any]) -> str | None:
    """The name of a part, a new one where it is the first of its kind."""
    if part is None:
        return None
    key = part.model_dump_json()
    if key not in names:
        stem = _stem(part)
        count = 1 + sum(name.rstrip("_0123456789") == stem.rstrip("_0123456789") for name in names.values())
        names[key] = stem if count == 1 else f"{stem}_{count}"
        parts[names[key]] = part
    return names[key]


def _stem(part: Any) -> str:
    """What a part is called: by what it sees, or by its kind."""
    if getattr(part, "indexer", None) is not None:
        return "sparse"
    if getattr(part, "hash_routed", False):
        return "hash"
    if part.kind == "gqa" and part.window is not None:
        return "chunked" if part.chunked else "sliding"
    if part.kind == "compressed" and not part.ratio:
        return "sliding"
    return "full" if part.kind in ("gqa", "mla") else str(part.kind)


def _next_token(model: Model, modules: int) -> tuple[str, ...]:
    """What is said of next-token-prediction modules: each a layer like the last, and a product of two states."""
    if not modules:
        return ()
    layer = count_block(model, model.layout[-1]).total + (2 * model.hidden + 3) * model.hidden
    each = f"about {layer / 1e9:.3g}B parameters" + (" each" if modules > 1 else "")
    return (f"{modules_left_out(modules)[0]} ({each})",)
