"""A run made ready: a sample of tokens with homes, the layouts' draws, and what the scorer says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.alltoall.concrete import (
    concrete_bytes,
    concrete_messages,
    concrete_seconds,
    draw_slots,
    entry_gpus,
)
from bench.alltoall.fabric import Fabric
from bench.alltoall.job import Backend, Exchange, ExpertKind, Job, LayerWork, WireType
from placement.cost.calibration.efficiency import load_efficiency
from placement.cost.layer.scenario_rates import message_bytes
from placement.cost.layer.score import score_layer
from placement.cost.pose import layer_problems
from placement.errors import InputError
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.data import LayerData
from placement.problem.layer import LayerProblem
from placement.problem.rates import ALIKE, LayerRates
from placement.records.convert import placement_of
from placement.records.plan import Plan
from placement.routing.statistics import layer_statistics
from placement.routing.trace import Trace
from specs.fields import DataType
from specs.model import Model

#: What combine sends for what dispatch sends.
COMBINE: dict[WireType, DataType] = {"bf16": "bf16", "fp8": "bf16", "fp32": "fp32"}


@dataclass(frozen=True)
class Settings:
    """How to run, whatever the layouts. See the command's options."""

    tokens_per_rank: int
    backend: Backend = "gloo"
    wire: WireType = "bf16"
    kind: ExpertKind = "scale"
    expert_width: int | None = None
    warmup: int = 1
    repeats: int = 5
    seed: int = 0
    timeout_s: float = 300.0


@dataclass(frozen=True)
class Sample:
    """Tokens with concrete homes.

    Attributes:
        trace: their routing as a trace, [layers, tokens, k]. home: [tokens] GPU that each lives on.
        repeated: how many of them are tokens of the recording for a second time or more.
    """

    trace: Trace
    home: IntArray
    repeated: int


@dataclass(frozen=True)
class Layout:
    """Placements of the chosen layers, posed on the sample: dispatch, message rule and prices stand in `problems`."""

    name: str
    problems: tuple[LayerProblem, ...]
    slots: tuple[IntArray, ...]
    fractions: tuple[FloatArray | None, ...]


@dataclass(frozen=True)
class Expected:
    """What the scorer says of one exchange.

    Attributes:
        dispatch_bytes, combine_bytes: [gpus, gpus] of these very tokens and draws; the diagonal crosses no link.
        dispatch_s, combine_s: by `score_layer`, in expectation over homes and draws.
        drawn_s: (dispatch, combine) by the same formulas for these very tokens and draws.
    """

    dispatch_bytes: IntArray
    combine_bytes: IntArray
    dispatch_s: float
    combine_s: float
    drawn_s: tuple[float, float]


@dataclass(frozen=True)
class Prepared:
    """A job, and what is expected of it: [layers][exchanges]."""

    job: Job
    expected: tuple[tuple[Expected, ...], ...]
    sample: Sample


def take_sample(
    traces: Sequence[Trace], gpus: int, tokens_per_rank: int, seed: int, failed_gpus: Sequence[int] = ()
) -> Sample:
    """As many tokens as the ranks need, drawn evenly from the traces and dealt to the ranks at random.

    No token comes twice before every one of its trace has come once. Tokens of failed ranks go to the others.
    """
    rng = np.random.default_rng([seed, 11])
    total = gpus * tokens_per_rank
    parts, weights, repeated = [], [], 0
    for i, trace in enumerate(traces):
        count = total // len(traces) + (i < total % len(traces))
        rounds = [rng.permutation(trace.tokens) for _ in range(-(-count // trace.tokens))]
        chosen = np.concatenate(rounds)[:count] if rounds else np.zeros(0, dtype=np.int64)
        repeated += max(0, count - trace.tokens)
        parts.append(trace.topk_ids[:, chosen])
        shape = (trace.layers, count, trace.top_k)
        # Where a recording has no router weights, every chosen expert counts alike.
        weights.append(
            np.full(shape, 1.0 / trace.top_k) if trace.topk_weights is None else trace.topk_weights[:, chosen]
        )
    together = replace(
        traces[0],
        topk_ids=np.concatenate(parts, axis=1),
        topk_weights=np.concatenate(weights, axis=1),
        seq_lens=np.array([total], dtype=np.int64),
        meta={},
    )
    home = rng.permutation(np.sort(np.resize(np.setdiff1d(np.arange(gpus), failed_gpus), total)))
    return Sample(together, home, repeated)


def message_rates(rates: LayerRates, model: Model, settings: Settings, fabric: Fabric | None, m: int) -> LayerRates:
    """Prices with the runner's own tokens, message sizes and, on a fabric, links."""
    constants = load_efficiency()
    sized = replace(
        rates,
        tokens_per_gpu=float(settings.tokens_per_rank),
        kinds=ALIKE,
        dispatch_bytes=message_bytes(model.moe.sent_width(model.hidden), settings.wire, constants),
        combine_bytes=message_bytes(model.moe.sent_width(model.hidden), COMBINE[settings.wire], constants),
    )
    return sized if fabric is None else fabric.rates(sized, m)


def posed(
    problem: LayerProblem, statistics: LayerData, model: Model, settings: Settings, fabric: Fabric | None
) -> LayerProblem:
    """A layer's problem on the sample's routing, at the runner's prices."""
    m = problem.topology.gpus_per_node
    topology = problem.topology if fabric is None else replace(problem.topology, gpus_per_tray=m)
    rates = message_rates(problem.hardware.rates, model, settings, fabric, m)
    return replace(problem, data=statistics).with_hardware(topology=topology, rates=rates)


def plan_layouts(
    plan: Plan, baselines: Sequence[str], layers: Sequence[int], sample: Sample, settings: Settings,
    fabric: Fabric | None,
) -> tuple[Layout, ...]:  # fmt: skip
    """The plan's own layout and its baselines'.

    Args:
        layers: positions of MoE layers.

    Raises:
        InputError: a baseline that the plan does not hold.
    """
    role = plan.role()
    scenario = plan.scenario_of(role)
    statistics = layer_statistics([sample.trace])
    frames = layer_problems(scenario, role.split.split(), role.phase, statistics, failed_gpus=role.failed_gpus)
    problems = tuple(posed(frames[i], statistics[i], scenario.model, settings, fabric) for i in layers)
    own = next(strategy for strategy in role.strategies if strategy.placements is None)
    found = []
    for name in dict.fromkeys((own.name, *baselines)):
        strategy = role.strategy(name)
        if strategy is None:
            held = ", ".join(each.name for each in role.strategies)
            raise InputError("--baseline", name, "is not in the plan", f"choose of {held}")
        placed = placement_of(role, strategy)
        found.append(
            Layout(name, problems, tuple(placed.slots[i] for i in layers), tuple(placed.fractions[i] for i in layers))
        )
    return tuple(found)


def prepare(
    layouts: Sequence[Layout], layers: Sequence[int], sample: Sample, model: Model, settings: Settings
) -> Prepared:
    """The job that measures the layouts in turn, layer by layer.

    Args:
        layers: positions of the layouts' layers among the MoE layers.
    """
    topology = layouts[0].problems[0].topology
    works, expected = [], []
    for place, position in enumerate(layers):
        ids = sample.trace.topk_ids[position].astype(np.int64)
        exchanges, told = [], []
        for layout in layouts:
            problem, slots, fractions = layout.problems[place], layout.slots[place], layout.fractions[place]
            served = draw_slots(problem, slots, fractions, ids, sample.home, settings.seed * 1_009 + position)
            entry = None if problem.hardware.alive.all() else entry_gpus(problem, sample.home)
            exchanges.append(
                Exchange(layout.name, problem.rules.message, problem.hardware.slots_per_gpu, slots, served, entry)
            )
            told.append(_expected(problem, slots, fractions, sample.home, served))
        weights = np.asarray(_weights(sample.trace)[position], dtype=np.float64)
        works.append(LayerWork(model.moe_layers[position], ids, weights, tuple(exchanges)))
        expected.append(tuple(told))
    job = Job(
        gpus=topology.gpus,
        gpus_per_node=topology.gpus_per_node,
        hidden=model.hidden,
        experts=model.moe.experts,
        expert_width=settings.expert_width or model.moe.expert_width,
        home=sample.home,
        layers=tuple(works),
        backend=settings.backend,
        wire=settings.wire,
        kind=settings.kind,
        warmup=settings.warmup,
        repeats=settings.repeats,
        seed=settings.seed,
        timeout_s=settings.timeout_s,
    )
    return Prepared(job, tuple(expected), sample)


def _expected(
    problem: LayerProblem, slots: IntArray, fractions: FloatArray | None, home: IntArray, served: IntArray
) -> Expected:
    messages = concrete_messages(problem, home, served)
    dispatched, combined = (matrix.copy() for matrix in concrete_bytes(problem, messages))
    for matrix in (dispatched, combined):
        np.fill_diagonal(matrix, 0)
    score = score_layer(problem, slots, fractions)
    return Expected(dispatched, combined, score.dispatch_s, score.combine_s, concrete_seconds(problem, messages))


def _weights(trace: Trace) -> FloatArray:
    if trace.topk_weights is None:
        raise RuntimeError("a sample has router weights")
    return np.asarray(trace.topk_weights)
