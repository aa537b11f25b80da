"""Draft passes of speculative decoding: what they add to a decode step and to a prefill pass, in seconds.

A step verifies what was drafted: every sequence brings `step_tokens` tokens, which share one reading of its KV cache.
Then the draft runs once for each token of the next step: first over all tokens just verified, then token by token.
"""

from __future__ import annotations

from placement.cost.memory.draft import draft_kv_bytes, joined_parameters
from placement.cost.step.collectives import all_gather_s
from placement.cost.step.compute import Product
from placement.cost.step.pass_times import WIDE_BYTES, PassModel
from specs.speculation import Speculation
from specs.workload import ServingWorkload


class Drafting:
    """Draft passes under one split; immutable after construction."""

    def __init__(self, passes: PassModel, workload: ServingWorkload, told: Speculation) -> None:
        self.passes, self.workload, self.told = passes, workload, told
        model, roofline, tp = passes.scenario.model, passes.roofline, passes.split.tp
        if told.parameters_b is not None:
            self._product = Product.of(roofline, told.parameters_b * 1e9 / tp, told.type)
        else:
            self._product = Product.of(roofline, joined_parameters(model), roofline.wide)

    def step_s(self, sequences: float, context: float, moe_ratio: float) -> float:
        """Seconds of a step's draft passes for `sequences` of an attention rank.

        Args:
            context: Stored tokens of a sequence.
            moe_ratio: Seconds of the placed experts over those of the balanced estimate.
        """
        if self.told.method == "ngram":
            return 0.0
        verified = sequences * self.workload.step_tokens
        first = self._pass_s(verified, sequences, context, moe_ratio)
        return first + (self.told.draft - 1) * self._pass_s(sequences, sequences, context, moe_ratio)

    def prefill_s(self, tokens: float) -> float:
        """Seconds of the draft in a prefill pass of `tokens`: it keeps a KV cache of the prompt, too."""
        if self.told.method == "ngram":
            return 0.0
        if self.told.method != "mtp":
            return self._product.seconds(tokens) + self._around_s(tokens)
        passes, workload = self.passes, self.workload
        times = passes.prompt(tokens, workload.isl, 0.0, cached=workload.cached_tokens)
        return times.blocks[self._last].seconds + self._product.seconds(tokens)

    @property
    def layers(self) -> int:
        """Layers that draft passes of a step launch."""
        if self.told.method == "ngram":
            return 0
        return self.told.draft * (1 if self.told.method == "mtp" else self.told.layers)

    def _pass_s(self, tokens: float, sequences: float, context: float, moe_ratio: float) -> float:
        """One draft pass of `tokens` of so many sequences, each of which samples one token."""
        if self.told.method == "mtp":
            moe_s = moe_ratio * self.passes.moe_s(tokens, "decode")
            times = self.passes.decode(sequences, context, moe_s, tokens / sequences, head_tokens=sequences)
            return times.blocks[self._last].seconds + times.head + self._product.seconds(tokens)
        kept = draft_kv_bytes(self.passes.scenario, context, self.passes.split.tp)
        core = sequences * kept / self.passes.roofline.kv_bytes_per_s
        return self._product.seconds(tokens) + core + self._around_s(tokens)

    def _around_s(self, tokens: float) -> float:
        """Launches and tensor-parallel collectives of a trained head or smaller model, taken as wide as the model."""
        passes = self.passes
        state = tokens * passes.scenario.model.hidden * WIDE_BYTES
        gathers = 4 * all_gather_s(passes.scenario.cluster, passes.efficiency, passes.split.tp, state)
        return self.told.layers * (passes.efficiency.layer_overhead_s.value + gathers)

    @property
    def _last(self) -> int:
        return self.passes.scenario.model.kind_of_layer[-1]
