"""What a split yields: tokens/s, TTFT and TPOT of aggregated serving, or the time of a training step.

Serving (docs/cost-model.md, "Serving"): an attention rank holds `batch` sequences at all times. A finished sequence is
replaced by a prompt, whose prefill holds up the rank's decoding. Prompts that arrive together share prefill passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from placement.cost.calibration.efficiency import FITTED, Efficiency
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.calibration.intervals import Figure as IntervalOf
from placement.cost.calibration.intervals import Interval, interval_of
from placement.cost.step.pass_times import LayerTimes, PassModel
from placement.cost.step.passes import decode_context, decode_microbatches
from placement.cost.step.speculation import Drafting
from placement.cost.training.constants import load_training
from placement.cost.training.step import TrainingStep, training_step
from placement.errors import InputError
from placement.problem.engine_rules import prefill_tokens
from placement.problem.pieces import count_kinds
from placement.problem.split import Split
from specs.scenario import Scenario
from specs.workload import ServingWorkload


@dataclass(frozen=True)
class MoeTimes:
    """Seconds of one MoE layer (mean over MoE layers) as placement.cost.layer.score scores it; None: balanced estimate.

    Attributes:
        prefill_s: scored at layer_rates(..., "prefill").
        decode_s: scored at layer_rates(..., "decode").
        train_s: the forward pass, scored at layer_rates(..., "train").
        prefill_ratio, decode_ratio: where seconds are None, times the balanced estimate at any number of tokens.
    """

    prefill_s: float | None = None
    decode_s: float | None = None
    train_s: float | None = None
    prefill_ratio: float = 1.0
    decode_ratio: float = 1.0


@dataclass(frozen=True)
class StepPart:
    """One part of a step: seconds over all layers of the model."""

    name: str
    seconds: float


@dataclass(frozen=True)
class FigureProvenance:
    """Where a figure comes from (cost.calibration.efficiency.Provenance), and how its MoE layers were timed.

    Attributes:
        interval: factors of the figure, where measurements tell how far it may be off.
    """

    figure: str
    provenance: str
    moe_layer: str
    interval: Interval | None = None


@dataclass(frozen=True)
class Prediction:
    """Predicted figures of a split.

    Attributes:
        tokens_per_s: of the whole cluster: output tokens in serving, trained tokens in training.
        tokens_per_s_per_gpu: over all GPUs of the cluster, idle ones too.
        ttft_s, tpot_s: of a request (serving; else None).
        decode_step_s, prefill_s: one token of every sequence on average; a prompt's share of the time that prefills
            take from a rank's decoding (serving; else None).
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
    """One batch of a serving split, in seconds; tokens_per_s of one attention rank.

    Attributes:
        prefill_s: a prompt's share of the time that prefills take from the rank's decoding.
    """

    decode_step_s: float
    prefill_s: float
    ttft_s: float
    tpot_s: float
    tokens_per_s: float


@dataclass(frozen=True)
class Bunch:
    """Prompts of an attention rank that arrive together: how many, their passes, and the tokens of one pass."""

    prompts: float
    passes: float
    tokens: float


@dataclass(frozen=True)
class PrefillPass:
    """One prefill pass of an attention rank: seconds over all stages, and of the slowest with its overhead."""

    stages_s: float
    slowest_s: float


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
        self.efficiency = constants = efficiency or efficiency_of(scenario)
        self.passes = passes or PassModel(scenario, split, constants)
        self.context = decode_context(workload)
        told = workload.speculation
        #: Draft passes of speculative decoding.
        self.drafting = None if told is None else Drafting(self.passes, workload, told)
        #: Most tokens of an attention rank in one prefill pass, and passes that one prompt fills.
        self.budget = prefill_tokens(scenario, workload, split.tp)
        self.prompt_passes = max(1.0, workload.computed_tokens / self.budget)
        #: Seconds of a prompt outside the passes.
        self.first_token_s = constants.first_token_s.value
        self.first_token_s += constants.first_token_launch_s.value * self.passes.launches
        #: Least seconds of a decode step's GPU part: what its launches take the host, where no graph is captured.
        self.launch_s = 0.0
        if not scenario.engine.cuda_graphs:
            launched = scenario.model.layers + (0 if self.drafting is None else self.drafting.layers)
            self.launch_s = launched * constants.launch_layer_s.value
        #: How much longer prefills take, and prompts wait, since the other attention ranks have theirs.
        others = 1.0 - 1.0 / split.dp
        self.stall = 1.0 + constants.rank_stall.value * others
        self.wait = 1.0 + constants.rank_wait.value * others
        #: A pass of `budget` tokens.
        self.full_pass = self.prefill_pass(self.budget)

    def decode_times(self, batch: int) -> LayerTimes:
        """Parts of a decode step of one microbatch, drafts apart."""
        sequences, moe_s = batch / decode_microbatches(self.split.pp, batch), self.moe.decode_s
        each = self.workload.step_tokens
        if moe_s is None and self.moe.decode_ratio != 1.0:
            moe_s = self.moe.decode_ratio * self.passes.moe_s(sequences * each, "decode")
        return self.passes.decode(sequences, self.context, moe_s, each)

    def draft_s(self, batch: int) -> float:
        """Draft passes of a decode step of one microbatch, in the last stage."""
        if self.drafting is None:
            return 0.0
        sequences, ratio = batch / decode_microbatches(self.split.pp, batch), self.moe.decode_ratio
        if self.moe.decode_s is not None:
            ratio = self.moe.decode_s / self.passes.moe_s(sequences * self.workload.step_tokens, "decode")
        return self.drafting.step_s(sequences, self.context, ratio)

    def step_s(self, batch: int) -> float:
        """Seconds of a decode step, after which every sequence has `ServingWorkload.step_yield` tokens more.

        A microbatch returns to the first stage after all stages, or once the slowest has served all microbatches.
        """
        stages_s, slowest_s = self.passes.stage_seconds(self.decode_times(batch))
        in_flight, drafted = decode_microbatches(self.split.pp, batch), self.draft_s(batch)
        constants = self.efficiency
        host_s = constants.step_overhead_s.value + batch * constants.sequence_overhead_s.value
        gpus_s = max(stages_s + drafted, in_flight * (slowest_s + drafted))
        return max(gpus_s, self.launch_s) + host_s

    def decode_step_s(self, batch: int) -> float:
        """Seconds in which every sequence gets a token, on average."""
        return self.step_s(batch) / self.workload.step_yield

    def bunch(self, batch: int) -> Bunch:
        """The prompts that arrive together with `batch` sequences per attention rank."""
        prompts = 1.0 + self.efficiency.arrival_bunching.value * (batch - 1)
        tokens = prompts * self.workload.computed_tokens
        return Bunch(prompts, max(1.0, tokens / self.budget), min(tokens, self.budget))

    def prefill_pass(self, tokens: float) -> PrefillPass:
        """A pass of `tokens`, at most `budget`."""
        stages_s, slowest_s = self.passes.stage_seconds(self.prefill_times(tokens))
        if self.drafting is not None:
            drafted = self.drafting.prefill_s(tokens)
            stages_s, slowest_s = stages_s + drafted, slowest_s + drafted
        share, overhead = self.efficiency.prefill_time.value, self.efficiency.prefill_overhead_s.value
        return PrefillPass(share * stages_s + overhead, share * slowest_s + overhead)

    def at(self, batch: int) -> ServingPoint:
        """Figures with `batch` sequences per attention rank.

        Prompts arrive in bunches and fill passes of at most `budget` tokens; the first of a bunch is done after its own
        passes, the last after all, and on average a prompt waits for half of what lies between.
        """
        whole, bunch = self.step_s(batch), self.bunch(batch)
        step = whole / self.workload.step_yield
        one = self.full_pass if bunch.tokens >= self.budget else self.prefill_pass(bunch.tokens)
        prefill = bunch.passes * one.slowest_s * self.stall / bunch.prompts
        tpot = step + batch * prefill / self.workload.osl
        passed = one.stages_s + ((self.prompt_passes + bunch.passes) / 2 - 1) * one.slowest_s
        return ServingPoint(
            decode_step_s=step,
            prefill_s=prefill,
            ttft_s=(self.first_token_s + whole / 2 + passed) * self.wait,
            tpot_s=tpot,
            tokens_per_s=batch / tpot,
        )

    def prefill_times(self, tokens: float) -> LayerTimes:
        """Parts of a prefill pass of `tokens`."""
        workload, moe_s = self.workload, self.moe.prefill_s
        if moe_s is not None:
            # Scored for a full pass; a shorter one takes its share, as the balanced estimate says.
            moe_s *= self.passes.moe_s(tokens) / self.passes.moe_s(self.budget)
        elif self.moe.prefill_ratio != 1.0:
            moe_s = self.moe.prefill_ratio * self.passes.moe_s(tokens)
        prompts = tokens / workload.computed_tokens
        return self.passes.prompt(tokens, workload.isl, prompts, moe_s, workload.cached_tokens)


def breakdown_of(times: LayerTimes, passes: PassModel, repeats: float) -> tuple[StepPart, ...]:
    """Parts of `repeats` passes over all stages, largest uses apart; they sum to repeats x the sum over stages."""
    counts = count_kinds(passes.scenario.model, range(passes.scenario.model.layers))
    parts = (
        ("attention projections", times.part("projections", counts)),
        ("attention core", times.part("core", counts)),
        ("router", times.part("router", counts)),
        ("shared experts", times.part("shared", counts)),
        ("dense FFN", times.part("dense", counts)),
        ("MoE layers", times.part("moe", counts)),
        ("tensor-parallel collectives", times.part("collectives", counts)),
        ("stage transfers", (passes.split.pp - 1) * times.transfer),
        ("output head", times.head),
        ("launches and element-wise", times.part("overhead", counts)),
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
    constants = efficiency or efficiency_of(scenario)
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
        known = load_training().provenance_on(scenario.cluster.least_gpu.generation)
        return Prediction(
            rate, rate / scenario.cluster.gpus, None, None, None, None, step, breakdown_of(parts, passes, 1.0), (),
            tuple(
                # Training has constants of its own.
                replace(_provenance(figure, constants, times.train_s), provenance=known)
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
        breakdown=decode_parts(model, split.batch),
        prefill_breakdown=prefill_parts(model),
        provenance=(
            *figure_provenance(scenario, split, constants, ("ttft_s",), times.prefill_s),
            *figure_provenance(scenario, split, constants, ("tpot_s", "tokens_per_s"), times.prefill_s, times.decode_s),
        ),
    )


def decode_parts(model: ServingModel, batch: int) -> tuple[StepPart, ...]:
    """Parts of a decode step."""
    return (*breakdown_of(model.decode_times(batch), model.passes, 1.0), *_drafted(model, model.draft_s(batch)))


def prefill_parts(model: ServingModel) -> tuple[StepPart, ...]:
    """Parts of a prompt's prefill."""
    tokens, repeats = min(model.workload.computed_tokens, model.budget), model.prompt_passes
    repeats *= model.efficiency.prefill_time.value
    parts = breakdown_of(model.prefill_times(tokens), model.passes, repeats)
    return (*parts, *_drafted(model, 0.0 if model.drafting is None else repeats * model.drafting.prefill_s(tokens)))


def _drafted(model: ServingModel, seconds: float) -> tuple[StepPart, ...]:
    return () if model.drafting is None else (StepPart("draft passes", seconds),)


#: Times that intervals are of.
_TIMES: Mapping[str, IntervalOf] = {"ttft_s": "ttft", "tpot_s": "tpot"}


def figure_provenance(
    scenario: Scenario, split: Split, constants: Efficiency, figures: Sequence[str], *moe: float | None
) -> tuple[FigureProvenance, ...]:
    """Where figures of serving come from that hang on MoE-layer times, those that are None by the balanced estimate.

    Tokens/s are as uncertain as TPOT, and of prefill alone as published rates are.
    """
    if constants.provenance not in FITTED:
        return tuple(_provenance(figure, constants, *moe) for figure in figures)
    rate: IntervalOf = "tpot" if "tpot_s" in figures else "rate"
    times = {figure: interval_of(scenario, _TIMES.get(figure, rate), split.batch) for figure in figures}
    told = {name: one if one is None or name in _TIMES else one.of_rate() for name, one in times.items()}
    return tuple(replace(_provenance(figure, constants, *moe), interval=told[figure]) for figure in figures)


def _provenance(figure: str, constants: Efficiency, *moe: float | None) -> FigureProvenance:
    scored = sum(time is not None for time in moe)
    kind = "scored placement" if scored == len(moe) else "balanced estimate" if scored == 0 else "partly scored"
    return FigureProvenance(figure, constants.provenance, kind)
