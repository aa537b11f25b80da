"""Prices of the passes of aggregated serving: prefill and decode, each as often as it holds up an output token."""

from __future__ import annotations

from dataclasses import replace

from placement.cost.layer.scenario_rates import default_tokens_per_rank, layer_rates
from placement.cost.step.throughput import MoeTimes, ServingModel
from placement.problem.engine_rules import message_rule
from placement.problem.rates import LayerRates, PassKind
from placement.problem.split import Split
from specs.blocks.run import Block
from specs.engine import MessageRule
from specs.scenario import Scenario
from specs.workload import Phase, PlannedPhase

#: Relative change of a phase's MoE seconds that its weight in TPOT is taken from.
STEP = 1e-3


def planned_rates(scenario: Scenario, split: Split, phase: PlannedPhase, block: Block | None = None) -> LayerRates:
    """The prices of one MoE layer of a kind (None: Model.moe_block) in the phase that is planned for.

    "serving" stands for prefill and decode together.

    Passes of "serving" are as frequent as they hold up an output token: a phase's share is the derivative of TPOT by
    its MoE layer's seconds, at balanced routing, over the sum of both. So a layer's mean pass times that sum is what
    the layer takes of TPOT, and at a given batch the least time is the most tokens/s.

    Raises:
        InputError: see layer_rates.
    """
    if phase != "serving":
        return layer_rates(scenario, split, phase, block=block)
    workload = scenario.workload
    if workload.kind != "serving":
        raise ValueError(f"phase {phase} of a {workload.kind} workload")
    decode, prefill = (layer_rates(scenario, split, each, block=block) for each in ("decode", "prefill"))
    model = ServingModel(scenario, workload, split)
    passes = model.passes
    decode_s = passes.moe_s(split.batch / split.microbatches * workload.step_tokens, "decode")
    prefill_s = passes.moe_s(model.budget)

    def tpot_s(decode: float = 1.0, prefill: float = 1.0) -> float:
        moe = MoeTimes(prefill_s=prefill * prefill_s, decode_s=decode * decode_s)
        return ServingModel(scenario, workload, split, moe, passes=passes).at(split.batch).tpot_s

    held_up = (
        (tpot_s(decode=1 + STEP) - tpot_s()) / decode_s,
        (tpot_s(prefill=1 + STEP) - tpot_s()) / prefill_s,
    )
    if sum(held_up) <= 0.0:
        # Pipeline stages without MoE layers are the slowest in both.
        return decode
    if held_up[0] <= 0.0:
        # Decode steps wait for something else, such as launches without CUDA graphs.
        return prefill
    shares = [each / sum(held_up) for each in held_up]
    tokens = [decode.tokens_per_gpu, prefill.tokens_per_gpu]
    mean = sum(share * count for share, count in zip(shares, tokens, strict=True))
    kinds = tuple(PassKind(share, count / mean) for share, count in zip(shares, tokens, strict=True))
    return replace(decode, tokens_per_gpu=mean, kinds=kinds)


def planned_rule(scenario: Scenario, split: Split, phase: PlannedPhase, rates: LayerRates) -> MessageRule:
    """The message rule that a phase is planned under.

    One placement serves the passes of "serving". Where their rules differ, that of the passes with the most tokens, and
    so the most bytes, stands for both; the figures of each phase are scored under its own.

    Args:
        scenario, split, phase: What is planned.
        rates: Its prices by `planned_rates`.
    """
    if phase != "serving":
        return message_rule(scenario, split, phase)
    phases: tuple[Phase, ...] = ("decode", "prefill")
    if len(rates.kinds) == 1 and rates.tokens_per_gpu == default_tokens_per_rank(scenario, split, "prefill"):
        phases = ("prefill",)
    heaviest = max(range(len(rates.kinds)), key=lambda i: rates.kinds[i].share * rates.kinds[i].tokens)
    return message_rule(scenario, split, phases[heaviest])
