"""What a family's reader returns: the model's blocks, one by one, and where each lies in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from specs.blocks.ffn import DenseFfn, Moe
from specs.blocks.run import AnyMixer
from specs.huggingface.fields import Config

Mixer = AnyMixer
Ffn = DenseFfn | Moe

HIDDEN = ("hidden_size", "d_model", "n_embd")
VOCABULARY = ("vocab_size", "padded_vocab_size")
CONTEXT = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "seq_length", "model_max_length")


@dataclass(frozen=True)
class Layer:
    """One block of a model.

    Attributes:
        index: the checkpoint's index of its layer.
        mixer, ffn: its parts.
        mixer_path, ffn_path, shared_path: modules that they may be inside the layer; quantization names them.
    """

    index: int
    mixer: Mixer | None
    ffn: Ffn | None
    mixer_path: str = "self_attn"
    ffn_path: str = "mlp"
    shared_path: str = ""


@dataclass(frozen=True)
class Architecture:
    """A model but its data types.

    Attributes:
        layers: every block in order.
        blocks_per_layer, streams: as in Model.
        tied: whether the head is the embedding's matrix where the config does not say.
        next_token: next-token-prediction modules of one layer each, like the model's last layer.
        left_out: other parts of the checkpoint that are not planned.
        expert_dtype: of the experts in a quantized checkpoint, where the config does not say: fp4, or "" as the rest.
        unquantized: weights (`Weight.name`) that engines keep as they are, whatever the checkpoint's statement covers.
    """

    layers: tuple[Layer, ...]
    blocks_per_layer: int = 1
    streams: int = 1
    tied: bool = False
    next_token: int = 0
    left_out: tuple[str, ...] = ()
    expert_dtype: str = ""
    unquantized: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """How the configs of some model types are read.

    Attributes:
        model_types: values of `model_type`.
        read: the reader.
        classes: names in `architectures`, for configs that lack the model type.
    """

    model_types: tuple[str, ...]
    read: Callable[[Config], Architecture]
    classes: tuple[str, ...] = ()


def stack(
    mixers: Sequence[Mixer | None],
    ffns: Sequence[Ffn | None],
    *,
    mixer_path: str = "self_attn",
    ffn_path: str = "mlp",
    shared_path: str = "",
) -> tuple[Layer, ...]:
    """Layers of one mixer and one feed-forward block each."""
    return tuple(
        Layer(i, mixer, ffn, mixer_path, ffn_path, shared_path)
        for i, (mixer, ffn) in enumerate(zip(mixers, ffns, strict=True))
    )


def modules_left_out(count: int) -> tuple[str, ...]:
    """What is said of next-token-prediction modules that are not like the model's last layer."""
    return (f"{count} next-token-prediction module{'s' if count > 1 else ''}",) if count else ()


def next_token_modules(config: Config) -> int:
    """How many next-token-prediction modules the checkpoint has."""
    return config.optional("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", least=0) or 0
