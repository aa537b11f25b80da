"""A workload: requests to serve under objectives, or a training step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from specs.fields import (
    Count,
    Name,
    Positive,
    Spec,
    Text,
    Tokens,
)
from specs.speculation import Speculation

Phase = Literal["prefill", "decode", "train"]


#: What a plan is made for: one phase, or those of aggregated serving together.
PlannedPhase = Literal["serving", "prefill", "decode", "train"]


#: Order in which a stage runs the passes of its microbatches (docs/cost-model.md, "Training").
Schedule = Literal["gpipe", "1f1b", "interleaved", "zb_h1", "dualpipe", "dualpipe_v"]


#: What of a layer's activations is computed again in the backward pass.
Recompute = Literal["none", "selective", "full"]


class ServingWorkload(Spec):
    """Requests of ISL input and OSL output tokens, under service-level objectives."""

    kind: Literal["serving"]
    """Requests are served."""
    name: Name
    """What it is called on screens and in plans."""
    summary: Text = ""
    """One line about it."""
    isl: Tokens
    """Input tokens of a request."""
    osl: Tokens
    """Output tokens of a request."""
    ttft_ms: Positive
    """Objective: time to the first token, at most."""
    tpot_ms: Positive
    """Objective: time for each further token, at most."""
    prefill_tokens_per_gpu: Count = 4096
    """Tokens in flight when expert placement is priced in prefill: a chunk."""
    decode_tokens_per_gpu: Count = 128
    """Tokens in flight when expert placement is priced in decode: a batch."""
    chunk_tokens: Tokens | None = None
    """Most tokens of an attention rank in a prefill pass; unset: prefill_tokens_per_gpu of each of its GPUs, as far as
    the engine's default goes."""
    prefix_hit: Annotated[float, Field(ge=0, le=0.999, allow_inf_nan=False, strict=True)] = 0.0
    """Share of a request's input tokens that lie in the prefix cache already."""
    speculation: Speculation | None = None
    """Speculative decoding; unset: one token of each sequence in a step."""

    @property
    def step_tokens(self) -> int:
        """Tokens of a sequence that a decode step works on: the next one, and those drafted."""
        return 1 if self.speculation is None else 1 + self.speculation.draft

    @property
    def step_yield(self) -> float:
        """Tokens that a sequence gains by a decode step, on average."""
        return 1.0 if self.speculation is None else 1.0 + self.speculation.mean_accepted

    @property
    def cached_tokens(self) -> float:
        """Input tokens of a request whose KV cache is there already."""
        return self.isl * self.prefix_hit

    @property
    def computed_tokens(self) -> float:
        """Input tokens of a request that prefill works on."""
        return self.isl - self.cached_tokens


class TrainingWorkload(Spec):
    """A training step."""

    kind: Literal["training"]
    """A model is trained."""
    name: Name
    """What it is called on screens and in plans."""
    summary: Text = ""
    """One line about it."""
    global_batch: Annotated[Count, Field(json_schema_extra={"unit": "sequences"})]
    """Batch of an optimizer step, over all GPUs."""
    sequence: Tokens
    """Length of a sequence."""
    microbatch: Annotated[Count, Field(json_schema_extra={"unit": "sequences"})] = 1
    """Batch of one pass through a stage."""
    optimizer_bytes_per_parameter: Positive = 12.0
    """Optimizer state and master weights (Adam with an fp32 master: 12)."""
    gradient_bytes_per_parameter: Positive = 4.0
    """Gradients."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What data-parallel ranks share out: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too."""
    recompute: Recompute | Literal["auto"] = "full"
    """What of a layer's activations is computed again in the backward pass; auto: chosen for each layer under HBM, at
    the least time."""
    schedule: Schedule = "1f1b"
    """Order in which a stage runs the passes of its microbatches."""
    chunks: Annotated[int, Field(ge=2, le=64, strict=True)] = 2
    """Model chunks of a stage under the interleaved schedule."""


Workload = Annotated[ServingWorkload | TrainingWorkload, Field(discriminator="kind")]
