"""The training step's parts: recompute, ZeRO traffic, group-limited messages, published FLOP counts."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from bench.accuracy.flops import training_flops_per_token
from placement.cost.calibration.efficiency import load_efficiency
from placement.cost.layer.balanced import BalancedLayer
from placement.cost.layer.scenario_rates import layer_rates, topology_of
from placement.cost.memory.hbm import memory_of
from placement.cost.step.throughput import MoeTimes, predict
from placement.cost.training.constants import load_training
from placement.cost.training.passes import group_limited
from placement.cost.training.step import TrainingModel, TrainingStep
from placement.errors import InputError
from placement.problem.split import Split, cut_problem, make_split
from placement.problem.topology import Topology
from specs.blocks.ffn import Moe
from specs.cluster import Cluster
from specs.engine import MessageRule
from tests.cost import scenarios as s


def step_of(
    split_changes: dict[str, Any] | None = None, cluster: Cluster | None = None, **changes: Any
) -> TrainingStep:
    case = s.scenario(workload=s.training(**changes), cluster=cluster or s.cluster(4, 4))
    split = make_split(case, tp=1, ep=4, pp=2, dp=4, batch=8)
    step = predict(case, split).step
    assert step is not None
    return step


def test_recompute_costs_time_and_saves_memory() -> None:
    steps, needs = [], []
    for mode in ("none", "selective", "full"):
        case = s.scenario(workload=s.training(recompute=mode))
        split = make_split(case, tp=1, ep=4, pp=2, dp=4, batch=16)
        step = predict(case, split).step
        assert step is not None
        steps.append(step.step_s)
        needs.append(memory_of(case, split).line("activations"))
        # What a split says of all layers is what a workload says.
        own = s.scenario(workload=s.training(recompute="auto"))
        given = replace(split, recompute=(mode,) * 12)
        assert memory_of(own, given) == memory_of(case, split)
        assert predict(own, given).step == step
    assert steps == sorted(steps)
    assert needs == sorted(needs, reverse=True)
    auto = s.scenario(workload=s.training(recompute="auto"))
    assert predict(auto, make_split(auto, 1, 4, 2, 4, 16)).step == step


def test_recompute_of_some_layers_lies_between() -> None:
    case = s.scenario(workload=s.training(recompute="auto"))
    split = make_split(case, tp=1, ep=4, pp=2, dp=4, batch=16)
    times = []
    for count in range(0, 13, 3):
        modes = ("full",) * count + ("none",) * (12 - count)
        step = predict(case, replace(split, recompute=modes)).step
        assert step is not None
        times.append(step.step_s)
    assert times == sorted(times)
    assert len(set(times)) == 5


def test_zero_stages_move_what_they_share() -> None:
    by_stage = [step_of(zero_stage=stage).gradients_s for stage in range(4)]
    # Weights are gathered in 2 bytes, gradients reduced in 4: (4 + 2) / (4 + 4) of an all-reduce of gradients.
    assert by_stage[1] == pytest.approx(0.75 * by_stage[0], rel=0.05)
    assert by_stage[2] >= by_stage[1] * (1 - 1e-9)
    assert step_of(zero_stage=1).optimizer_s < step_of(zero_stage=0).optimizer_s / 2
    # A slow network: what a microbatch moves under ZeRO 2 and 3 no longer hides.
    slow = s.cluster(4, 4)
    slow = slow.model_copy(update={"slow": slow.slow.model_copy(update={"gb_per_s": 0.5})})
    exposed = [step_of(cluster=slow, zero_stage=stage).gradients_s for stage in range(4)]
    assert exposed[3] > exposed[2] > 2 * exposed[1]


def test_one_replica_reduces_nothing() -> None:
    case = s.scenario(workload=s.training(zero_stage=1), cluster=s.cluster(1, 1))
    step = predict(case, make_split(case, 1, 1, 1, 1, 64)).step
    assert step is not None
    assert step.gradients_s == 0
    assert step.optimizer_s > 0


def test_scored_moe_time_replaces_the_estimate() -> None:
    case = s.scenario(workload=s.training())
    split = make_split(case, tp=1, ep=4, pp=2, dp=4, batch=16)
    slow, fast = (predict(case, split, MoeTimes(train_s=time)).step for time in (2e-2, 1e-2))
    assert slow is not None
    assert fast is not None
    # Six layers on a rank, each ten milliseconds longer (all longer than their launches), and the routed
    # element-wise work in proportion.
    assert slow.forward_s - fast.forward_s == pytest.approx(6e-2, rel=0.6)
    assert slow.forward_s - fast.forward_s >= 6e-2


@pytest.mark.parametrize("rule", ["per_node", "per_rank"])
def test_group_limited_messages_match_draws(rule: MessageRule) -> None:
    model = s.small_model(moe=Moe(experts=32, top_k=4, expert_width=512, groups=8, top_groups=3))
    case = s.scenario(model, cluster=s.cluster(4, 4), message_rule=rule)
    split = make_split(case, tp=1, ep=16, pp=1, dp=16, batch=1, redundant=0)
    topology = topology_of(case, split)
    plain = BalancedLayer.of(layer_rates(case, split, "prefill", 1.0), topology, 2, 32, 4, rule, 2.0)
    layer = group_limited(plain, topology, model.moe, rule)
    draw, nodes, ranks, count = random.Random(1), 0, 0, 20_000
    for _ in range(count):
        groups = draw.sample(range(8), 3)
        experts = draw.sample([4 * group + i for group in groups for i in range(4)], 4)
        nodes += len({expert // 8 for expert in experts})
        ranks += len({expert // 2 for expert in experts})
    touched = nodes if rule == "per_node" else ranks
    per_token = touched / count * (3 / 4)
    assert layer.slow_messages == pytest.approx(per_token, rel=0.02)
    assert layer.reach == pytest.approx(ranks / count / 16, rel=0.02)
    assert layer.slow_messages < plain.slow_messages


def test_ungrouped_or_straddling_groups_are_left_alone() -> None:
    model = s.small_model(moe=Moe(experts=8, top_k=2, expert_width=512, groups=2, top_groups=1))
    case = s.scenario(model)
    split = make_split(case, tp=1, ep=8, pp=1, dp=8, batch=1)
    layer = BalancedLayer.of(layer_rates(case, split, "prefill", 1.0), Topology(8, 4), 1, 8, 2, "per_node", 2.0)
    assert group_limited(layer, Topology(8, 1), model.moe, "per_node") == layer
    assert group_limited(layer, Topology(8, 4), s.small_model().moe, "per_node") == layer
    assert group_limited(layer, Topology(8, 4), model.moe, "per_expert") == layer


def test_flops_are_those_that_the_published_mfu_counts() -> None:
    # arXiv 2505.09343, table 4: 385 and 432 TFLOP/s at 19.926 s, 2,048 GPUs, 15,360 x 4,096 tokens.
    rate = 15_360 * 4_096 / 19.926 / 2_048
    model = s.deepseek_v3()
    assert training_flops_per_token(model, 4096) * rate == pytest.approx(385e12, rel=0.01)
    assert training_flops_per_token(model, 4096, causal=False) * rate == pytest.approx(432e12, rel=0.01)
    sliding = training_flops_per_token(s.gpt_oss(), 4096)
    wide = {"mixers": {**s.gpt_oss().mixers, "sliding": s.gpt_oss().mixers["full"]}}
    assert sliding < training_flops_per_token(s.gpt_oss().model_copy(update=wide), 4096)


def test_a_cut_moves_time_between_stages() -> None:
    case = s.scenario(workload=s.training(recompute="none"))
    split = make_split(case, tp=1, ep=4, pp=2, dp=4, batch=16)
    even = TrainingModel(case, s.training(recompute="none"), split, load_efficiency()).pieces()
    shifted = TrainingModel(case, s.training(recompute="none"), replace(split, cut=(8, 4)), load_efficiency()).pieces()
    assert sum(p.serial_s for p in even) == pytest.approx(sum(p.serial_s for p in shifted))
    assert shifted[0].forward_s > even[0].forward_s


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cut": (6, 6)}, ""),
        ({"cut": (6, 5)}, "holds 11 layers"),
        ({"cut": (4, 4, 4)}, "3 pieces, the schedule 2"),
        ({"recompute": ("full",) * 11}, "given for 11 layers"),
        ({"recompute": ("full",) * 12}, ""),
    ],
)
def test_cuts_that_do_not_fit_the_model_are_named(changes: dict[str, Any], problem: str) -> None:
    case = s.scenario(workload=s.training())
    split = make_split(case, tp=1, ep=4, pp=2, dp=4, batch=16)
    said = cut_problem(case, split.pp, changes.get("cut"), changes.get("recompute"))
    assert problem in said
    assert bool(problem) == bool(said)
    serving = s.scenario()
    assert "recompute" in cut_problem(serving, 2, None, ("full",) * 12)


def test_an_empty_piece_is_refused() -> None:
    with pytest.raises(InputError, match="a piece has no layer"):
        Split(1, 1, 2, 1, 1, 1, 0, 8, cut=(12, 0))


def test_schedules_that_a_split_can_not_run_are_refused() -> None:
    case = s.scenario(workload=s.training(schedule="dualpipe"))
    with pytest.raises(InputError, match="dualpipe needs"):
        make_split(case, tp=1, ep=4, pp=2, dp=4, batch=3)


def expert_s(experts: int, top_k: int, width: int, sequence: int = 4096) -> float:
    """Seconds of compute of a layer's passes for each token, on one GPU."""
    model = s.small_model(moe=Moe(experts=experts, top_k=top_k, expert_width=width))
    case = s.scenario(model, cluster=s.cluster(1, 1), workload=s.training(sequence=sequence))
    split = make_split(case, tp=1, ep=1, pp=1, dp=1, batch=64)
    return TrainingModel(case, case.workload, split, load_efficiency()).layer.blocks[-1].compute_s / sequence


def test_few_tokens_an_expert_and_narrow_experts_cost_more_for_the_same_work() -> None:
    wide = expert_s(experts=8, top_k=2, width=4096)
    assert expert_s(experts=64, top_k=16, width=512) > 1.1 * wide
    assert expert_s(experts=128, top_k=2, width=4096) > 1.1 * wide
    # More tokens bring each expert more rows, and share the launches and the gradients' traffic.
    assert expert_s(experts=8, top_k=2, width=4096, sequence=32_768) < wide


def test_gradients_are_added_up_in_their_own_type() -> None:
    narrow, wide = (step_of(gradient_bytes_per_parameter=size).pipeline for size in (2.0, 4.0))
    assert wide.total_s > narrow.total_s
    assert wide.forward_s == narrow.forward_s


def test_a_pass_lasts_as_long_as_its_launches() -> None:
    case = s.scenario(workload=s.training(sequence=16))
    split = make_split(case, tp=1, ep=4, pp=2, dp=4, batch=8)
    training = load_training()
    for factor in (1.0, 2.0):
        entry = training.launch_s.model_copy(update={"value": training.launch_s.value * factor})
        own = training.model_copy(update={"launch_s": entry})
        layer = TrainingModel(case, case.workload, split, load_efficiency(), training=own).layer
        # At least 40 kernels forward, twice as many backward.
        assert all(block.serial_s >= 3 * 40 * entry.value for block in layer.blocks)


def test_figures_are_calibrated_on_gpus_whose_runs_were_fitted_to() -> None:
    told = load_training()
    assert [told.provenance_on(name) for name in ("hopper", "blackwell", "ampere", None)] == [
        "calibrated", "calibrated", "population", "population",
    ]  # fmt: skip
