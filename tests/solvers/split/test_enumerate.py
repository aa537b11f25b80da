"""The split choice against brute force, its refusals, and its time on the catalog."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product

import pytest

from placement.cost.memory.hbm import memory_of
from placement.cost.step.throughput import predict
from placement.errors import InfeasibleError, InputError
from placement.problem.split import Split, make_split
from solvers.split.degrees import list_candidates
from solvers.split.enumerate import enumerate_splits
from solvers.stop import Stop
from specs.blocks.attention import GqaAttention
from specs.blocks.ffn import Moe
from specs.loading import list_catalog, load_scenario
from specs.overrides import overridden
from specs.scenario import Pins, Scenario
from tests.cost import scenarios as s


def all_splits(case: Scenario, batches: range) -> Iterator[Split]:
    """Every valid split of a small serving scenario, by trying all degrees."""
    gpus = case.cluster.gpus
    for tp, dp, pp in product(range(1, gpus + 1), repeat=3):
        if tp * dp * pp > gpus:
            continue
        for ep in range(1, tp * dp + 1):
            if tp * dp % ep:
                continue
            for batch in batches:
                try:
                    yield make_split(case, tp, ep, pp, dp, batch)
                except InputError:
                    break


def small_cases() -> list[Scenario]:
    tight = s.cluster(nodes=2, per_node=3, hbm_gib=5.0)
    slow = s.serving(isl=512, osl=64, ttft_ms=60.0, tpot_ms=2.25)
    quick = s.serving(isl=512, osl=64, ttft_ms=60.0, tpot_ms=0.9)
    nine = s.small_model(attention=GqaAttention(kind="gqa", query_heads=18, kv_heads=18, head_dim=64))
    odd = s.small_model(layers=5, moe=Moe(experts=7, top_k=3, expert_width=1536), hidden=768)
    return [
        s.scenario(cluster=s.cluster(nodes=2, per_node=2, hbm_gib=6.0), workload=s.serving(isl=6144, osl=1024)),
        s.scenario(nine, cluster=tight, workload=slow, reserve_gib=1.0),
        s.scenario(odd, cluster=s.cluster(nodes=3, per_node=2, hbm_gib=5.0), workload=quick, reserve_gib=3.5),
        s.scenario(odd, cluster=tight, workload=quick, message_rule="per_rank", overlap="two_batch", reserve_gib=2.0),
    ]


@pytest.mark.parametrize("index", range(4))
def test_choice_is_the_best_of_all_splits(index: int) -> None:
    case = small_cases()[index]
    workload = case.workload
    assert workload.kind == "serving"
    choice = enumerate_splits(case)
    best, seen = 0.0, 0
    for split in all_splits(case, range(1, 90)):
        seen += 1
        got = predict(case, split)
        if not memory_of(case, split).fits or (got.ttft_s or 0) * 1e3 > workload.ttft_ms:
            continue
        if (got.tpot_s or 0) * 1e3 <= workload.tpot_ms:
            best = max(best, got.tokens_per_s)
    assert seen > 200
    assert choice.best.batch < 90, "the brute force must reach past the chosen batch"
    assert choice.prediction.tokens_per_s == pytest.approx(best, rel=1e-8)


def test_choice_is_feasible_and_reports_itself() -> None:
    case = small_cases()[1]
    choice = enumerate_splits(case)
    assert choice == enumerate_splits(case)
    assert choice.memory == memory_of(case, choice.best)
    assert choice.prediction == predict(case, choice.best)
    assert choice.idle_gpus == case.cluster.gpus - choice.best.gpus
    rates = [choice.prediction.tokens_per_s, *(r.prediction.tokens_per_s for r in choice.runners_up)]
    assert rates == sorted(rates, reverse=True)
    assert len(rates) == 6
    assert sum(entry.count for entry in choice.dropped) < choice.considered


def test_training_choice_is_the_best_of_all_splits() -> None:
    case = s.scenario(workload=s.training(global_batch=48), cluster=s.cluster(nodes=2, per_node=3, hbm_gib=24.0))
    choice = enumerate_splits(case)
    best = 0.0
    for found in all_splits(case, range(1, 2)):
        for instances in range(1, found.instances + 1):
            if 48 % (found.dp * instances):
                continue
            batch = 48 // (found.dp * instances)
            split = make_split(case, found.tp, found.ep, found.pp, found.dp, batch, instances=instances)
            if memory_of(case, split).fits:
                best = max(best, predict(case, split).tokens_per_s)
    assert choice.prediction.tokens_per_s == pytest.approx(best)
    assert choice.best.batch * choice.best.dp * choice.best.instances == 48


def test_pins_are_kept() -> None:
    case = s.scenario()
    choice = enumerate_splits(case, Pins(tp=2, ep=4, pp=2, dp=2, batch=24))
    best = choice.best
    assert (best.tp, best.ep, best.pp, best.dp, best.batch) == (2, 4, 2, 2, 24)
    assert choice.considered == 1
    assert enumerate_splits(case.model_copy(update={"pins": Pins(ep=8)})).best.ep == 8
    assert enumerate_splits(case, Pins(ep=4), redundant=8).best.slots_per_gpu == 4


@pytest.mark.parametrize(
    ("pins", "redundant", "message"),
    [
        (Pins(tp=3), "auto", "tp 3 does not divide the 16 query heads; use tp 2 or 4"),
        (Pins(tp=8, dp=8), "auto", "64 GPUs are pinned, the cluster has 8"),
        (Pins(pp=13), "auto", "13 GPUs are pinned, the cluster has 8"),
        (Pins(tp=1, dp=3), "auto", "tp x dp = 3 neither divides a node of 4 GPUs nor fills whole nodes; use dp 2 or 4"),
        (Pins(ep=3), "auto", "no stage of the cluster's nodes has ep 3; use ep 2 or 4"),
        (Pins(tp=1, dp=4, ep=3), "auto", "ep 3 does not divide tp x dp = 4"),
        (Pins(ep=4), 6, "8 experts + 6 redundant do not divide over ep 4; use 4 or 8 redundant experts"),
        (Pins(ep=2), 10, "put two copies of an expert on one GPU; use 8 redundant experts"),
        (None, 3, "has redundant 3; unpin one, or use redundant 2 or 4"),
        (Pins(ep=8, pp=2), "auto", "no split of small over 8 GPUs has ep 8, pp 2"),
    ],
)
def test_impossible_pins_are_refused_by_name(pins: Pins | None, redundant: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        enumerate_splits(s.scenario(), pins, redundant)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ["generic", "vllm", "sglang", "trtllm"])
def test_a_share_of_an_expert_that_is_no_whole_blocks_is_refused(engine: str) -> None:
    # Qwen3-235B-FP8: an expert is 1,536 wide, 192 columns over 8 GPUs; scales are of 128 x 128 weights.
    types = dict.fromkeys(("attention", "dense", "experts", "compute", "dispatch"), "fp8")
    fp8 = {"model.types": {**types, "block": 128}, "engine": engine}
    case = overridden(load_scenario("qwen3_235b_h100_ib"), set=fp8)
    reason = "8 gives a GPU 192 columns of an expert, which no engine loads: scales are of 128-wide blocks"
    for pins in (Pins(tp=8, ep=1), Pins(tp=8, ep=1, dp=1), Pins(tp=1, ep=1, dp=8), Pins(dp=8, ep=1)):
        with pytest.raises(InputError, match=reason):
            enumerate_splits(case, pins)
    found = list_candidates(case, Pins(), None).degrees
    assert {d.tp * d.dp // d.ep for d in found} <= {1, 2, 4}
    bf16 = list_candidates(overridden(case, set={"model.types": {"experts": "bf16"}}), Pins(), None).degrees
    assert (8, 1, 1) in {(d.tp, d.ep, d.dp) for d in bf16}


def test_too_little_hbm_names_the_line_and_a_cluster_that_just_fits() -> None:
    model = s.deepseek_v3()
    case = s.scenario(model, cluster=s.cluster(nodes=1, per_node=8))
    with pytest.raises(InfeasibleError, match="breaks it is expert weights") as caught:
        enumerate_splits(case)
    text = str(caught.value)
    gpus = int(text.split(" has ")[1].split(" GPUs")[0])
    assert f"the smallest cluster of round that fits it has {gpus} GPUs" in text
    assert enumerate_splits(s.scenario(model, cluster=s.cluster(nodes=gpus // 8, per_node=8))).best.gpus <= gpus
    with pytest.raises(InfeasibleError):
        enumerate_splits(s.scenario(model, cluster=s.cluster(nodes=gpus // 8 - 1, per_node=8)))


def test_pins_that_no_cluster_can_hold_are_told() -> None:
    case = s.scenario(s.deepseek_v3(), cluster=s.cluster(nodes=1, per_node=8))
    with pytest.raises(InfeasibleError, match="unpin a degree"):
        enumerate_splits(case, Pins(tp=1, dp=1, pp=1))


@pytest.mark.parametrize(("field", "name"), [("ttft_ms", "TTFT"), ("tpot_ms", "TPOT")])
def test_missed_objective_names_the_best_reachable(field: str, name: str) -> None:
    with pytest.raises(InfeasibleError, match=f"no split meets {name} 0.01 ms; the best reachable is") as caught:
        enumerate_splits(s.scenario(workload=s.serving(**{field: 0.01})))
    best = float(str(caught.value).split("best reachable is ")[1].split(" ms")[0])
    # At a hair over the best, a split is found.
    assert enumerate_splits(s.scenario(workload=s.serving(**{field: best * 1.001}))).best.batch >= 1


def test_global_batch_that_no_split_divides() -> None:
    case = s.scenario(workload=s.training(global_batch=8, microbatch=16))
    with pytest.raises(InputError, match="global_batch"):
        enumerate_splits(case)


@pytest.mark.parametrize("name", [entry.name for entry in list_catalog("scenario")])
def test_every_catalog_scenario_has_a_split_in_seconds(name: str) -> None:
    case = load_scenario(name)
    started = time.process_time()
    choice = enumerate_splits(case)
    assert time.process_time() - started < 5
    assert choice.memory.fits
    # Above 64 nodes the lists are sparse.
    assert choice.thinned == (case.cluster.nodes > 64)
    if case.pins.ep is not None:
        assert choice.best.ep == case.pins.ep
    if case.workload.kind == "serving":
        assert (choice.prediction.ttft_s or 0) * 1e3 <= case.workload.ttft_ms
        assert (choice.prediction.tpot_s or 0) * 1e3 <= case.workload.tpot_ms


def test_a_deadline_ends_the_search_with_the_first_split_that_fits() -> None:
    case = small_cases()[0]
    whole, cut = enumerate_splits(case), enumerate_splits(case, stop=Stop.after(0.0))
    assert cut.considered < cut.listed == whole.listed == whole.considered
    assert cut.memory.fits
    assert cut.prediction.tokens_per_s <= whole.prediction.tokens_per_s
    assert enumerate_splits(case, stop=Stop.after(3600.0)) == whole


def test_a_deadline_does_not_hide_that_nothing_fits() -> None:
    case = s.scenario(workload=s.serving(ttft_ms=0.01))
    with pytest.raises(InfeasibleError):
        enumerate_splits(case, stop=Stop.after(0.0))
