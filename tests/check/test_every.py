"""Enumerated layers: the verifier counts their placements again, by code of its own."""

from typing import Any

import numpy as np
import pytest

from placement.check.every import least_of_all
from placement.check.plan import verify_plan
from placement.cost.layer.many import score_many
from placement.planning.case import load_scenario
from placement.planning.effort import Budget
from placement.planning.solve import plan_scenario
from solvers.experts.every import best_of_all, every_placement
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.oracle import placements
from tests.solvers.problems import random_problem, running_problem
from tests.solvers.test_every import SHAPES


@pytest.mark.parametrize("make", [random_problem, running_problem])
def test_both_counts_come_to_the_same_and_to_brute_force(make: Any) -> None:
    for seed, shape in enumerate((*SHAPES, SHAPES[0] | {"experts": 8, "gpus_per_tray": 2})):
        tray = shape.pop("gpus_per_tray", 1)
        problem = make(seed, **shape, dispatch=("nearest", "even")[seed % 2])
        problem = changed(problem, topology=type(problem.topology)(problem.topology.gpus, shape["gpus_per_node"], tray))
        every = every_placement(problem)
        found = None if every is None else best_of_all(problem, every, Stop())
        assert found is not None
        assert least_of_all(problem) == pytest.approx(found.least, rel=2e-9)
        if len(all_of := np.array(list(placements(problem)))) < 3_000:
            assert found.least == pytest.approx(score_many(problem, all_of)[0].min(), rel=1e-12)


def test_what_can_t_be_counted_proves_nothing() -> None:
    assert least_of_all(random_problem(0, experts=64, gpus=16, gpus_per_node=4, slots_per_gpu=4, tokens=50)) == 0.0
    assert least_of_all(random_problem(0, **SHAPES[4], dispatch="planned")) == 0.0
    alone = random_problem(0, experts=64, gpus=64, gpus_per_node=64, slots_per_gpu=1, tokens=50)
    assert least_of_all(alone) > 0.0


def test_a_plan_s_small_layers_are_proven_and_their_proof_is_checked() -> None:
    scenario = load_scenario("mixtral_8x7b_h100_ib", nodes=1, tp=1, ep=4, set={"routing.tokens": 500})
    plan = plan_scenario(scenario, mode="aggregated", balance_floor=False, budget=Budget(gap=0.0))
    (role,) = plan.roles
    assert role.certificate.status == "optimal"
    assert {layer.bound_source for layer in role.layers} == {"enumeration"}
    (told,) = [check for check in verify_plan(plan) if check.name == "bounds"]
    assert told.passed
    assert f"{len(role.layers)} of {len(role.layers)} bounds" in told.detail
    layer = role.layers[0]
    forged = layer.model_copy(update={"objective": layer.objective * 1.2, "bound": layer.bound * 1.1})
    layers = (forged, *role.layers[1:])
    false = plan.model_copy(update={"roles": (role.model_copy(update={"layers": layers}),)})
    (told,) = [check for check in verify_plan(false) if check.name == "bounds"]
    assert told.passed is False
    assert "all that is proven" in told.detail
