"""Roofline, collectives and balanced MoE layers against figures worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from placement.cost.calibration.efficiency import Efficiency, load_efficiency
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.layer.balanced import BalancedLayer, touch_chance
from placement.cost.layer.scenario_rates import default_tokens_per_rank, layer_rates, topology_of
from placement.cost.layer.score import score_layer
from placement.cost.step.collectives import all_gather_s, replica_all_reduce_s, stage_transfer_s
from placement.cost.step.compute import (
    Product,
    Roofline,
    decode_core_s,
    prefill_core_s,
)
from placement.errors import InputError
from placement.problem.split import make_split
from placement.problem.topology import Topology
from specs.blocks.base import causal_pairs
from specs.cluster import Gpu
from tests.cost import scenarios as s
from tests.layers import layer_problem

CONSTANTS = load_efficiency()


def test_every_constant_states_its_reason() -> None:
    assert CONSTANTS.provenance == "roofline"
    for name, entry in CONSTANTS:
        if name != "provenance":
            assert len(entry.source) > 30, name


def test_a_type_without_a_constant_is_refused() -> None:
    data = CONSTANTS.model_dump()
    del data["matmul"]["value"]["fp8"]
    with pytest.raises(ValueError, match="fp8"):
        Efficiency.model_validate(data)


def test_product_is_bound_by_weights_then_by_tokens() -> None:
    roofline = Roofline.of(s.cluster().gpu, CONSTANTS)
    product = Product.of(roofline, 1e9, "bf16")
    read = 2e9 / (4e12 * CONSTANTS.hbm.value)
    assert product.seconds(1) == pytest.approx(read)
    assert product.seconds(100_000) == pytest.approx(2e14 / (1e15 * CONSTANTS.matmul.value["bf16"]))


def test_a_gpu_without_a_rate_is_bad_input() -> None:
    gpu = Gpu(name="old", hbm_gib=16.0, hbm_gb_per_s=900.0, peak_tflops={"fp16": 125.0})
    with pytest.raises(InputError, match="peak_tflops"):
        Roofline.of(gpu, CONSTANTS).matmul_flops("fp8")


def test_causal_pairs_by_summation() -> None:
    assert causal_pairs(100) == sum(range(1, 101))
    assert causal_pairs(100, 30) == sum(min(position, 30) for position in range(1, 101))
    assert causal_pairs(100, 200) == causal_pairs(100)


def test_attention_cores() -> None:
    roofline = Roofline.of(s.cluster().gpu, CONSTANTS)
    model = s.deepseek_v3()
    flops = 2 * 128 * (192 + 128) * causal_pairs(4096)
    mixer, types = model.mixers["full"], model.types
    assert prefill_core_s(roofline, mixer, 1, 4096) == pytest.approx(flops / roofline.attention_flops)
    read = 1152 * 5000 / roofline.kv_bytes_per_s
    multiply = 2 * 128 * (2 * 512 + 64) * 5000 / roofline.attention_decode_flops
    assert decode_core_s(roofline, mixer, types, 1, 5000) == pytest.approx(max(read, multiply))
    # The compressed cache is read whole by each tensor-parallel GPU, its products are shared.
    assert decode_core_s(roofline, mixer, types, 128, 5000) == pytest.approx(read)
    gqa = s.gpt_oss()
    assert decode_core_s(roofline, gqa.mixers["full"], gqa.types, 2, 5000) == pytest.approx(
        max(1024 * 5000 / roofline.kv_bytes_per_s, 4 * 32 * 64 * 5000 / roofline.attention_decode_flops)
    )


def test_collectives_inside_and_across_nodes() -> None:
    cluster, launch = s.cluster(nodes=4, per_node=4), CONSTANTS.collective_overhead_s.value
    assert all_gather_s(cluster, CONSTANTS, 1, 1e9) == 0
    share = CONSTANTS.collective_bandwidth.value
    inside = launch + 2e-6 + 1e9 * 3 / 4 / 400e9 / share
    assert all_gather_s(cluster, CONSTANTS, 4, 1e9) == pytest.approx(inside)
    across = inside + 2 * 5e-6 + 1e9 / 4 * 3 / 4 / 50e9 / share
    assert all_gather_s(cluster, CONSTANTS, 16, 1e9) == pytest.approx(across)
    # Four replicas of whole nodes reduce over the slow link alone.
    slow = 2 * launch + 2 * 2 * 5e-6 + 2 * 1e9 * 3 / 4 / 50e9
    assert replica_all_reduce_s(cluster, CONSTANTS, 4, 4, 1e9) == pytest.approx(slow)
    assert replica_all_reduce_s(cluster, CONSTANTS, 1, 4, 1e9) == 0


def test_stage_transfers_use_the_slow_link_at_a_nodes_edge() -> None:
    cluster = s.cluster(per_node=4)
    assert stage_transfer_s(cluster, 2, 0, 4e6) == pytest.approx(2e-6 + 4e6 / 400e9)
    assert stage_transfer_s(cluster, 2, 1, 4e6) == pytest.approx(5e-6 + 4e6 / 50e9)
    assert stage_transfer_s(cluster, 4, 0, 4e6) == pytest.approx(5e-6 + 4e6 / 50e9)


def test_touch_chance_by_counting_sets() -> None:
    # 4 experts in 2 parts, 2 drawn: 4 of the 6 pairs use both parts, so a part is touched by 5 of 6.
    assert touch_chance(4, 2, 2) == pytest.approx(5 / 6)
    assert touch_chance(8, 3, 8) == pytest.approx(3 / 8)
    assert touch_chance(8, 5, 2) == 1.0
    assert touch_chance(256, 8, 1) == 1.0


@pytest.mark.parametrize("nodes", [1, 2])
def test_balanced_layer_is_the_scorers_time_of_uniform_loads(nodes: int) -> None:
    case = s.scenario(cluster=s.cluster(nodes=nodes, per_node=4), message_rule="per_expert")
    split = make_split(case, tp=1, ep=4 * nodes, pp=1, dp=4 * nodes, batch=16)
    rates, topology = layer_rates(case, split, "decode"), topology_of(case, split)
    balanced = BalancedLayer.of(rates, topology, split.slots_per_gpu, 8, 2, "per_expert", shape=1e12)
    problem = layer_problem(np.full(8, 2 / 8), topology, split.slots_per_gpu, rates, message="per_expert")
    score = score_layer(problem, np.arange(8))
    assert balanced.seconds(rates.tokens_per_gpu) == pytest.approx(score.time_s)
    assert balanced.experts_s(rates.tokens_per_gpu) == pytest.approx(score.experts_s)


def test_uneven_loads_touch_fewer_experts() -> None:
    case = s.scenario(cluster=s.cluster(nodes=1, per_node=4))
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=1)
    rates, topology = layer_rates(case, split, "decode"), topology_of(case, split)
    even, uneven = (
        BalancedLayer.of(rates, topology, split.slots_per_gpu, 8, 2, "per_expert", shape) for shape in (1e12, 2.0)
    )
    # One token a rank puts half a token on a slot: chances of none are exp(-1/2), and those drawn from a gamma mixture.
    means = np.random.default_rng(0).gamma(2.0, 0.5 / 2.0, 400_000)
    for layer, none in ((even, np.exp(-0.5)), (uneven, np.exp(-means).mean())):
        touched = layer.experts_s(0.5) / (split.slots_per_gpu * rates.weight_s)
        assert touched == pytest.approx(1 - none, abs=2e-3)


def test_rates_of_a_layer() -> None:
    case = s.scenario(s.deepseek_v3(), cluster=s.cluster(nodes=4, per_node=8))
    split = make_split(case, tp=2, ep=16, pp=1, dp=16, batch=64, redundant=0)
    rates = layer_rates(case, split, "decode")
    assert split.etp == 2
    # 64 sequences over 2 GPUs, for a rank of 2 GPUs.
    assert rates.tokens_per_gpu == 64
    parameters = 3 * 7168 * 2048 / 2
    constants = efficiency_of(case)
    assert rates.weight_s == pytest.approx(parameters / (4e12 * constants.hbm_experts.value))
    assert rates.token_s == pytest.approx(2 * parameters / (2e15 * constants.expert_matmul.value["fp8"]))
    assert rates.dispatch_bytes == 7168 + 7168 // 128 * 4
    assert rates.combine_bytes == 7168 * 2
    assert rates.slow_bytes_per_s == 2 * 50e9
    assert topology_of(case, split) == Topology(16, 4, 1)
    assert layer_rates(case, split, "prefill").tokens_per_gpu == 2 * 4096
    assert layer_rates(case, split, "decode", 5.0).tokens_per_gpu == 5.0


def test_topology_inside_a_node_and_with_trays() -> None:
    case = s.scenario(cluster=s.cluster(nodes=2, per_node=8, tray=4))
    assert topology_of(case, make_split(case, tp=1, ep=4, pp=1, dp=4, batch=1)) == Topology(4, 4, 1)
    assert topology_of(case, make_split(case, tp=1, ep=16, pp=1, dp=16, batch=1)) == Topology(16, 8, 4)
    assert topology_of(case, make_split(case, tp=2, ep=8, pp=1, dp=8, batch=1)) == Topology(8, 4, 2)


def test_default_tokens_count_microbatches() -> None:
    case = s.scenario()
    split = make_split(case, tp=2, ep=2, pp=4, dp=1, batch=40)
    assert default_tokens_per_rank(case, split, "decode") == 40 / 4 / 2
    train = s.scenario(workload=s.training(microbatch=2))
    assert default_tokens_per_rank(train, make_split(train, tp=2, ep=2, pp=2, dp=1, batch=32), "train") == 1024
