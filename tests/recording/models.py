"""Random models of a few thousand weights, saved as transformers saves them, with a tokenizer of bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIZES = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 260, "max_position_embeddings": 128,
}  # fmt: skip
#: name -> (transformers' class, its fields, MoE layers, experts, top-k).
MODELS: dict[str, tuple[str, dict[str, Any], tuple[int, ...], int, int]] = {
    "gpt_oss": (
        "GptOssConfig",
        {"num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 8, "layer_types": ["full_attention"] * 3},
        (0, 1, 2), 8, 2,
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "head_dim": 8,
         "mlp_only_layers": [1]},
        (0, 2), 8, 3,
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1,
         "moe_intermediate_size": 16, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
         "qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4, "n_shared_experts": 1},
        (1, 2), 8, 2,
    ),
    "olmoe": ("OlmoeConfig", {"num_experts": 8, "num_experts_per_tok": 4}, (0, 1, 2), 8, 4),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}, (0, 1, 2), 4, 2),
    "glm4_moe": (
        "Glm4MoeConfig",
        {"n_routed_experts": 6, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 2,
         "moe_intermediate_size": 16, "head_dim": 8},
        (2,), 6, 2,
    ),
    "qwen3_next": (
        "Qwen3NextConfig",
        {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8,
         "shared_expert_intermediate_size": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
         "linear_num_key_heads": 2, "linear_num_value_heads": 4,
         "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
        (0, 1, 2), 8, 2,
    ),
}  # fmt: skip


def save_model(name: str, folder: Path, **changed: Any) -> Path:
    """Writes the model `name`, with fields changed, into a folder."""
    import torch
    import transformers

    kind, fields, *_ = MODELS[name]
    config = getattr(transformers, kind)(**{**SIZES, **fields, **changed})
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Wide enough for routers to tell tokens apart: of the default weights all logits are about 0.
            parameter.normal_(0, 0.3)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A token a byte."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
