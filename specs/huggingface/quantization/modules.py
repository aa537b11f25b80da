"""Where the weights of a block lie in a checkpoint: the paths by which quantization names them.

Implementations name the same projection differently, and fuse some; each weight has all the names that are in use,
and a list that contains one of them means the weight.
"""

from __future__ import annotations

from specs.blocks.ffn import Moe
from specs.huggingface.architecture import Layer

#: Module names of each weight (`Weight.name`) of a mixer; others are their own name. A fused name that contains another
#: (qkv_proj: v_proj) is left out: it would match expressions that mean the other.
_MIXER: dict[str, tuple[str, ...]] = {
    "q_proj": ("q_proj", "query_key_value", "wq", "Wqkv"),
    "k_proj": ("k_proj", "query_key_value", "wk", "Wqkv"),
    "v_proj": ("v_proj", "query_key_value", "wv", "Wqkv"),
    "qkv_proj": ("qkv_proj", "query_key_value", "q_proj", "k_proj", "v_proj"),
    "o_proj": ("o_proj", "out_proj", "dense", "wo"),
    "out_proj": ("out_proj", "o_proj"),
    # Qwen3-Next keeps the gate in the query projection.
    "gate_proj": ("gate_proj", "g_proj", "g_b_proj", "output_gate", "q_proj"),
    "q_a_proj": ("q_a_proj", "wq_a"),
    "q_b_proj": ("q_b_proj", "wq_b", "q_proj"),
    "kv_a_proj": ("kv_a_proj_with_mqa", "kv_a_proj", "wkv_a"),
    "kv_b_proj": ("kv_b_proj", "wkv_b"),
    "kv_proj": ("kv_proj", "wkv"),
    "o_a_proj": ("o_a_proj", "wo_a"),
    "o_b_proj": ("o_b_proj", "wo_b"),
    "indexer.q_proj": ("indexer.wq_b", "indexer.q_proj", "index_q_proj", "indexer.q_b_proj"),
    "indexer.k_proj": ("indexer.wk", "indexer.k_proj", "index_k_proj"),
    # The last is how one toolkit writes the same name.
    "indexer.weights_proj": ("indexer.weights_proj", "indexers_proj"),
    "in_proj": ("in_proj", "in_proj_qkvz", "in_proj_qkv", "in_proj_z"),
    "decay_proj": ("in_proj_ba", "in_proj_a", "in_proj_b"),
    "forget_a_proj": ("f_a_proj",),
    "forget_b_proj": ("f_b_proj", "f_proj"),
    "beta_proj": ("b_proj",),
    "gate_a_proj": ("g_a_proj",),
}
#: Names with `gate` are left out: lists that mean the router (`*mlp.gate*`) would match them.
_FFN = ("up_proj", "down_proj", "w1", "w2", "w3")
_EXPERTS = ("up_proj", "down_proj", "w1", "w2", "w3", "linear_fc1")
_SHARED = ("shared_experts", "shared_expert", "shared_mlp", "share_expert")
_LATENT = ("fc1_latent_proj", "fc2_latent_proj", "routed_expert_down_proj", "routed_expert_up_proj")


def mixer_paths(layer: Layer, weight: str) -> list[str]:
    """Paths of a mixer's weight."""
    return _under(layer, layer.mixer_path, _MIXER.get(weight, (weight,)))


def ffn_paths(layer: Layer, weight: str) -> list[str]:
    """Paths of a weight of the feed-forward block: ffn, experts, shared or latent."""
    if not isinstance(layer.ffn, Moe):
        return _under(layer, layer.ffn_path, _FFN)
    if weight == "experts":
        # Of the routed experts, which are alike, the first; and the module that holds them all.
        names = [f"experts.0.{name}" for name in _EXPERTS]
        return _under(layer, layer.ffn_path, ("experts", "experts.gate_up_proj", "experts.down_proj", *names))
    if weight == "latent":
        return _under(layer, layer.ffn_path, _LATENT)
    if layer.shared_path:
        return _under(layer, layer.shared_path, _FFN)
    return _under(layer, layer.ffn_path, [f"{shared}.{name}" for shared in _SHARED for name in _FFN])


def _under(layer: Layer, path: str, names: list[str] | tuple[str, ...]) -> list[str]:
    """Paths of modules inside a layer; `path` may name several places, divided by a bar."""
    places = [f"layers.{layer.index}.{place}." if place else f"layers.{layer.index}." for place in path.split("|")]
    return [place + name for place in places for name in names]
