"""Feed-forward blocks: dense, and mixtures of experts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.blocks.base import Weight
from specs.fields import DataType, Experts, Flag, Spec, TopK, Width

Optional = Annotated[int, Field(ge=0, le=65_536, strict=True)]


def ffn_elements(hidden: int, width: int, gated: bool) -> int:
    """Elements of the up- and down-projection, and of the gate where there is one."""
    return (3 if gated else 2) * hidden * width


class DenseFfn(Spec):
    """A feed-forward block that every token passes through."""

    kind: Literal["dense"]
    """Which kind of block this is."""
    width: Width
    """Width of the hidden layer."""
    gated: Flag = True
    """Three matrices (gate, up, down), as in SwiGLU, or two."""
    bias: Flag = False
    """Bias of the projections."""
    types: dict[str, DataType] = Field(default_factory=dict)
    """Data types that differ from the model's dense type: of "ffn"."""

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        """Every tensor but the layer norm before the block."""
        return (
            Weight("ffn", ffn_elements(hidden, self.width, self.gated)),
            Weight("bias", (1 + self.gated) * self.width * self.bias, plain=True),
            Weight("bias", hidden * self.bias, 1, plain=True),
        )

    def tp_problem(self, tp: int) -> str:
        """Why the width can't be shared by `tp` GPUs; "" where it can."""
        return f"tp {tp} does not divide dense_width {self.width}" if self.width % tp else ""

    @property
    def inner_width(self) -> int:
        """Width of what every token passes through."""
        return self.width


class Moe(Spec):
    """The mixture-of-experts feed-forward block."""

    kind: Literal["moe"] = "moe"
    """Which kind of block this is."""
    experts: Experts
    """Routed experts."""
    top_k: TopK
    """Experts that a token is routed to."""
    expert_width: Width
    """Width of a routed expert."""
    shared_experts: Annotated[int, Field(ge=0, le=1_024, strict=True)] = 0
    """Experts that every token passes through."""
    shared_width: Width | None = None
    """Width of one shared expert; expert_width where it is not given."""
    groups: Experts = 1
    """Groups that the router limits its choice to."""
    top_groups: Experts = 1
    """Groups that one token may choose from."""
    gated: Flag = True
    """Three matrices (gate, up, down), as in SwiGLU, or two; dense layers alike."""
    bias: Flag = False
    """Bias of the experts' projections."""
    router_bias: Flag = False
    """Bias of the router, or its load-balancing correction."""
    shared_gate: Flag = False
    """A learned scalar gate on the shared expert's output."""
    latent: Width | None = None
    """Width that routed experts work on, between two projections of the layer (latent experts): what is sent."""
    zero_experts: Optional = 0
    """Experts that compute nothing (LongCat): the router may choose them among its top_k; nothing is sent for them."""
    hash_routed: Flag = False
    """A token's experts are looked up by its id instead of scored (DeepSeek-V4's first layers)."""
    types: dict[str, DataType] = Field(default_factory=dict)
    """Data types that differ from the model's: of "experts", "shared", "latent"."""

    @model_validator(mode="after")
    def _choice_is_possible(self) -> Moe:
        if self.top_k > self.experts + self.zero_experts:
            raise ValueError(f"top_k {self.top_k} is more than experts {self.experts}; lower top_k or raise experts")
        if self.experts % self.groups:
            raise ValueError(f"experts {self.experts} is not a multiple of groups {self.groups}; change one of them")
        if self.top_groups > self.groups:
            raise ValueError(f"top_groups {self.top_groups} is more than groups {self.groups}; lower top_groups")
        reachable = self.experts // self.groups * self.top_groups + self.zero_experts
        if self.top_k > reachable:
            raise ValueError(
                f"top_k {self.top_k} is more than the {reachable} experts of top_groups {self.top_groups}; "
                "lower top_k or raise top_groups"
            )
        return self

    @property
    def computed_top_k(self) -> int:
        """Experts of a token that compute something, on average, rounded: zero-compute ones take their even share."""
        if not self.zero_experts:
            return self.top_k
        return max(1, round(self.top_k * self.experts / (self.experts + self.zero_experts)))

    @property
    def all_shared_width(self) -> int:
        """Width of all shared experts together."""
        return self.shared_experts * (self.shared_width or self.expert_width)

    @property
    def inner_width(self) -> int:
        """Width of what every token passes through."""
        return self.all_shared_width

    def sent_width(self, hidden: int) -> int:
        """Elements of a token that are sent to an expert and back."""
        return self.latent or hidden

    def expert_elements(self, hidden: int) -> int:
        """Elements of one routed expert."""
        width = self.sent_width(hidden)
        bias = ((1 + self.gated) * self.expert_width + width) * self.bias
        return ffn_elements(width, self.expert_width, self.gated) + bias

    def router_weights(self, hidden: int) -> tuple[Weight, ...]:
        """The router, whole on every GPU."""
        outputs = self.experts + self.zero_experts
        return (Weight("router", outputs * (hidden + self.router_bias), 1, plain=True),)

    def shared_weights(self, hidden: int) -> tuple[Weight, ...]:
        """Shared experts with their gate, and the projections to and from the latent width."""
        shared = ffn_elements(hidden, self.all_shared_width, self.gated)
        gate = hidden * (self.shared_gate and shared > 0)
        return (
            Weight("shared", shared),
            Weight("shared_gate", gate, 1, plain=True),
            Weight("latent", 2 * hidden * (self.latent or 0), 1),
        )

    def tp_problem(self, tp: int) -> str:
        """Why the shared experts can't be shared by `tp` GPUs; "" where they can."""
        width = self.all_shared_width
        return f"tp {tp} does not divide the shared experts' width {width}" if width % tp else ""
