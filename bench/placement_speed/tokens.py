"""Placement with token sets and replicas, timed: a recorded model, and synthetic layers by size."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.recorded import DOMAINS, read_domain
from placement.errors import InputError
from placement.problem.data import LayerData, TokenSets
from placement.problem.hardware import LayerHardware
from placement.problem.layer import LayerProblem, LayerRules
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from placement.routing.statistics import layer_statistics
from placement.routing.synthesize import synthesize
from specs.engine import Dispatch

#: H100 with one 400 Gb/s port per GPU, DeepSeek-V2-Lite's expert and message sizes, prefill at 4,096 tokens per GPU.
RATES = LayerRates(4096, 6.9e-6, 3.2e-8, 4096, 4096, 3.7e11, 4.4e10, 3.3e-6, 3.7e-6)
#: Experts, GPUs, tokens of the synthetic layers.
SHAPES = ((32, 8, 8192), (64, 16, 8192), (128, 32, 8192), (256, 64, 8192))


@dataclass(frozen=True)
class Timed:
    """Layers planned by `auto` with half as many slots again as experts.

    Attributes:
        tokens: tokens a layer. seconds: wall-clock for all layers, their bounds included.
        remote_nodes_per_token, gap: means over layers. peak_mib: largest resident set of the process so far.
    """

    dispatch: str
    layers: int
    experts: int
    gpus: int
    tokens: int
    workers: int
    seconds: float
    remote_nodes_per_token: float
    gap: float
    peak_mib: float


def recorded(folder: str, dispatch: Dispatch, workers: int, seed: int) -> Timed:
    """DeepSeek-V2-Lite on 4 nodes x 4 GPUs of 6 slots, all tokens of three recorded domains as one window.

    Raises:
        InputError: the folder does not hold the traces.
    """
    traces = [read_domain(folder, name) for name in DOMAINS]
    problems = [layer_problem(_pooled(layer), 16, 6, dispatch) for layer in layer_statistics(traces)]
    return _timed(problems, dispatch, sum(trace.tokens for trace in traces), workers, seed)


def by_size(dispatch: Dispatch, seed: int, shapes: Sequence[tuple[int, int, int]] = SHAPES) -> tuple[Timed, ...]:
    """Two synthetic layers of each shape, one worker, nodes of 4 GPUs, 6 slots per GPU."""
    out = []
    for experts, gpus, tokens in shapes:
        trace = synthesize(
            layers=2, experts=experts, top_k=6, tokens=tokens, sequences=16, skew=4.5, coactivation=1.0, seed=seed
        )
        problems = [layer_problem(layer, gpus, 6, dispatch) for layer in layer_statistics([trace])]
        out.append(_timed(problems, dispatch, tokens, 1, seed))
    return tuple(out)


def exponent(points: Sequence[Timed]) -> float:
    """Of seconds a layer over experts x GPUs, by least squares on logarithms."""
    size = np.log([point.experts * point.gpus for point in points])
    cost = np.log([point.seconds / point.layers for point in points])
    return float(np.polyfit(size, cost, 1)[0])


def _pooled(layer: LayerData) -> LayerData:
    """All windows as one."""
    if layer.sets is None:
        raise InputError("--traces", "", "holds load counts", "name traces")
    sets = TokenSets(layer.sets.ids, (layer.window_weight @ layer.sets.weight)[None])
    return LayerData((layer.window_weight @ layer.load)[None], np.ones(1), sets)


def layer_problem(layer: LayerData, gpus: int, width: int, dispatch: Dispatch) -> LayerProblem:
    """A layer on nodes of 4 GPUs; width: slots per GPU."""
    return LayerProblem(layer, LayerHardware(Topology(gpus, 4), width, RATES), LayerRules(dispatch))


def _timed(problems: Sequence[LayerProblem], dispatch: str, tokens: int, workers: int, seed: int) -> Timed:
    from solvers.experts.layers import plan_layers
    from solvers.stop import Stop

    plan_layers(problems[:1], "auto", Stop(0.02), seed, 1)
    began = time.perf_counter()
    answers = plan_layers(problems, "auto", Stop(), seed, workers)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Timed(
        dispatch, len(problems), problems[0].experts, problems[0].topology.gpus, tokens, workers, seconds,
        float(np.mean([answer.score.remote_nodes_per_token for answer in answers])),
        float(np.mean([answer.gap for answer in answers])), peak,
    )  # fmt: skip
