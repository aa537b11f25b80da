"""gpt-oss: sinks, biases everywhere, every second layer with a window."""

from __future__ import annotations

from specs.huggingface.architecture import Architecture, Family, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import every, gqa, windows
from specs.huggingface.parts.experts import mixed, moe


def _gpt_oss(config: Config) -> Architecture:
    layers = config.layers()
    mixers = [gqa(config, bias=True, sinks=True, window=each) for each in windows(config, layers, every(2, layers))]
    return Architecture(stack(mixers, mixed(config, moe(config, bias=True, router_bias=True), set(), layers)))


FAMILIES = (Family(("gpt_oss",), _gpt_oss, ("GptOssForCausalLM",)),)
