"""Redundant experts of a split are weighed, not taken for granted."""

from __future__ import annotations

from placement.cost.memory.hbm import memory_of
from placement.cost.step.throughput import MoeTimes
from placement.problem.split import Split
from solvers.deploy.replicas import with_replicas
from solvers.split.enumerate import enumerate_splits
from solvers.stop import Stop
from specs.model import Moe
from specs.scenario import Pins, Scenario
from tests.cost import scenarios as s


def case() -> Scenario:
    return s.scenario(
        s.small_model(moe=Moe(experts=8, top_k=2, expert_width=1024)),
        workload=s.serving(isl=512, osl=512, ttft_ms=500.0, tpot_ms=20.0),
        pins=Pins(ep=4),
    )


def test_replicas_that_pay_are_bought() -> None:
    scenario = case()
    choice = enumerate_splits(scenario)

    def placed(at: Scenario, split: Split) -> MoeTimes:
        return MoeTimes() if split.redundant >= 2 * split.ep else MoeTimes(prefill_ratio=2.0, decode_ratio=2.0)

    got = with_replicas(scenario, choice, placed)
    assert choice.best.redundant == 0
    assert got.best.redundant == 2 * got.best.ep
    assert memory_of(scenario, got.best).fits
    assert got.memory == memory_of(scenario, got.best)
    assert got.best.gpus + got.idle_gpus == scenario.cluster.gpus


def test_a_split_that_stays_is_returned_as_it_came() -> None:
    scenario = case()
    choice = enumerate_splits(scenario)
    assert with_replicas(scenario, choice, lambda at, split: MoeTimes()) is choice
    slight = with_replicas(scenario, choice, lambda at, split: MoeTimes(decode_ratio=1.0 if split.redundant else 1.001))
    assert slight is choice
    training = s.scenario(workload=s.training(), cluster=s.cluster(nodes=1, per_node=4))
    trained = enumerate_splits(training)
    assert with_replicas(training, trained, lambda at, split: MoeTimes()) is trained


def test_without_time_none_are_weighed() -> None:
    scenario = case()
    choice = enumerate_splits(scenario)

    def placed(at: Scenario, split: Split) -> MoeTimes:
        raise AssertionError("no time for this")

    assert with_replicas(scenario, choice, placed, Stop.after(0.0)) is choice
