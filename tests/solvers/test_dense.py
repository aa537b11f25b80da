"""All-gather and reduce-scatter: bytes are what they are, and placements change work alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from placement.cli.main import cli
from placement.cli.running import outcome
from placement.cost.layer.score import score_layer
from placement.problem.layer import LayerProblem
from solvers.bounds import layer_bound
from solvers.dispatch import fractions_for
from solvers.experts.layers import plan_layers
from solvers.registry import get_solver
from solvers.stop import Stop
from tests.cli.conftest import TINY
from tests.cost.matrices import byte_matrix
from tests.layers import changed
from tests.solvers.oracle import placements
from tests.solvers.problems import random_placement, random_problem, running_problem


@pytest.mark.parametrize("seed", range(6))
def test_bytes_do_not_depend_on_the_placement(seed: int) -> None:
    problem = running_problem(
        seed, experts=12, gpus=8, gpus_per_node=(2, 4)[seed % 2], slots_per_gpu=3, k=3, message="dense",
        dispatch=("even", "nearest")[seed % 2],
    )  # fmt: skip
    some = [byte_matrix(problem, random_placement(problem, each)) for each in range(3)]
    for sent, returned in some[1:]:
        np.testing.assert_allclose(sent, some[0][0], rtol=1e-12)
        np.testing.assert_allclose(returned, some[0][1], rtol=1e-12)
    alive = problem.hardware.alive
    off = ~np.eye(8, dtype=bool)
    # Every GPU that works gets every token but its own; those that forward get it only once.
    into = np.where(off, some[0][0], 0.0).sum(axis=0) / problem.hardware.rates.dispatch_bytes
    tokens = problem.hardware.home_tokens
    np.testing.assert_allclose(into[alive], (tokens.sum() - tokens)[alive], rtol=1e-9)


def least_work(problem: LayerProblem) -> float:
    """Seconds of the busiest GPU in the best of all placements."""
    return min(score_layer(problem, slots).experts_s for slots in placements(problem))


@pytest.mark.parametrize("solver", ["auto", "search", "cpsat", "milp"])
@pytest.mark.parametrize("overlap", ["none", "two_batch"])
@pytest.mark.parametrize("slots_per_gpu", [2, 3])
def test_solved_placements_are_those_of_least_work(solver: str, overlap: str, slots_per_gpu: int) -> None:
    for seed in range(2):
        problem = random_problem(
            seed, experts=6, gpus=3, gpus_per_node=1, slots_per_gpu=slots_per_gpu, k=2, tokens=30, message="dense"
        )
        # Work is longer than the messages, which then hide behind it.
        rates = replace(problem.hardware.rates, overlap=overlap, token_s=2e-6)
        problem = changed(problem, rates=rates)
        found = get_solver(solver).solve(problem, Stop(10.0 if solver in ("cpsat", "milp") else 0.3), 0)
        assert score_layer(problem, found.slots).experts_s == pytest.approx(least_work(problem), rel=1e-6)
        if found.bound:
            assert found.bound == pytest.approx(score_layer(problem, found.slots).objective, rel=1e-4)


@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned", "token_hash", "sglang_static"])
def test_the_search_ends_where_free_messages_end(dispatch: str) -> None:
    problem = random_problem(4, slots_per_gpu=6, message="dense", dispatch=dispatch, windows=2)
    rates = replace(problem.hardware.rates, fast_bytes_per_s=1e30, slow_bytes_per_s=1e30)
    work = []
    for each in (problem, changed(problem, message="per_expert", rates=rates)):
        slots = get_solver("search").solve(each, Stop(0.1), 0).slots
        work.append(score_layer(each, slots, fractions_for(each, slots)).experts_s)
    assert work[0] <= work[1] * 1.02


def test_bounds_have_the_messages_exactly() -> None:
    problem = random_problem(2, message="dense", slots_per_gpu=6)
    work = layer_bound(changed(problem, objective="load"))
    assert work.value >= 1 - 1e-9
    score = score_layer(problem, random_placement(problem, 1))
    least = layer_bound(problem).value
    quickest = problem.hardware.rates.token_s * 512 * 8 * problem.data.load.sum() / 8
    assert least >= score.dispatch_s + score.combine_s + quickest * (1 - 1e-9)
    assert least <= score.objective
    traffic = changed(problem, objective="traffic")
    assert layer_bound(traffic).value == pytest.approx(score.cross_node_bytes_per_token, rel=1e-9)


def test_a_plan_is_made_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(dict(TINY)))
    ids = np.argsort(np.random.default_rng(5).random((2, 200, 8)), axis=2)[:, :, :2].astype(np.uint8)
    np.savez_compressed(tmp_path / "a.npz", topk_ids=ids)
    common = ["solve", "--spec", str(tmp_path / "tiny.yaml"), "--trace", str(tmp_path / "a.npz"), "--work", "0.05"]
    out = tmp_path / "plan.json"
    assert outcome(cli, "placement", [*common, "--message-rule", "dense", "--out", str(out)]) == 0
    plan = json.loads(out.read_text())
    assert plan["roles"][0]["message_rule"] == "dense"
    capsys.readouterr()
    assert outcome(cli, "placement", ["verify", str(out)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("extra", [0, 8])
def test_auto_is_no_less_balanced_than_eplb_where_time_does_not_see_loads(extra: int) -> None:
    """In decode a GPU's time is that of its weights: what is left to choose is balance."""
    gained = []
    for seed in range(3):
        problem = random_problem(
            seed, experts=32, gpus=8, slots_per_gpu=(32 + extra) // 8, message="dense", windows=2, dispatch="token_hash"
        )
        problem = changed(problem, rates=replace(problem.hardware.rates, tokens_per_gpu=200.0, token_s=1e-9))
        rival = score_layer(problem, get_solver("eplb").solve(problem, Stop(), 0).slots)
        answer = plan_layers([problem], "auto", Stop(), 1)[0]
        assert answer.score.balancedness >= rival.balancedness
        gained.append(answer.score.balancedness - rival.balancedness)
        assert answer.bound <= answer.score.objective
    assert max(gained) > 0.005
