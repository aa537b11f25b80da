"""GLM-4.5 to 4.7, and models of the same shape: dots.llm1, Solar Open, Sarvam."""

from __future__ import annotations

from functools import partial

from specs.huggingface.architecture import Architecture, Family, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import gqa, windows
from specs.huggingface.parts.experts import first_dense, mixed, moe


def _glm4(
    config: Config, dense: int = 1, bias: bool = False, norm: str = "head", sliding: bool = False
) -> Architecture:
    """Grouped queries, experts after the first layers, a router with a correction.

    Args:
        config: the config.
        dense: dense layers where the config does not say.
        bias: of query, key and value projections, likewise.
        norm: of queries and keys, likewise.
        sliding: layers after `max_window_layers` slide.
    """
    layers = config.layers()
    norm = "head" if config.flag("use_qk_norm", default=bool(norm)) else ""
    seen = windows(config, layers) if sliding and config.has("max_window_layers") else [None] * layers
    mixers = [gqa(config, bias=bias, output_bias=False, qk_norm=norm, window=each) for each in seen]
    ffns = mixed(config, moe(config, router_bias=True), first_dense(config, layers, dense), layers)
    return Architecture(stack(mixers, ffns), next_token=next_token_modules(config))


FAMILIES = (
    Family(("glm4_moe", "glm4v_moe", "glm4v_moe_text"), partial(_glm4, norm=""), ("Glm4MoeForCausalLM",)),
    Family(("dots1",), partial(_glm4, dense=0, sliding=True), ("Dots1ForCausalLM",)),
    Family(("solar_open",), partial(_glm4, dense=0, norm=""), ("SolarOpenForCausalLM",)),
    Family(("sarvam_moe",), _glm4, ("SarvamMoEForCausalLM",)),
)
