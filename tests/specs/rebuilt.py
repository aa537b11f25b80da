"""Configs rebuilt from the fields that say sizes, of published models of each family, with their published counts.

Sources: the models' cards and reports.
"""

from __future__ import annotations

from typing import Any

from specs.huggingface.config import model_from_config
from specs.model import Model


def gqa(hidden: int, layers: int, heads: int, kv: int, dim: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    """The usual fields, in the order of most cards."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": dim,
        "vocab_size": vocabulary,
        **more,
    }


def mla(hidden: int, layers: int, heads: int, q_rank: int | None, vocabulary: int, **more: Any) -> dict[str, Any]:
    """As gqa, with DeepSeek's latent attention of its usual widths."""
    usual = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "q_lora_rank": q_rank,
        "vocab_size": vocabulary,
        **usual,
        **more,
    }


def experts(count: int, top_k: int, width: int, dense_width: int = 0, shared: int = 0, **more: Any) -> dict[str, Any]:
    """Fields of experts, as DeepSeek names them."""
    return {
        "n_routed_experts": count,
        "num_experts_per_tok": top_k,
        "moe_intermediate_size": width,
        "intermediate_size": dense_width or width,
        "n_shared_experts": shared,
        **more,
    }


_KDA = {"num_heads": 32, "head_dim": 128, "short_conv_kernel_size": 4}
_KIMI_FULL = [4, 8, 12, 16, 20, 24, 27]

#: (model type, config, total, active) of published models, in billions.
PUBLISHED: list[tuple[str, dict[str, Any], float, float | None]] = [
    ("mixtral", gqa(6144, 56, 48, 8, 128, 32768, num_local_experts=8, num_experts_per_tok=2, intermediate_size=16384),
     141, 39),
    ("flex_olmo", gqa(4096, 32, 32, 32, 128, 100352, num_experts=7, num_experts_per_tok=5, intermediate_size=11008),
     33, None),
    ("grok-2", gqa(8192, 64, 64, 8, 128, 131072, num_local_experts=8, num_experts_per_tok=2, residual_moe=True,
                    intermediate_size=32768, moe_intermediate_size=16384), 270, None),
    ("arctic", gqa(7168, 35, 56, 8, 128, 32000, num_local_experts=128, num_experts_per_tok=2, intermediate_size=4864,
                    moe_layer_frequency=1, parallel_attn_mlp_res=True), 480, 17),
    ("aria_text", gqa(2560, 28, 20, 20, 128, 100352, moe_num_experts=64, moe_topk=6, moe_num_shared_experts=2,
                       intermediate_size=1664), 24.9, 3.9),
    ("glm4_moe", gqa(5120, 92, 96, 8, 128, 151552, attention_bias=True, use_qk_norm=True, first_k_dense_replace=3,
                      **experts(160, 8, 1536, 12288, 1)), 355, 32),
    ("glm4_moe_lite", mla(2048, 47, 20, 768, 154880, first_k_dense_replace=1, **experts(64, 4, 1536, 10240, 1))
     | {"qk_nope_head_dim": 192, "v_head_dim": 256}, 30, None),
    ("deepseek_v2", mla(5120, 60, 128, 1536, 102400, first_k_dense_replace=1, **experts(160, 6, 1536, 12288, 2)),
     236, 21),
    ("deepseek_v3", mla(7168, 61, 128, 1536, 131072, first_k_dense_replace=3, **experts(128, 4, 4096, 16384, 1)),
     673, 39),
    ("pangu_ultra_moe", mla(7680, 61, 128, 1536, 153600, first_k_dense_replace=3, **experts(256, 8, 2048, 18432, 1)),
     718, 39),
    ("AXK1", mla(7168, 61, 64, 1536, 163840, **experts(192, 8, 2048, 18432, 1)), 519, 33),
    ("sarvam_mla", mla(4096, 32, 64, None, 262144, first_k_dense_replace=1, **experts(128, 8, 2048, 16384, 1)),
     105, None),
    ("sarvam_moe", gqa(4096, 19, 64, 4, 64, 262144, first_k_dense_replace=1, **experts(128, 6, 1024, 8192, 1)),
     32, 2.4),
    ("mistral4", mla(4096, 36, 32, 1024, 131072, **experts(128, 4, 2048, 12288, 1))
     | {"kv_lora_rank": 256, "qk_nope_head_dim": 64}, 119, 6.5),
    ("solar_open", gqa(4096, 48, 64, 8, 128, 196608, **experts(128, 8, 1280, 10240, 1)), 102, 12),
    ("hy_v3", gqa(4096, 80, 64, 8, 128, 120832, num_experts=192, num_experts_per_tok=8, num_shared_experts=1,
                   expert_hidden_dim=1536, intermediate_size=13312, first_k_dense_replace=1), 295, 21),
    # The card's 100B is 103B in the checkpoint.
    ("bailing_moe_v2", gqa(4096, 32, 32, 4, 128, 157184, first_k_dense_replace=1, use_qk_norm=True,
                            **experts(256, 8, 1024, 9216, 1)), 103, 6.1),
    ("bailing_moe_linear", gqa(4096, 32, 32, 4, 128, 157184, first_k_dense_replace=1, use_qk_norm=True,
                                layer_group_size=8, **experts(256, 8, 1024, 9216, 1)), 104, 6.4),
    ("exaone_moe", gqa(6144, 48, 64, 8, 128, 153600, first_k_dense_replace=1, sliding_window=128,
                        sliding_window_pattern="LLLG", **experts(128, 8, 2048, 18432, 1)), 236, 23),
    ("afmoe", gqa(2048, 32, 32, 4, 128, 200192, num_dense_layers=2, sliding_window=2048,
                   **experts(128, 8, 1024, 6144, 1)), 26, 3),
    ("ernie4_5_moe", gqa(8192, 54, 64, 8, 128, 103424, moe_num_experts=64, moe_k=8, moe_intermediate_size=3584,
                          intermediate_size=28672, moe_layer_start_index=3, moe_layer_end_index=53), 300, 47),
    ("llama4_text", gqa(5120, 48, 40, 8, 128, 202048, num_local_experts=16, num_experts_per_tok=1,
                         intermediate_size=8192, intermediate_size_mlp=16384, attention_chunk_size=8192), 109, 17),
    ("minimax_text_01", gqa(6144, 80, 64, 8, 128, 200064, num_local_experts=32, num_experts_per_tok=2,
                             intermediate_size=9216, attn_type_list=([0] * 7 + [1]) * 10), 456, 45.9),
    ("jamba", gqa(8192, 72, 64, 8, 128, 65536, num_experts=16, num_experts_per_tok=2, intermediate_size=24576),
     398, 94),
    ("lfm2_moe", gqa(2048, 24, 32, 8, 64, 65536, num_experts=32, num_experts_per_tok=4, intermediate_size=7168,
                      moe_intermediate_size=1792, num_dense_layers=2,
                      layer_types=(["conv"] * 3 + ["full_attention"]) * 6), 8.3, 1.5),
    ("granitemoe", gqa(1536, 32, 24, 8, 64, 49155, num_local_experts=40, num_experts_per_tok=8, intermediate_size=512,
                        tie_word_embeddings=True), 3.3, 0.8),
    ("kimi_linear", mla(2304, 27, 32, None, 163840, num_experts=256, num_experts_per_token=8, num_shared_experts=1,
                         moe_intermediate_size=1024, intermediate_size=9216, first_k_dense_replace=1,
                         linear_attn_config=_KDA | {"full_attn_layers": _KIMI_FULL,
                                                    "kda_layers": sorted({*range(1, 28)} - {*_KIMI_FULL})}), 48, 3),
    ("deepseek_v4", {"hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128, "head_dim": 512,
                     "q_lora_rank": 1536, "o_groups": 16, "o_lora_rank": 1024, "index_n_heads": 64,
                     "index_head_dim": 128, "index_topk": 1024, "vocab_size": 129280, "sliding_window": 128,
                     "compress_ratios": [128, 128] + [4, 128] * 29 + [4], "num_hash_layers": 3, "hc_mult": 4,
                     **experts(384, 6, 3072, 0, 1)}, 1600, 49),
    ("step3_text", gqa(7168, 61, 64, 1, 256, 128815, share_q_dim=2048, moe_num_experts=48, moe_top_k=3,
                        moe_intermediate_size=5120, intermediate_size=18432, share_expert_dim=5120,
                        moe_layers_enum=",".join(map(str, range(4, 60)))), 316, 38),
]  # fmt: skip


def read(model_type: str, config: dict[str, Any], **changes: Any) -> Model:
    """The model of a config of that type, with other fields."""
    return model_from_config({"model_type": model_type, **config, **changes}, "config.json", model_type)
