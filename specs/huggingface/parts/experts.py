"""Feed-forward blocks of a config: experts, dense layers, and which layer has which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specs.blocks.ffn import DenseFfn, Moe
from specs.huggingface.fields import Config

EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "num_routed_experts", "moe_num_experts")
TOP_K = (
    "num_experts_per_tok",
    "experts_per_token",
    "num_experts_per_token",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k_experts",
    "num_selected_experts",
)
WIDTH = ("moe_intermediate_size", "expert_ffn_hidden_size", "ffn_hidden_size", "intermediate_size")
SHARED = (
    "n_shared_experts",
    "num_shared_experts",
    "num_shared_expert",
    "moe_num_shared_experts",
    "moe_num_shared_expert",
)
SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "share_expert_dim",
    "shared_intermediate_size",
)
GROUPS = ("n_group", "num_expert_group", "n_expert_groups", "num_expert_groups")
TOP_GROUPS = ("topk_group", "topk_groups", "num_limited_groups", "n_limited_groups")


def moe(config: Config, **changes: Any) -> Moe:
    """The experts.

    Args:
        config: the config.
        **changes: fields of Moe, which win over the config.
    """
    values: dict[str, Any] = {
        "groups": config.optional(*GROUPS, least=0) or 1,
        "top_groups": config.optional(*TOP_GROUPS, least=0) or 1,
    }
    for field, names in (("experts", EXPERTS), ("top_k", TOP_K), ("expert_width", WIDTH)):
        if field not in changes:
            values[field] = config.integer(*names)
    if "shared_width" not in changes:
        values["shared_width"] = config.optional(*SHARED_WIDTH, least=0) or None
    if "shared_experts" not in changes:
        values["shared_experts"] = config.optional(*SHARED, least=0) or int(bool(values.get("shared_width")))
    values |= changes
    if not values["shared_experts"]:
        values["shared_width"], values["shared_gate"] = None, False
    return config.build(Moe, config.raw(*EXPERTS)[0], **values)


def corrected(config: Config, default: str = "noaux_tc") -> bool:
    """Whether the router has DeepSeek-V3's load-balancing correction (a bias of each expert)."""
    return config.text("topk_method", default=default) == "noaux_tc"


def dense(config: Config, *names: str, **changes: Any) -> DenseFfn:
    """A dense block; `names` are of its width's field."""
    names = names or ("intermediate_size", "ffn_hidden_size")
    values: dict[str, Any] = {"kind": "dense", **changes}
    if "width" not in values:
        values["width"] = config.integer(*names)
    return config.build(DenseFfn, names[0], **values)


def mixed(config: Config, experts: Moe | Sequence[Moe], dense_layers: set[int], layers: int, *names: str) -> list[Any]:
    """[layers] dense blocks in `dense_layers`, experts elsewhere.

    Args:
        config: the config.
        experts: of every layer, or [layers] of each.
        dense_layers: indices.
        layers: how many.
        *names: of the dense width's field, if not the usual ones.
    """
    each = [experts] * layers if isinstance(experts, Moe) else experts
    plain = dense(config, *names, gated=each[-1].gated) if any(i < layers for i in dense_layers) else None
    return [plain if i in dense_layers else each[i] for i in range(layers)]


def first_dense(config: Config, layers: int, default: int = 0) -> set[int]:
    """DeepSeek's rule: the first layers are dense, and those that `moe_layer_freq` does not divide.

    `mlp_layer_types`, or a list in `moe_layer_freq`, names every layer.
    """
    words = config.kinds("mlp_layer_types", layers=layers)
    if words is not None:
        for word in words:
            config.chosen("mlp_layer_types", word, ("dense", "sparse", "moe"))
        return {i for i, word in enumerate(words) if word == "dense"}
    if isinstance(config.raw("moe_layer_freq")[1], list):
        return {i for i, has in enumerate(config.by_layer("moe_layer_freq", layers=layers)) if not has}
    first = config.optional("first_k_dense_replace", "num_dense_layers", least=0)
    step = config.integer("moe_layer_freq", "moe_layer_frequency", default=1)
    first = default if first is None else first
    return {i for i in range(layers) if i < first or i % step}


def step_dense(config: Config, layers: int) -> set[int]:
    """Qwen's rule: `mlp_only_layers`, and those that `decoder_sparse_step` leaves out."""
    only = set(config.integers("mlp_only_layers"))
    step = config.integer("decoder_sparse_step", default=1)
    return {i for i in range(layers) if i in only or (i + 1) % step}
