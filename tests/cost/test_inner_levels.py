"""Levels inside a node and unequal nodes, as the cost model prices them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from placement.cost.calibration.efficiency import load_efficiency
from placement.cost.layer.scenario_rates import layer_rates, rank_speeds
from placement.cost.memory.hbm import MemoryModel
from placement.cost.step.collectives import (
    all_gather_s,
    replica_all_reduce_s,
    slowest_edge,
    stage_transfer_s,
)
from placement.problem.split import make_split
from specs.cluster import Cluster, Gpu, InnerLevel, OtherNodes
from tests.cost import scenarios as s

CONSTANTS = load_efficiency()
PAIR = InnerLevel(name="pair", gpus=2, gb_per_s=2000.0, latency_us=1.0)
SOCKET = InnerLevel(name="socket", gpus=4, gb_per_s=1000.0, latency_us=1.5)


def nested(**changes: Any) -> Cluster:
    """Nodes of eight GPUs on 400 GB/s, sockets of four on 1,000, pairs on 2,000."""
    return Cluster.model_validate({**s.cluster(per_node=8).model_dump(), "inner": (PAIR, SOCKET), **changes})


def inside_s(ranks: int, rate: float, latency_s: float) -> float:
    share = CONSTANTS.collective_bandwidth.value
    return CONSTANTS.collective_overhead_s.value + latency_s + 1e9 * (ranks - 1) / ranks / rate / share


@pytest.mark.parametrize(("ranks", "rate", "latency"), [(2, 2e12, 1e-6), (4, 1e12, 1.5e-6), (8, 4e11, 2e-6)])
def test_a_collective_takes_the_rate_of_the_level_that_holds_it(ranks: int, rate: float, latency: float) -> None:
    assert all_gather_s(nested(), CONSTANTS, ranks, 1e9) == pytest.approx(inside_s(ranks, rate, latency))


def test_a_group_of_every_second_gpu_crosses_what_it_spans() -> None:
    assert all_gather_s(nested(), CONSTANTS, 2, 1e9, 2) == pytest.approx(inside_s(2, 1e12, 1.5e-6))
    launch = 2 * CONSTANTS.collective_overhead_s.value
    assert replica_all_reduce_s(nested(), CONSTANTS, 2, 2, 1e9) == pytest.approx(launch + 2 * (1.5e-6 + 0.5e9 / 1e12))
    assert replica_all_reduce_s(nested(), CONSTANTS, 2, 1, 1e9) == pytest.approx(launch + 2 * (1e-6 + 0.5e9 / 2e12))


def test_a_stage_sends_over_the_innermost_level_that_holds_both() -> None:
    links = [stage_transfer_s(nested(), 1, stage, 4e6) for stage in range(8)]
    rates = [2e12, 1e12, 2e12, 4e11, 2e12, 1e12, 2e12, 5e10]
    waits = [1e-6, 1.5e-6, 1e-6, 2e-6, 1e-6, 1.5e-6, 1e-6, 5e-6]
    assert links == pytest.approx([wait + 4e6 / rate for wait, rate in zip(waits, rates, strict=True)])
    # Stages of two fill a pair, and are no part of one.
    assert stage_transfer_s(nested(), 2, 0, 4e6) == pytest.approx(1.5e-6 + 4e6 / 1e12)


@pytest.mark.parametrize("per_stage", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("stages", [2, 4, 8])
def test_the_slowest_edge_is_the_slowest_of_all(per_stage: int, stages: int) -> None:
    times = [stage_transfer_s(nested(), per_stage, stage, 4e6) for stage in range(stages - 1)]
    assert times[slowest_edge(nested(), per_stage, stages)] == max(times)


@pytest.mark.parametrize(("ep", "rate"), [(2, 2e12), (4, 1e12), (8, 4e11), (16, 4e11)])
def test_expert_messages_inside_a_node_take_the_narrowest_level_they_cross(ep: int, rate: float) -> None:
    case = s.scenario(s.small_model(moe=s.Moe(experts=16, top_k=2, expert_width=2048)), cluster=nested())
    rates = layer_rates(case, make_split(case, 1, ep, 1, ep, 8), "decode")
    assert rates.fast_bytes_per_s == rate


def gpu(name: str, hbm: float, memory: float, peak: float) -> Gpu:
    return Gpu(name=name, hbm_gib=hbm, hbm_gb_per_s=memory, peak_tflops={"bf16": peak, "fp8": 2 * peak})


def mixed(other: Gpu, nodes: int = 2, last: int = 1) -> Cluster:
    """Nodes of four round GPUs, the last ones with another kind."""
    return s.cluster(nodes=nodes).model_copy(update={"other_nodes": (OtherNodes(nodes=last, gpu=other),)})


def test_faster_nodes_work_faster_as_the_phase_is_bound() -> None:
    # Twice the bandwidth, the same peak.
    case = s.scenario(cluster=mixed(gpu("wide", 160.0, 8000.0, 1000.0)))
    split = make_split(case, 1, 8, 1, 8, 8)
    for phase, speed in (("decode", 2.0), ("prefill", 1.0)):
        speeds = rank_speeds(case, split, layer_rates(case, split, phase))  # type: ignore[arg-type]
        wanted = None if speed == 1.0 else [1.0] * 4 + [speed] * 4
        assert (speeds is None) == (wanted is None)
        assert speeds is None or speeds == pytest.approx(np.array(wanted))
    # HBM and dense parts are those of what all have.
    plain = s.scenario()
    assert MemoryModel(case, split).capacity_bytes == MemoryModel(plain, split).capacity_bytes
    assert layer_rates(case, split, "decode") == layer_rates(plain, split, "decode")


def test_a_slower_first_kind_is_the_base_whatever_the_order() -> None:
    slow = gpu("narrow", 80.0, 2000.0, 1000.0)
    case = s.scenario(cluster=mixed(slow))
    split = make_split(case, 1, 8, 1, 8, 8)
    speeds = rank_speeds(case, split, layer_rates(case, split, "decode"))
    assert speeds == pytest.approx(np.array([2.0] * 4 + [1.0] * 4))


def test_a_rank_is_as_fast_as_its_slowest_place_in_any_instance() -> None:
    fast = gpu("wide", 160.0, 8000.0, 1000.0)
    one = s.scenario(cluster=mixed(fast))
    split = make_split(one, 1, 4, 1, 4, 8)
    assert split.instances == 2
    assert rank_speeds(one, split, layer_rates(one, split, "decode")) is None
    # Two instances of two nodes each; the second node is fast in one of them, the fourth in the other.
    half = s.cluster(nodes=4).model_copy(update={"other_nodes": (OtherNodes(nodes=1, gpu=fast),)})
    case = s.scenario(cluster=half)
    wide = make_split(case, 1, 8, 1, 8, 8)
    assert rank_speeds(case, wide, layer_rates(case, wide, "decode")) is None
    alone = make_split(case, 1, 8, 1, 8, 8, instances=1)
    assert rank_speeds(case, alone, layer_rates(case, alone, "decode")) is None
