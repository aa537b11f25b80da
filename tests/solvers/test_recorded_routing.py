"""Placements on recorded routing, judged on sequences that no solver saw."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from placement.cost.layer.score import score_layer
from placement.problem.hardware import LayerHardware
from placement.problem.layer import LayerProblem, LayerRules
from placement.problem.topology import Topology
from placement.routing.parts import split_by_sequence
from placement.routing.reader import read_trace
from placement.routing.statistics import layer_statistics, with_mixture
from solvers.experts.layers import plan_layers
from solvers.registry import BASELINES
from solvers.stop import Stop
from tests.layers import changed, layer_problem
from tests.solvers.problems import RATES

LAYERS = (0, 7, 13, 20, 25)


def test_solved_beats_the_baselines_on_held_out_sequences(shared_dir: Path) -> None:
    """Three domains at once, 4 nodes x 4 GPUs, no replicas: fewer nodes per token at no worse balance, less time."""
    traces = [read_trace(shared_dir / "traces" / f"dsv2lite_{d}.npz") for d in ("intent", "law", "summary")]
    halves = [split_by_sequence(trace) for trace in traces]
    train = layer_statistics([first for first, _ in halves])
    test = layer_statistics([second for _, second in halves])

    def problem(layer, mixed: bool) -> LayerProblem:
        layer = with_mixture(layer) if mixed else layer
        return layer_problem(
            layer.load, Topology(16, 4), 4, RATES, sets=layer.sets, window_weight=layer.window_weight, drift=layer.drift
        )

    solved_on = [problem(train[i], True) for i in LAYERS]
    judged_on = [problem(test[i], False) for i in LAYERS]

    def judged(strategy: str) -> np.ndarray:
        answers = plan_layers(solved_on, strategy, Stop(), 0, workers=2)
        scores = [score_layer(p, a.slots) for p, a in zip(judged_on, answers, strict=True)]
        return np.mean([(s.nodes_per_token, s.balancedness, s.pooled_imbalance, s.time_s) for s in scores], axis=0)

    solved = judged("auto")
    rivals = {name: judged(name) for name in BASELINES}
    assert solved[0] <= 2.68
    assert solved[0] <= 0.8 * rivals["eplb"][0]
    assert solved[1] >= rivals["eplb"][1] - 0.01
    assert all(solved[3] < rival[3] for rival in rivals.values())


def test_drift_known_is_balance_kept(shared_dir: Path) -> None:
    """One domain, half as many slots again: GPUs are more even on other sequences, at no more time."""
    trace = read_trace(shared_dir / "traces" / "dsv2lite_summary.npz")
    first, second = split_by_sequence(trace)
    train, test = layer_statistics([first], 3), layer_statistics([second])
    figures = {}
    for known in (True, False):
        posed = [
            layer_problem(
                layer.load, Topology(16, 4), 6, replace(RATES, tokens_per_gpu=4096.0), sets=layer.sets,
                window_weight=layer.window_weight, dispatch="planned", drift=layer.drift if known else None,
            )
            for layer in (with_mixture(train[i]) for i in range(0, 26, 2))
        ]  # fmt: skip
        answers = plan_layers(posed, "auto", Stop(), 0, 2)
        judged = [
            score_layer(changed(p, load=t.load, sets=t.sets, window_weight=t.window_weight), a.slots, a.fractions)
            for p, t, a in zip(posed, (test[i] for i in range(0, 26, 2)), answers, strict=True)
        ]
        figures[known] = np.mean([(score.balancedness, score.time_s) for score in judged], axis=0)
    assert figures[True][0] > figures[False][0] + 0.004
    assert figures[True][1] < figures[False][1]


def test_a_hot_expert_costs_no_layer_its_gain(shared_dir: Path) -> None:
    """Even shares: an expert too hot for one GPU keeps its copies, so that the cap is met and messages still fall."""
    trace = read_trace(shared_dir / "traces" / "dsv2lite_intent.npz")
    train = layer_statistics([split_by_sequence(trace)[0]], 3)
    posed = [
        layer_problem(
            layer.load, Topology(16, 4), slots, replace(RATES, tokens_per_gpu=4096.0), sets=layer.sets,
            window_weight=layer.window_weight, dispatch="even",
        )
        for layer in (with_mixture(train[i]) for i in (0, 8))
        for slots in (5, 6)
    ]  # fmt: skip
    rivals, solved = (plan_layers(posed, name, Stop(0.5), 0, 2, certify=False) for name in ("eplb", "auto"))
    for rival, answer in zip(rivals, solved, strict=True):
        assert answer.score.remote_nodes_per_token < 0.8 * rival.score.remote_nodes_per_token
        assert answer.score.time_s < 0.9 * rival.score.time_s


def test_a_domain_that_nobody_gave_is_balanced_too(shared_dir: Path) -> None:
    """Where messages are the same for all placements: each of three domains, placed for from the two others."""
    traces = [read_trace(shared_dir / "traces" / f"dsv2lite_{d}.npz") for d in ("intent", "law", "summary")]
    layers, balance = range(0, 26, 5), dict.fromkeys(("auto", "eplb"), 0.0)
    for i, left_out in enumerate(traces):
        train = layer_statistics([trace for trace in traces if trace is not left_out], 2)
        test = layer_statistics([left_out])
        posed = [
            LayerProblem(
                with_mixture(train[at]), LayerHardware(Topology(16, 4), 4, replace(RATES, tokens_per_gpu=4096.0)),
                LayerRules("token_hash", "dense"),
            )
            for at in layers
        ]  # fmt: skip
        for name in balance:
            answers = plan_layers(posed, name, Stop(), i, 1, certify=False)
            for problem, at, answer in zip(posed, layers, answers, strict=True):
                judged = changed(problem, load=test[at].load, sets=test[at].sets, window_weight=np.ones(1))
                balance[name] += score_layer(judged, answer.slots).balancedness / len(traces) / len(layers)
    assert balance["auto"] > balance["eplb"] + 0.025
