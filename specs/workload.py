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
)

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
    name: Name
    summary: Text = ""
    isl: Count
    osl: Count
    ttft_ms: Positive
    tpot_ms: Positive
    #: Tokens in flight per GPU when expert placement is priced: a prefill chunk, and a decode batch.
    prefill_tokens_per_gpu: Count = 4096
    decode_tokens_per_gpu: Count = 128


class TrainingWorkload(Spec):
    """A training step."""

    kind: Literal["training"]
    name: Name
    summary: Text = ""
    global_batch: Count
    sequence: Count
    microbatch: Count = 1
    #: Bytes per parameter of optimizer state and master weights (Adam with fp32 master: 12).
    optimizer_bytes_per_parameter: Positive = 12.0
    gradient_bytes_per_parameter: Positive = 4.0
    zero_stage: Literal[0, 1, 2, 3] = 1
    #: "auto": chosen for each layer under HBM, at the least time.
    recompute: Recompute | Literal["auto"] = "full"
    schedule: Schedule = "1f1b"
    #: Model chunks of a stage under the interleaved schedule.
    chunks: Annotated[int, Field(ge=2, le=64, strict=True)] = 2


Workload = Annotated[ServingWorkload | TrainingWorkload, Field(discriminator="kind")]
