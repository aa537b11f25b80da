"""The guard: no window loses more than it may to the balancer, and domains that are left out are told of."""

import numpy as np
import pytest

from placement.cost.layer.score import score_layer
from placement.cost.pose import layer_problems
from placement.planning.effort import Budget
from placement.planning.guard import MOST_LOSS, cautions, guarded, left_out
from placement.planning.solve import plan_scenario
from placement.problem.layer import LayerProblem
from placement.problem.split import make_split
from placement.records.witness import LayerWitness
from placement.routing.holdout import Routing, read_sources, routing_of
from placement.routing.trace import Trace
from solvers.experts.layers import LayerAnswer, plan_layers
from solvers.result import Status, Termination
from solvers.stop import Stop
from specs.scenario import Scenario
from tests.cli.conftest import TINY
from tests.layers import changed
from tests.solvers.problems import random_problem

SMALL: dict[str, int] = {"experts": 32, "gpus": 8, "gpus_per_node": 2, "slots_per_gpu": 4, "tokens": 300}


def answer(problem: LayerProblem, slots: np.ndarray, bound: float = 0.0) -> LayerAnswer:
    score = score_layer(problem, slots)
    return LayerAnswer(slots, None, score, Status.FEASIBLE, Termination.WORK, bound, "none", LayerWitness())


@pytest.fixture(scope="module")
def drifting() -> tuple[list[LayerProblem], list[LayerAnswer], list[LayerAnswer]]:
    """Layers of two windows whose routing has nothing in common, solved for one of them alone; and the balancer's."""
    problems = []
    for seed in range(4):
        one, other = (random_problem(seed + 10 * turn, **SMALL).data for turn in (0, 1))
        both = random_problem(seed, **SMALL)
        ids = np.concatenate([one.sets.ids, other.sets.ids])  # type: ignore[union-attr]
        distinct, place = np.unique(ids, axis=0, return_inverse=True)
        weight, first = np.zeros((2, len(distinct))), len(one.sets.ids)  # type: ignore[union-attr]
        np.add.at(weight[0], place[:first], one.sets.weight[0])  # type: ignore[union-attr]
        np.add.at(weight[1], place[first:], other.sets.weight[0])  # type: ignore[union-attr]
        load = np.concatenate([one.load, other.load])
        sets = type(one.sets)(distinct, weight)  # type: ignore[misc]
        problems.append(changed(both, load=load, sets=sets, window_weight=np.full(2, 0.5)))
    alone = [changed(p, window_weight=np.array([1.0, 0.0])) for p in problems]
    solved = plan_layers(alone, "auto", Stop(0.2), 0, backend="sequential", floor=False, certify=False)
    balanced = plan_layers(problems, "eplb", Stop(), 0)
    # Of two layers own bounds are the better ones.
    bounds = [other.bound * (1.0 + 1e-3 * (-1) ** i) for i, other in enumerate(balanced)]
    own = [answer(p, one.slots, bound) for p, one, bound in zip(problems, solved, bounds, strict=True)]
    return problems, own, list(balanced)


def window_sums(answers: list[LayerAnswer] | tuple[LayerAnswer, ...]) -> np.ndarray:
    return np.sum([one.score.window_value for one in answers], axis=0)


def test_no_window_loses_and_as_few_layers_change_as_it_takes(
    drifting: tuple[list[LayerProblem], list[LayerAnswer], list[LayerAnswer]],
) -> None:
    problems, own, balanced = drifting
    limit = window_sums(balanced) * (1 + MOST_LOSS)
    assert (window_sums(own) > limit).any()
    kept = guarded(problems, tuple(own), tuple(balanced))
    assert (window_sums(kept.answers) <= limit * (1 + 1e-12)).all()
    assert 0 < kept.replaced < len(own)
    for mine, other, got in zip(own, balanced, kept.answers, strict=True):
        best = mine if mine.bound >= other.bound else other
        assert got is mine or np.array_equal(got.slots, other.slots)
        # A bound stands with what proves it.
        assert got is mine or (got.bound, got.bound_source) == (best.bound, best.bound_source)
        assert got is mine or got.witness is best.witness


def test_nothing_changes_where_no_window_loses(
    drifting: tuple[list[LayerProblem], list[LayerAnswer], list[LayerAnswer]],
) -> None:
    problems, own, _ = drifting
    mean = [changed(p, load=p.data.load[:1], sets=only_first(p), window_weight=np.ones(1)) for p in problems]
    mine = tuple(answer(p, one.slots) for p, one in zip(mean, own, strict=True))
    kept = guarded(mean, mine, plan_layers(mean, "eplb", Stop(), 0))
    assert kept.replaced == 0
    assert all(got is one for got, one in zip(kept.answers, mine, strict=True))


def only_first(problem: LayerProblem) -> object:
    sets = problem.data.sets
    assert sets is not None
    used = sets.weight[0] > 0
    return type(sets)(sets.ids[used], sets.weight[:1, used])


def topics(name: str, hot: tuple[int, ...], tokens: int = 400) -> Trace:
    """Recorded routing of the tiny model whose tokens use two of the hot experts, and any others now and then."""
    rng = np.random.default_rng(len(name))
    heat = np.where(np.isin(np.arange(8), hot), 20.0, 1.0)
    noisy = np.log(heat) + rng.gumbel(size=(2, tokens, 8))
    ids = np.argsort(-noisy, axis=2)[:, :, :2].astype(np.uint8)
    return Trace(ids, np.full(8, tokens // 8), 8, name, name)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario.model_validate(TINY)


def routing(scenario: Scenario, traces: list[Trace]) -> Routing:
    return routing_of(read_sources(scenario.model, traces), 2)


def test_each_domain_is_placed_for_without_it(scenario: Scenario) -> None:
    traces = [topics("cold", (0, 1, 2, 3)), topics("hot", (4, 5, 6, 7)), topics("mixed", (0, 2, 4, 6))]
    known = routing(scenario, traces)
    split = make_split(scenario, tp=1, ep=4, pp=1, dp=4, batch=8, redundant=0)
    problems = layer_problems(scenario, split, "decode", known.solved_on)
    lost = left_out(problems, "auto", known, Stop(), 0, 1)
    assert set(lost) == {"cold", "hot", "mixed"}
    assert all(0.5 < ratio < 2.0 for ratio in lost.values())
    assert lost == left_out(problems, "auto", known, Stop(), 0, 2)
    assert left_out(problems, "eplb", known, Stop(), 0, 1) == dict.fromkeys(lost, 1.0)
    alone = routing(scenario, traces[:1])
    assert left_out(layer_problems(scenario, split, "decode", alone.solved_on), "auto", alone, Stop(), 0, 1) == {}


def test_cautions_say_what_can_be_mended_and_nothing_of_synthetic_routing(scenario: Scenario) -> None:
    few, one = cautions(routing(scenario, [topics("alone", (0, 1))]), {})
    assert "200 tokens" in few
    assert "one trace" in one
    enough = [topics("alone", (0, 1), 4_000), topics("second", (2, 3), 4_000)]
    assert cautions(routing(scenario, enough), {"alone": 1.009, "second": 0.8}) == ()
    (behind,) = cautions(routing(scenario, enough), {"alone": 1.034, "second": 0.8})
    assert "alone 3%" in behind
    assert "second" not in behind
    plan = plan_scenario(scenario, budget=Budget(work=0.01))
    assert plan.provenance.cautions == ()
    told = plan_scenario(scenario, traces=[topics("alone", (0, 1))], budget=Budget(work=0.01))
    assert told.provenance.cautions == (few, one)
    assert plan_scenario(scenario, traces=[topics("alone", (0, 1))], strategy="eplb").provenance.cautions == ()
