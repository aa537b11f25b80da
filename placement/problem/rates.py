"""What work and bytes cost in one MoE layer, for one kind of passes or several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class PassKind:
    """One kind of passes among those that LayerRates stand for.

    Attributes:
        share: of the passes; sums to 1 over the kinds.
        tokens: tokens of such a pass over those of the mean pass; 1 in the mean over the passes.
    """

    share: float
    tokens: float


#: Passes that are all of one kind.
ALIKE = (PassKind(1.0, 1.0),)


@dataclass(frozen=True)
class LayerRates:
    """What work and bytes cost in one MoE layer, in SI units; built by placement.cost from a scenario.

    A slot with n tokens takes max((1 - exp(-n)) * weight_s, n * token_s): reading its weights once if it is touched
    (the chance of it, for a Poisson count of mean n), or multiplying n tokens.

    Passes may be of several `kinds`, whose routing is the same: `tokens_per_gpu` is the mean over them, and a layer's
    time is the mean of its times in each.
    """

    tokens_per_gpu: float
    weight_s: float
    token_s: float
    dispatch_bytes: float
    combine_bytes: float
    fast_bytes_per_s: float
    slow_bytes_per_s: float
    fast_latency_s: float
    slow_latency_s: float
    overlap: Literal["none", "two_batch"] = "none"
    kinds: tuple[PassKind, ...] = ALIKE

    @property
    def both_bytes(self) -> float:
        """Bytes of one message, dispatch and combine together."""
        return self.dispatch_bytes + self.combine_bytes

    def together(self, gpus: int) -> LayerRates:
        """Prices of one GPU that is as strong as `gpus` of them, with their tokens and slow links."""
        return replace(
            self, tokens_per_gpu=self.tokens_per_gpu * gpus, weight_s=self.weight_s / gpus,
            token_s=self.token_s / gpus, slow_bytes_per_s=self.slow_bytes_per_s * gpus,
        )  # fmt: skip

    def of_kind(self, kind: PassKind) -> LayerRates:
        """Prices of passes of one kind alone."""
        return replace(self, tokens_per_gpu=self.tokens_per_gpu * kind.tokens, kinds=ALIKE)
