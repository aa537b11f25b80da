"""What a split yields: tokens/s, TTFT and TPOT of aggregated serving, or the time of a training step.

Serving (docs/cost-model.md, "Serving"): an attention rank holds `batch` sequences at all times. A finished sequence is
replaced by a prompt, whose prefill holds up the rank's decoding; all ranks of an instance prefill and decode together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from placement.cost.efficiency import Efficiency, load_efficiency
from placement.cost.passes import decode_context, decode_microbatches, prefill_chunks
from placement.cost.steps import LayerTimes, PassModel
from placement.cost.training import TrainingStep, training_step
from placement.cost.training_constants import load_training
from placement.errors import InputError
from placement.split import Split
from specs.schema import Scenario, ServingWorkload


@dataclass(frozen=True)
class MoeTimes:
    """Seconds of one MoE layer (mean over MoE layers) as placement.cost.moe_layer scores it; None: balanced estimate.

    Attributes:
        prefill_s: scored at layer_rates(..., "prefill").
        decode_s: scored at layer_rates(..., "decode").
        train_s: the forward pass, scored at layer_rates(..., "train").
    """

    prefill_s: float | None = None
    decode_s: float | None = None
    train_s: float | None = None


@dataclass(frozen=True)
class StepPart:
    """One part of a step: seconds over all layers of the model."""

    name: str
    seconds: float


@dataclass(frozen=True)
class FigureProvenance:
    """Where a figure comes from: "roofline", "calibrated" or "measured"; and how its MoE layers were timed."""

    figure: str
    provenance: str
    moe_layer: str


@dataclass(frozen=True)
class Prediction:
    """Predicted figures of a split.

    Attributes:
        tokens_per_s: of the whole cluster: output tokens in serving, trained tokens in training.
        tokens_per_s_per_gpu: over all GPUs of the cluster, idle ones too.
        ttft_s, tpot_s: of a request (serving; else None).
        decode_step_s, prefill_s: one token of every sequence; a prompt's share of a rank's time (serving; else None).
        step: the training step (else None).
        breakdown: parts of a decode step (serving) or of a microbatch's forward pass (training), all layers together.
        prefill_breakdown: parts of a prompt's prefill (serving; else empty).
    """

    tokens_per_s: float
    tokens_per_s_per_gpu: float
    ttft_s: float | None
    tpot_s: float | None
    decode_step_s: float | None
    prefill_s: float | None
    step: TrainingStep | None
    breakdown: tuple[StepPart, ...]
    prefill_breakdown: tuple[StepPart, ...]
    provenance: tuple[FigureProvenance, ...]


@dataclass(frozen=True)
class ServingPoint:
    """One batch of a serving split, in seconds; tokens_per_s of one attention rank."""

    decode_step_s: float
    prefill_s: float
    ttft_s: float
    tpot_s: float
    tokens_per_s: float


class ServingModel:
    """Serving figures of one split's degrees for any batch; immutable after construction.

    `at(batch).tokens_per_s`, `tpot_s` and `ttft_s` never fall as the batch grows: every part's time is a constant, or
    saturates, or grows in proportion. The split solver relies on it.
    """

    def __init__(
        self,
        scenario: Scenario,
        workload: ServingWorkload,
        split: Split,
        moe: MoeTimes | None = None,
        efficiency: Efficiency | None = None,
        passes: PassModel | None = None,
    ) -> None:
        """`passes` is the split's timing model, where the caller has it at hand."""
        self.workload, self.split, self.moe = workload, split, moe or MoeTimes()
        self.efficiency = efficiency or load_efficiency()
        self.passes = passes or PassModel(scenario, split, self.efficiency)
        self.context = decode_context(workload)
        self.chunks = prefill_chunks(workload, split.tp)
        self.prefill_times = self._prefill_times()
        stages_s, slowest_s = self.passes.stage_seconds(self.prefill_times)
        overhead = self.efficiency.prefill_overhead_s.value
        #: Latency of a prompt through the stages, and what it takes from each rank's time, in seconds.
        self.prompt_latency_s = stages_s + (self.chunks - 1) * slowest_s + overhead
        self.prefill_s = self.chunks * slowest_s + overhead

    def decode_times(self, batch: int) -> LayerTimes:
        """Parts of a decode step of one microbatch."""
        sequences = batch / decode_microbatches(self.split.pp, batch)
        return self.passes.decode(sequences, self.context, self.moe.decode_s)

    def at(self, batch: int) -> ServingPoint:
        """Figures with `batch` sequences per attention rank."""
        stages_s, slowest_s = self.passes.stage_seconds(self.decode_times(batch))
        in_flight = decode_microbatches(self.split.pp, batch)
        # A microbatch returns to the first stage after all stages, or once the slowest has served all microbatches.
        step = max(stages_s, in_flight * slowest_s) + self.efficiency.step_overhead_s.value
        osl, prefill = self.workload.osl, self.prefill_s
        tpot = step + batch * prefill / osl
        # Prompts ahead in the queue: the mean wait of random arrivals (M/D/1, busy batch x prefill of each cycle),
        # and half of a bunch that arrives together.
        waiting = batch * prefill * prefill / (2 * osl * step)
        waiting += self.efficiency.arrival_bunching.value * (batch - 1) / 2 * prefill
        return ServingPoint(
            decode_step_s=step,
            prefill_s=prefill,
            ttft_s=step / 2 + waiting + self.prompt_latency_s,
            tpot_s=tpot,
            tokens_per_s=batch / tpot,
        )

    def batch_bound(self, least_step_s: float, ttft_s: float, tpot_s: float) -> int:
        """No batch above this meets the objectives: of the time that grows with it, only prefills are counted.

        `least_step_s` is the decode step of a single sequence.
        """
        spare = (tpot_s - least_step_s) * self.workload.osl / self.prefill_s
        together = self.efficiency.arrival_bunching.value * self.prefill_s / 2
        queue = 1 + (ttft_s - self.prompt_latency_s) / together if together > 0 else spare
        return max(1, math.floor(min(spare, queue)) + 1)

    def _prefill_times(self) -> LayerTimes:
        workload, split = self.workload, self.split
        tokens = workload.isl / self.chunks
        moe_s = self.moe.prefill_s
        if moe_s is not None:
            # Scored for a full chunk; a shorter pass takes its share, as the balanced estimate says.
            full = workload.prefill_tokens_per_gpu * split.tp
            moe_s *= self.passes.moe_s(tokens) / self.passes.moe_s(full)
        return self.passes.prompt(tokens, workload.isl, 1 / self.chunks, moe_s)


def breakdown_of(times: LayerTimes, passes: PassModel, repeats: float) -> tuple[StepPart, ...]:
    """Parts of `repeats` passes over all stages, largest uses apart; they sum to repeats x the sum over stages."""
    model = passes.scenario.model
    count = {
        name: sum(number * getattr(shape, name) for shape, number in passes.stages)
        for name in ("full", "sliding", "dense", "moe")
    }
    layers = model.layers
    parts = (
        ("attention projections", layers * times.projections),
        ("attention core", count["full"] * times.core_full + count["sliding"] * times.core_sliding),
        ("router", count["moe"] * times.router),
        ("shared experts", count["moe"] * times.shared),
        ("dense FFN", count["dense"] * times.dense_ffn),
        ("MoE layers", count["moe"] * times.moe),
        (
            "tensor-parallel collectives",
            count["moe"] * times.moe_collectives + count["dense"] * times.dense_collectives,
        ),
        ("stage transfers", (passes.split.pp - 1) * times.transfer),
        ("output head", times.head),
        ("launches and element-wise", layers * times.overhead),
    )
    return tuple(StepPart(name, repeats * seconds) for name, seconds in parts)


def predict(
    scenario: Scenario, split: Split, moe: MoeTimes | None = None, efficiency: Efficiency | None = None
) -> Prediction:
    """Predicted figures of a split.

    Args:
        moe: MoE-layer times of a placement; what is None is estimated with balanced routing.

    Raises:
        InputError: the split's training batch does not make up the workload's global batch, or the GPU states no rate
            for a data type.
    """
    constants = efficiency or load_efficiency()
    workload, times = scenario.workload, moe or MoeTimes()
    if workload.kind == "training":
        if split.batch * split.dp * split.instances != workload.global_batch:
            raise InputError(
                scenario.name, "batch",
                f"batch x dp x instances = {split.batch * split.dp * split.instances} is not global_batch "
                f"{workload.global_batch}", "choose degrees that divide it",
            )  # fmt: skip
        step, passes, parts = training_step(scenario, workload, split, times.train_s, constants)
        rate = workload.global_batch * workload.sequence / step.step_s
        return Prediction(
            rate, rate / scenario.cluster.gpus, None, None, None, None, step, breakdown_of(parts, passes, 1.0), (),
            tuple(
                # Training has constants of its own.
                replace(_provenance(figure, constants, times.train_s), provenance=load_training().provenance)
                for figure in ("step_s", "tokens_per_s")
            ),
        )  # fmt: skip
    model = ServingModel(scenario, workload, split, times, constants)
    point = model.at(split.batch)
    rate = point.tokens_per_s * split.dp * split.instances
    return Prediction(
        tokens_per_s=rate,
        tokens_per_s_per_gpu=rate / scenario.cluster.gpus,
        ttft_s=point.ttft_s,
        tpot_s=point.tpot_s,
        decode_step_s=point.decode_step_s,
        prefill_s=point.prefill_s,
        step=None,
        breakdown=breakdown_of(model.decode_times(split.batch), model.passes, 1.0),
        prefill_breakdown=breakdown_of(model.prefill_times, model.passes, model.chunks),
        provenance=(
            _provenance("ttft_s", constants, times.prefill_s),
            _provenance("tpot_s", constants, times.prefill_s, times.decode_s),
            _provenance("tokens_per_s", constants, times.prefill_s, times.decode_s),
        ),
    )


def _provenance(figure: str, constants: Efficiency, *moe: float | None) -> FigureProvenance:
    scored = sum(time is not None for time in moe)
    kind = "scored placement" if scored == len(moe) else "balanced estimate" if scored == 0 else "partly scored"
    return FigureProvenance(figure, constants.provenance, kind)
