"""Thresholds that follow from the number of tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from placement.cost.layer.score import score_layer
from placement.errors import InputError
from placement.problem.data import LayerData
from placement.problem.topology import Topology
from placement.routing.holdout import Source, routing_of
from placement.routing.parts import split_by_sequence
from placement.routing.reader import read_trace
from placement.routing.statistics import layer_statistics, with_mixture
from placement.routing.trace import Trace
from solvers.experts.baselines import baseline_candidates
from solvers.experts.candidates import candidate, steadiest
from solvers.experts.noise import UNKNOWN, least_floor, least_gain, share_error
from solvers.params import DEFAULTS, SearchParams
from solvers.registry import get_solver
from solvers.stop import Stop
from tests.layers import changed, layer_problem
from tests.solvers.problems import RATES, random_problem

#: Both thresholds follow from the tokens, more closely than the default does.
RULE = SearchParams(least_gain=None, least_floor=None, significance=0.75)


def test_the_error_is_that_of_drawn_shares() -> None:
    """Against redrawn routing: k distinct experts a token, 8 GPUs of 4 experts."""
    rng, tokens = np.random.default_rng(0), 500
    problem = random_problem(0, experts=32, gpus=8, slots_per_gpu=4, k=4, tokens=tokens)
    problem = changed(problem, tokens=float(tokens))
    draws = np.argsort(rng.random((200, tokens, 32)), axis=2)[:, :, :4] // 4
    share = np.array([np.bincount(each.ravel(), minlength=8) for each in draws]) / (tokens * 4 / 8)
    error = share_error(problem, 8)
    assert error is not None
    assert 0.9 * error < share.std() < error


def test_thresholds_fall_with_tokens_and_a_number_holds() -> None:
    problem = random_problem(0)
    assert least_gain(problem, RULE) == UNKNOWN == least_gain(problem, DEFAULTS)
    assert least_floor(problem, RULE) == 1 + UNKNOWN == least_floor(problem, DEFAULTS)
    few, many = (changed(problem, tokens=tokens) for tokens in (100.0, 10_000.0))
    assert least_gain(few, RULE) == pytest.approx(10 * least_gain(many, RULE))
    assert least_floor(few, RULE) - 1 == pytest.approx(10 * (least_floor(many, RULE) - 1))
    fixed = SearchParams(least_gain=0.2, least_floor=1.2)
    assert (least_gain(few, fixed), least_floor(few, fixed)) == (0.2, 1.2)
    with pytest.raises(InputError, match="tokens"):
        changed(problem, tokens=0.0)


def test_by_default_what_counts_as_a_gain_falls_with_recorded_tokens() -> None:
    """3% at some 2,000 tokens that choose 6 of 64 experts on 8 GPUs, less with more; synthetic routing is as few."""
    problem = random_problem(0, experts=64, gpus=8, gpus_per_node=8, slots_per_gpu=8, k=6)
    at = {tokens: least_gain(changed(problem, tokens=tokens), DEFAULTS) for tokens in (2_000.0, 20_000.0)}
    assert at[2_000.0] == pytest.approx(0.03, abs=0.001)
    assert at[20_000.0] < 0.01
    recorded = Trace(_trace(80).topk_ids, np.full(4, 20), 8, "law", "law.npz")
    for trace, known in ((recorded, True), (_trace(80), False)):
        routing = routing_of([Source(trace, None)], 2)
        assert all((layer.tokens is not None) is known for layer in (*routing.solved_on, *routing.judged_on))


def _trace(tokens: int) -> Trace:
    ids = np.argsort(np.random.default_rng(tokens).random((1, tokens, 8)), axis=2)[:, :, :2].astype(np.uint8)
    return Trace(ids, np.full(4, tokens // 4), 8, str(tokens), "synthetic")


def test_statistics_know_their_tokens() -> None:
    assert layer_statistics([_trace(80)], 2)[0].tokens == pytest.approx(80)
    both = layer_statistics([_trace(80), _trace(240)])[0]
    assert both.tokens == pytest.approx(1 / (0.25 / 80 + 0.25 / 240))
    assert with_mixture(both).tokens == both.tokens


def test_the_rule_decides_no_worse_than_a_fixed_share(shared_dir: Path) -> None:
    """One node, and a search so short that gains are small: held-out time of what is kept, by the rule and by 3%."""
    kept: dict[str, list[float]] = {"rule": [], "fixed": []}
    for domain in ("intent", "law", "summary"):
        first, second = split_by_sequence(read_trace(shared_dir / "traces" / f"dsv2lite_{domain}.npz"))
        train, test = layer_statistics([first], 3), layer_statistics([second])
        for layer, slots in ((5, 8), (5, 12), (15, 8), (15, 12)):
            data: LayerData = with_mixture(train[layer])
            posed = layer_problem(
                data.load, Topology(8, 8), slots, replace(RATES, tokens_per_gpu=4096.0), sets=data.sets,
                window_weight=data.window_weight, drift=data.drift, tokens=data.tokens,
            )  # fmt: skip
            judged = replace(posed, data=test[layer])
            rivals = baseline_candidates(posed)
            stop = Stop(0.003, params=SearchParams(least_gain=0.0))
            found = candidate(posed, np.asarray(get_solver("auto").solve_against(posed, rivals, stop, layer).slots))
            rival = steadiest(posed, rivals, DEFAULTS.near_time)
            gain = 1 - found.score.objective / rival.score.objective
            for name, least in (("rule", least_gain(posed, RULE)), ("fixed", UNKNOWN)):
                best = found if gain > least else rival
                kept[name].append(score_layer(judged, best.slots).time_s)
    assert kept["rule"] != kept["fixed"]
    assert np.mean(kept["rule"]) <= np.mean(kept["fixed"])
