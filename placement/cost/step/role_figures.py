"""Predicted figures of a plan's role: all of its instances together."""

from __future__ import annotations

from dataclasses import replace

from placement.cost.memory.hbm import MemoryModel
from placement.cost.step.roles import decode_point, prefill_at, prefill_point
from placement.cost.step.throughput import (
    MoeTimes,
    Prediction,
    ServingModel,
    decode_parts,
    figure_provenance,
    predict,
    prefill_parts,
)
from placement.problem.engine_rules import most_sequences
from placement.problem.split import Split
from specs.scenario import Scenario


def predict_role(
    scenario: Scenario,
    role: str,
    split: Split,
    moe: MoeTimes | None = None,
    *,
    cp: int = 1,
    requests_per_s: float | None = None,
) -> Prediction:
    """Predicted figures of all instances of a role.

    Args:
        scenario: As the role has it (Scenario.of_role).
        role: "aggregated", "training", "prefill" or "decode".
        split: Degrees, batch and number of instances.
        moe: MoE-layer times of a placement; what is None is estimated with balanced routing.
        cp: Attention ranks that share a prompt in prefill.
        requests_per_s: That an instance is given in prefill; None: as many as TTFT allows.

    Raises:
        InputError: See `predict`.
    """
    workload = scenario.workload
    if role not in ("prefill", "decode") or workload.kind != "serving":
        return predict(scenario, split, moe)
    times = moe or MoeTimes()
    model = ServingModel(scenario, workload, split, times)
    constants, gpus = model.efficiency, scenario.cluster.gpus
    if role == "decode":
        point = decode_point(model, split.batch)
        rate = point.requests_per_s * workload.osl * split.instances
        parts = decode_parts(model, split.batch)
        known = figure_provenance(scenario, split, constants, ("tpot_s", "tokens_per_s"), times.decode_s)
        return Prediction(rate, rate / gpus, None, point.tpot_s, point.tpot_s, None, None, parts, (), known)
    limit = workload.ttft_ms * 1e-3
    if requests_per_s is None:
        least = prefill_point(model, limit, cp)
        served = 0.0 if least is None else least.requests_per_s
    else:
        served = requests_per_s
    point = prefill_at(model, served, cp)
    rate = point.requests_per_s * workload.osl * split.instances
    known = figure_provenance(scenario, split, constants, ("ttft_s", "tokens_per_s"), times.prefill_s)
    parts = prefill_parts(model)
    return Prediction(rate, rate / gpus, point.ttft_s, None, None, None, None, parts, parts, known)


def at_batch(split: Split, batch: int) -> Split:
    """A serving split with another batch."""
    return replace(split, batch=batch, microbatches=min(split.pp, batch))


#: Relative changes that a stake is taken from.
_STEP = 1e-3


def moe_stake(scenario: Scenario, role: str, split: Split, cp: int = 1) -> float:
    """Share of tokens/s that a share of the MoE layers' time is worth, at balanced routing: 0.1 says that layers 10%
    quicker serve 1% more.

    A quicker layer serves the batch sooner, or takes a larger batch in the same time. The larger of both counts, if
    HBM, the engine and the pins have room for a larger one. It may be above 1: where a prompt's time is near the TTFT,
    what is left to wait rules, and where sequences cost less than the layers do, so does the batch.
    Training is not told apart: 1.

    Args:
        scenario: As the role has it. role, split, cp: See `predict_role`.
    """
    if scenario.workload.kind != "serving":
        return 1.0

    def seconds(ratio: float = 1.0, batch: float = 1.0) -> float:
        """Of a request, in instances that work all the time."""
        moe = MoeTimes(prefill_ratio=ratio, decode_ratio=ratio)
        at = at_batch(split, max(1, round(split.batch * batch)))
        made = predict_role(scenario, role, at, moe, cp=cp)
        return at.batch / made.tokens_per_s if made.tokens_per_s > 0 else 0.0

    whole = seconds()
    if whole <= 0:
        return 1.0
    # By quicker layers: a prefill instance at its TTFT serves nothing with slower ones.
    share = max(0.0, (1 - seconds(ratio=1 - _STEP) / whole) / _STEP)
    if role == "prefill" or not _may_grow(scenario, split):
        return share
    # At a fixed time, the batch may grow until its own cost has used up what the layers leave.
    more = max(1.1, (split.batch + 1) / split.batch)
    grown = round(split.batch * more) / split.batch
    slope = (seconds(batch=grown) / whole - 1) / (grown - 1)
    return max(share, share / slope if slope > _STEP else 1.0)


def _may_grow(scenario: Scenario, split: Split) -> bool:
    """Whether one more sequence of an attention rank is within HBM, what the engine takes at once, and the pins."""
    most = most_sequences(scenario, split.tp, split.pp)
    if scenario.pins.batch is not None or (most is not None and split.batch >= most):
        return False
    memory = MemoryModel(scenario, split)
    return memory.total_bytes(split.batch + 1) <= memory.capacity_bytes
