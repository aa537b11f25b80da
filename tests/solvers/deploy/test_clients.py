"""Instances for a closed loop of clients."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from placement.cost.step.roles import context_degrees, decode_point
from placement.cost.step.throughput import ServingModel
from placement.problem.split import make_split
from solvers.deploy.clients import Server, best_serving, list_servers, serve
from solvers.deploy.columns import pool_of
from specs.loading import load_scenario
from specs.overrides import overridden
from specs.scenario import Scenario


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return overridden(load_scenario("qwen3_235b_h100_ib"), nodes=2, engine="trtllm")


@pytest.fixture(scope="module")
def servers(scenario: Scenario) -> tuple[Server, ...]:
    return list_servers(scenario, ("prefill", "decode", "aggregated"))


def test_no_deployment_serves_clients_sooner(scenario: Scenario, servers: tuple[Server, ...]) -> None:
    few = [server for server in servers if server.split.pp == 1]
    pool = pool_of(scenario)
    halves = [[each for each in few if each.role == role] for role in ("prefill", "decode")]
    for clients in (8, 200):
        best = best_serving(few, clients, pool)
        assert best is not None
        assert best.clients <= clients * (1 + 1e-6)
        rates = [serve(((one, 1),), clients).requests_per_s for one in few if one.role == "aggregated"]
        for one, other in product(*halves):
            left = pool.gpus - one.gpus
            if left >= other.gpus:
                rates.append(serve(((one, 1), (other, left // other.gpus)), clients).requests_per_s)
        # Candidates are compared on a grid of rates first.
        assert best.requests_per_s >= max(rates) * (1 - 1e-3)


def test_more_clients_are_served_faster_until_instances_are_full(
    scenario: Scenario, servers: tuple[Server, ...]
) -> None:
    (decode,) = [
        s for s in servers if s.role == "decode" and (s.split.tp, s.split.ep, s.split.pp, s.split.dp) == (1, 16, 1, 16)
    ]
    rates = [serve(((decode, 1),), clients).requests_per_s for clients in (1, 4, 16, 64, 256, 10**6)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(decode.rates[-1])
    # Half of the ranks have nothing to do: a step takes as long as with one sequence on each.
    assert rates[1] == pytest.approx(4 * rates[0])
    workload = scenario.workload
    assert workload.kind == "serving"
    model = ServingModel(scenario, workload, make_split(scenario, 1, 16, 1, 16, 1, instances=1))
    batch = decode.most - 3
    assert batch > 1
    found = serve(((decode, 1),), 16 * batch).requests_per_s
    assert found == pytest.approx(decode_point(model, batch).requests_per_s, rel=0.02)


def test_gpus_bound_what_is_used_and_nodes_must_hold_it(scenario: Scenario, servers: tuple[Server, ...]) -> None:
    pool = pool_of(scenario)
    most = [best_serving(servers, 64, pool, gpus) for gpus in (8, 12, 16)]
    used = [best.gpus for best in most if best]
    assert len(used) == 3
    assert all(gpus <= room for gpus, room in zip(used, (8, 12, 16), strict=True))
    rates = [best.requests_per_s for best in most if best]
    assert rates == sorted(rates)
    assert best_serving(servers, 64, replace(pool, gpus_per_node=1, nodes=1)) is None


def test_prompts_are_shared_only_where_the_engine_can(scenario: Scenario, servers: tuple[Server, ...]) -> None:
    split = make_split(scenario, 1, 8, 1, 8, 1, instances=1)
    assert context_degrees(scenario, split) == [1]
    assert context_degrees(overridden(scenario, engine="generic"), split) == [1, 2, 4, 8]
    assert {server.cp for server in servers} == {1}
