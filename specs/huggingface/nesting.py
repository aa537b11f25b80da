"""Finds the language model in a config: that of a multimodal model nests it, beside its towers."""

from __future__ import annotations

from typing import Any

from specs.documents import shown
from specs.huggingface.fields import LAYERS, Config

#: Where multimodal configs keep the language model's.
NESTED = ("text_config", "language_config", "llm_config", "thinker_config", "language_model_config")
#: Other models of a checkpoint, which are not planned.
_TOWER_WORDS = (
    ("vision_config", "vision tower"),
    ("visual_config", "vision tower"),
    ("audio_config", "audio tower"),
    ("audio_encoder_config", "audio tower"),
    ("talker_config", "talker (speech output)"),
    ("code2wav_config", "code2wav (speech output)"),
    ("video_config", "video tower"),
    ("sound_config", "audio tower"),
)
TOWERS = tuple(field for field, _ in _TOWER_WORDS)
_DEPTH = ("num_hidden_layers", "depth", "vt_num_hidden_layers", "layers", "num_layers", "encoder_layers")
_WIDTH = ("hidden_size", "vt_hidden_size", "width", "embed_dim", "d_model")
_INNER = ("intermediate_size", "vt_intermediate_size", "mlp_dim", "encoder_ffn_dim")


def language_model(config: Config) -> list[Config]:
    """The configs from the outermost to that of the language model, which is last."""
    path = [config]
    while True:
        inner = next(
            (name for name in NESTED if isinstance(path[-1].data.get(name), dict) and path[-1].data[name]), None
        )
        if inner is None or len(path) > len(NESTED):
            return path
        found = path[-1].section(inner)
        if found is None or (path[-1].has(*LAYERS) and not found.has(*LAYERS)):
            return path
        path.append(found)


def towers(configs: list[Config]) -> tuple[str, ...]:
    """What the checkpoint has beside the language model, with the size where its fields give it."""
    found = []
    for config in configs:
        for field, words in _TOWER_WORDS:
            value = config.data.get(field)
            if value and not isinstance(value, bool):
                found.append(words + (_size(value) if isinstance(value, dict) else ""))
    return tuple(dict.fromkeys(found))


def _size(tower: dict[str, Any]) -> str:
    """Parameters of a tower's layers: four square matrices of attention, and two of the inner width."""
    sizes = []
    for names in (_DEPTH, _WIDTH, _INNER):
        value = next((tower[name] for name in names if type(tower.get(name)) is int), None)
        if value is None or not 0 < value < 10**6:
            return ""
        sizes.append(value)
    depth, width, inner = sizes
    return f" (about {depth * (4 * width * width + 2 * width * inner) / 1e9:.2g}B parameters)"


def model_type(configs: list[Config]) -> list[str]:
    """Names of the architecture, the language model's own first: model types, then classes."""
    names: list[str] = []
    for config in reversed(configs):
        value = config.data.get("model_type")
        if isinstance(value, str) and value:
            names.append(value)
        classes = config.data.get("architectures")
        if isinstance(classes, list):
            names.extend(shown(each) for each in classes[:4] if isinstance(each, str))
    return names
