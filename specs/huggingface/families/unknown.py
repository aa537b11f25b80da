"""Model types that no family knows: read where every field has a known meaning, refused by name where not.

A field that is not known may change the architecture, so a guess could be wrong without a word. What is read here is
the common decoder: grouped queries or latent attention, the usual experts, dense first layers.
"""

from __future__ import annotations

import re

from specs.huggingface.architecture import CONTEXT, HIDDEN, VOCABULARY, Architecture, Mixer, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import KV_HEADS, gqa, layer_kinds, mla, windows
from specs.huggingface.parts.experts import EXPERTS, corrected, first_dense, mixed, moe, step_dense

#: Fields that say nothing of sizes: how the model is initialized, sampled, rotated, trained, shown or stored.
_SILENT = re.compile(
    r"""(_.*|architectures|auto_map|model_type|transformers_version|torch_dtype|dtype|quantization_config
    |tie_word_embeddings|.*dropout.*|.*_token_ids?|.*_token|.*_eps|.*epsilon|initializer.*|init_.*|hidden_act.*
    |.*rope.*|rotary.*|partial_rotary.*|position_embedding_type|use_cache|return_dict.*|output_.*
    |router_aux_loss_coef|.*aux_loss.*|router_jitter_noise|.*z_loss.*|seq_aux|norm_topk_prob|scoring_func
    |score_func.*|score_function|topk_method|routed_scaling_factor|route_scale|moe_router_.*|router_.*|ep_size
    |pretraining_tp|attn_implementation|id2label|label2id|problem_type|is_decoder|is_encoder_decoder|pruned_heads
    |add_cross_attention|cross_attention_hidden_size|bad_words_ids|begin_suppress_tokens|chunk_size_feed_forward
    |diversity_penalty|do_sample|early_stopping|.*ngram_size|exponential_decay_length_penalty|finetuning_task
    |length_penalty|max_length|min_length|num_beam.*|num_return_sequences|prefix|remove_invalid_values
    |repetition_penalty|suppress_tokens|task_specific_params|temperature|tf_legacy_loss|tie_encoder_decoder
    |tokenizer_class|top_k|top_p|torchscript|typical_p|use_bfloat16|ignore_index|logits_.*|final_logit.*|.*softcap.*
    |embedding_multiplier|residual_multiplier|attention_multiplier|mup.*|use_rms_?norm|norm_type|qk_head_dim
    |(vision|visual|video|image|audio|mm|projector|talker|sound)_.*|max_window_layers|use_sliding_window|name_or_path|summary.*|gradient_checkpointing|clip_qkv|unsloth.*)""",
    re.VERBOSE,
)


def read_unknown(config: Config) -> Architecture:
    """The common decoder.

    Raises:
        InputError: a field that has no known meaning.
    """
    layers = config.layers()
    norm = "head" if config.flag("use_qk_norm", "qk_norm") else ""
    latent = config.has("kv_lora_rank")
    kinds = layer_kinds(config, layers)
    if kinds is not None and "linear" in kinds:
        raise config.error("layer_types", "names layers whose fields are not known", "describe the model in YAML")
    if latent:
        mixers: list[Mixer] = [mla(config)] * layers
    else:
        usual = None if config.flag("use_sliding_window", default=True) else ["full"] * layers
        mixers = [gqa(config, qk_norm=norm, window=each) for each in windows(config, layers, usual)]
    experts = moe(config, router_bias=corrected(config, ""))
    plain = first_dense(config, layers) | step_dense(config, layers)
    ffns = mixed(config, experts, plain, layers)
    architecture = Architecture(stack(mixers, ffns), next_token=next_token_modules(config))
    if latent:
        config.has("head_dim", *KV_HEADS)  # Latent attention has no use for them.
    config.has(*HIDDEN, *VOCABULARY, *CONTEXT, *EXPERTS, "intermediate_size")
    for name, value in config.data.items():
        if name not in config.used and value not in (None, False, 0, [], {}, "") and not _SILENT.fullmatch(name):
            raise config.error(
                name, "is not a field that a model of an unknown family is read by", "describe the model in YAML"
            )
    return architecture
