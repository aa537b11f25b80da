"""What a role is worth to its plan: nothing is searched in a half that carries all that the other one does."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from placement.check.plan import cases_of, verify_plan
from placement.cost.own_batch import RESERVE, Operation
from placement.cost.step.roles import Handed, handed_over
from placement.planning import role as planning
from placement.planning.choose import ChosenRole
from placement.planning.effort import Budget
from placement.planning.solve import plan_scenario
from placement.planning.worth import Carried, carried, enough, handed
from placement.problem.split import make_split
from placement.records.convert import own_placement
from placement.records.plan import Plan
from placement.report.strategies import certificate
from placement.report.why import why
from placement.report.worth import left_of_layers, left_of_plan
from specs.scenario import Scenario
from tests.cli.conftest import TINY
from tests.cost import scenarios as s

CASE = s.scenario(workload=s.serving(isl=1024, osl=1024))
SPLIT = make_split(CASE, tp=1, ep=4, pp=1, dp=4, batch=8)
PREFILL, DECODE = (ChosenRole(role, CASE, None, SPLIT) for role in ("prefill", "decode"))
#: A share of tokens/s that any layer of the small plan is further away from its bound.
TIGHT = 1e-4
WHOLE = ChosenRole("aggregated", CASE, None, SPLIT)


def test_a_half_is_worth_what_the_other_one_carries_at_most() -> None:
    prefill = Carried(PREFILL, 100.0, 100.0)
    assert enough(Carried(DECODE, 100.0), [prefill], 0.0)
    assert enough(Carried(DECODE, 99.5), [prefill], 0.01)
    assert not enough(Carried(DECODE, 98.0), [prefill], 0.01)
    # What the other half could carry under a better placement counts in full.
    assert not enough(Carried(DECODE, 100.0), [replace(prefill, most=102.0)], 0.01)
    assert enough(Carried(DECODE, 102.0), [replace(prefill, most=100.9)], 0.01)
    assert enough(Carried(DECODE, 120.0), [replace(prefill, most=110.0)], 0.01)
    assert not enough(Carried(DECODE, 109.9), [replace(prefill, most=110.0)], 0.01)


def test_roles_that_are_not_planned_yet_may_carry_anything() -> None:
    assert not enough(Carried(PREFILL, 100.0), [Carried(DECODE)], 0.5)
    # Of two kinds that decode the one at hand is enough by itself, or nothing is known.
    prefill = Carried(PREFILL, 100.0, 100.0)
    assert enough(Carried(DECODE, 100.0), [prefill, Carried(DECODE)], 0.0)
    assert not enough(Carried(DECODE, 60.0), [prefill, Carried(DECODE)], 0.01)


def test_whole_requests_always_gain_and_weaken_what_halves_gain() -> None:
    prefill, whole = Carried(PREFILL, 100.0, 100.0), Carried(WHOLE, 100.0, 100.0)
    assert not enough(Carried(WHOLE, 100.0), [prefill, Carried(DECODE, 100.0, 100.0)], 0.01)
    assert not enough(Carried(DECODE, 98.5), [prefill], 0.01)
    assert enough(Carried(DECODE, 98.5), [prefill, whole], 0.01)
    assert not enough(Carried(DECODE, 98.5), [prefill, replace(whole, most=101.0)], 0.01)


def test_links_between_halves_bound_both() -> None:
    fast = CASE.cluster.model_copy(update={"slow": CASE.cluster.slow.model_copy(update={"gb_per_s": 1e-3})})
    decode, prefill = (replace(role, scenario=CASE.model_copy(update={"cluster": fast})) for role in (DECODE, PREFILL))
    assert enough(Carried(decode, 1e6), [Carried(prefill, 1e6, math.inf)], 0.0)


def test_a_planned_role_carries_what_its_bound_leaves() -> None:
    assert carried(PREFILL, 100.0, 0.0, 1.0).most == 100.0
    assert carried(PREFILL, 100.0, None, 1.0).most == math.inf
    # A fifth less of half of its time is a tenth less of all.
    assert carried(PREFILL, 90.0, 0.25, 0.5).most == pytest.approx(100.0)


def planned(decode_batch: int | None, **more: Any) -> Plan:
    """Halves of four GPUs, where prefill serves some 3,000 requests/s and decode as many as its batch allows."""
    fields = TINY | {"pins": {"tp": 1, "pp": 1}, "decode_pins": {"ep": 4, "dp": 4, "batch": decode_batch}}
    fields |= {"prefill_pins": {"ep": 4, "dp": 4}, "cluster": TINY["cluster"] | {"nodes": 4}}
    return plan_scenario(Scenario.model_validate(fields), mode="disaggregated", seed=1, **more)


def test_nothing_is_searched_in_a_half_that_carries_enough() -> None:
    searched = planned(8, budget=Budget(gap=TIGHT))
    prefill, decode = searched.roles
    assert {layer.termination for layer in decode.layers} == {"work"}
    slower = decode.predicted.tokens_per_s.value
    assert slower < prefill.predicted.tokens_per_s.value
    # Prefill is the half that has nothing to gain here, which its screen says.
    left = left_of_layers(prefill)
    assert left is not None
    assert (prefill.stake or 0) * left > left_of_plan(searched, prefill) == 0
    assert "about 0.0% of tokens/s: the other half carries no more" in dict(why(searched))["placement (prefill)"]

    ample = planned(64, budget=Budget(gap=TIGHT))
    prefill, decode = ample.roles
    assert decode.predicted.tokens_per_s.value > prefill.predicted.tokens_per_s.value
    assert {layer.termination for layer in decode.layers} == {"proven"}
    assert "a heuristic is proven within 0.0% of the plan's tokens/s: nothing to search" in certificate(ample, decode)
    every = planned(64, budget=Budget(gap=0.0))
    assert {layer.termination for layer in every.roles[1].layers} == {"work"}
    assert every.predicted.tokens_per_s.value == ample.predicted.tokens_per_s.value


def test_a_half_is_searched_whose_heuristic_carries_less_than_the_load_balancer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may: a batch is a whole number, and heuristics that are nearly alike are taken for their balance."""
    asked = list[str]()

    def ample(case: object, chosen: ChosenRole, *rest: object) -> bool:
        asked.append(chosen.role)
        return asked.count("decode") == 1

    monkeypatch.setattr(planning, "_ample", ample)
    found = planned(64, budget=Budget(gap=TIGHT))
    assert asked == ["prefill", "decode", "decode"]
    assert {layer.termination for layer in found.roles[1].layers} == {"work"}


def test_a_half_that_does_not_bind_runs_the_smallest_batch_that_carries_what_it_is_handed() -> None:
    plan = planned(None, strategy="eplb")
    prefill, decode = plan.roles
    given, largest = prefill.predicted.tokens_per_s.value, decode.largest_batch
    assert decode.binds == ("prefill",)
    assert largest is not None
    assert largest > decode.split.batch
    assert plan.predicted.tokens_per_s.value == given
    fit = cases_of(plan, ())[1].fits[0]

    def carried_at(batch: int) -> float:
        return fit.operated(own_placement(decode), Operation(batch, None, ())).prediction.tokens_per_s

    wanted = given * (1 + RESERVE)
    assert carried_at(decode.split.batch - 1) < wanted <= carried_at(decode.split.batch)
    # The same for every strategy: none fills a larger batch.
    batches = [row.at_own_batch.batch for row in decode.strategies if row.at_own_batch is not None]
    assert len(batches) == len(decode.strategies)
    assert max(batches) < largest
    told = dict(why(plan))["binds (decode)"]
    assert told == f"prefill: it hands over no more; a batch of {largest} is within the limits, and would not fill"


def test_what_a_filled_half_says_is_checked() -> None:
    plan = planned(None, strategy="eplb")
    assert not [check for check in verify_plan(plan) if check.passed is False]
    prefill, decode = plan.roles
    wrong = decode.model_copy(update={"largest_batch": (decode.largest_batch or 0) + 1})
    failed = [c for c in verify_plan(plan.model_copy(update={"roles": (prefill, wrong)})) if c.passed is False]
    assert [check.name for check in failed] == ["decode batches"]
    assert "largest_batch" in failed[0].detail


def test_what_the_other_half_gains_is_not_cut_off_by_the_batch_that_is_run() -> None:
    plan = planned(None, budget=Budget(gap=TIGHT))
    prefill, decode = plan.roles
    left = left_of_layers(prefill)
    assert decode.largest_batch is not None
    assert left is not None
    assert left_of_plan(plan, prefill) == pytest.approx(left * (prefill.stake or 0))
    assert left_of_plan(plan, decode) == 0


def test_links_or_prefill_hand_over() -> None:
    prefill, decode = Carried(PREFILL).at(100.0), Carried(DECODE).at(0.0)
    assert handed_over([prefill], decode, 0.0) == Handed(100.0, "prefill")
    heavy = prefill.gpus * prefill.nic_bytes_per_s / 50.0
    assert handed_over([prefill], decode, heavy) == Handed(pytest.approx(50.0), "links")


def test_nothing_is_handed_over_that_is_not_known() -> None:
    prefill = Carried(PREFILL, given={"eplb": 100.0})
    assert handed(DECODE, [prefill], "eplb") is not None
    assert handed(DECODE, [prefill], "hash") is None
    assert handed(DECODE, [prefill, Carried(DECODE)], "eplb") is None
    assert handed(PREFILL, [Carried(DECODE)], "eplb") is None
    assert handed(WHOLE, [prefill], "eplb") is None
