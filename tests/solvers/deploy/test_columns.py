"""Columns: feasible, priced by the cost model, and none dropped that the best deployment of a small cluster needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from placement.cost.memory.hbm import memory_of
from placement.cost.step.collectives import all_gather_s
from placement.cost.step.roles import (
    Role,
    context_degrees,
    kv_bytes_per_request,
    prefill_point,
    prompt_alone_s,
)
from placement.cost.step.throughput import MoeTimes, ServingModel, predict
from placement.errors import InputError
from placement.problem.split import Split, make_split
from solvers.deploy.columns import list_columns, pool_of
from solvers.deploy.dominance import undominated
from solvers.deploy.milp import solve_milp
from solvers.deploy.problem import Column, MasterProblem
from specs.blocks.attention import GqaAttention
from specs.blocks.ffn import Moe
from specs.scenario import Pins, Scenario
from tests.cost import scenarios as s
from tests.solvers.deploy.problems import ROLES, best_rate, random_problem
from tests.solvers.split.test_enumerate import all_splits


def small(seed: int) -> Scenario:
    """A random small model on a random small cluster."""
    rng = np.random.default_rng(seed)
    experts = int(rng.integers(2, 9))
    heads = int(rng.choice([4, 6, 8]))
    model = s.small_model(
        layers=int(rng.integers(2, 6)),
        hidden=256 * int(rng.integers(2, 5)),
        attention=GqaAttention(kind="gqa", query_heads=heads, kv_heads=2, head_dim=64),
        moe=Moe(experts=experts, top_k=int(rng.integers(1, min(4, experts) + 1)), expert_width=768),
    )
    cluster = s.cluster(
        nodes=int(rng.integers(1, 3)), per_node=int(rng.integers(1, 4)), hbm_gib=float(rng.uniform(4.0, 8.0))
    )
    workload = s.serving(
        isl=int(rng.integers(256, 4096)), osl=int(rng.integers(16, 512)), ttft_ms=float(rng.uniform(30, 200)),
        tpot_ms=float(rng.uniform(1, 10)),
    )  # fmt: skip
    return s.scenario(model, cluster=cluster, workload=workload, reserve_gib=1.0)


def columns_of(case: Scenario, roles: tuple[Role, ...] = ROLES) -> tuple[Column, ...]:
    return list_columns([case], roles, Pins(), None).columns


@pytest.mark.parametrize("block", range(10))
def test_the_best_deployment_of_small_models_by_brute_force(block: int) -> None:
    """The brute force prices every split itself, batch by batch, and keeps all sizes."""
    for seed in range(10 * block, 10 * block + 10):
        case = small(seed)
        workload = case.workload
        assert workload.kind == "serving"
        best: dict[int, Column] = {}
        for split in all_splits(case, (1,)):
            column = _best_batch(case, replace(split, instances=1))
            if column is not None and (
                split.gpus_per_instance not in best
                or best[split.gpus_per_instance].point.requests_per_s < column.point.requests_per_s
            ):
                best[split.gpus_per_instance] = column
        every = MasterProblem((pool_of(case),), tuple(best.values()), 0.0)
        mine = MasterProblem((pool_of(case),), columns_of(case, ("aggregated",)), 0.0)
        if not best:
            assert not mine.columns
            continue
        assert solve_milp(mine).requests_per_s == pytest.approx(best_rate(every), rel=1e-8), seed


def _best_batch(case: Scenario, split: Split) -> Column | None:
    """The column of the largest feasible batch, found by trying all up to 40 and then by powers and halves."""
    from placement.cost.step.roles import aggregated_point

    workload = case.workload
    assert workload.kind == "serving"
    model = ServingModel(case, workload, split)

    def fits(batch: int) -> bool:
        point = model.at(batch)
        sized = replace(split, batch=batch, microbatches=min(split.pp, batch))
        in_time = point.ttft_s * 1e3 <= workload.ttft_ms and point.tpot_s * 1e3 <= workload.tpot_ms
        return in_time and memory_of(case, sized).fits

    if not fits(1):
        return None
    largest = 1
    while largest < 4096 and fits(largest + 1):
        step = 1
        while largest + 2 * step <= 4096 and fits(largest + 2 * step):
            step *= 2
        largest += step
    return Column(0, "aggregated", replace(split, batch=largest), aggregated_point(model, largest))


def test_dominance_never_costs_rate() -> None:
    for seed in range(60):
        problem = random_problem(seed)
        kept = []
        for index, pool in enumerate(problem.pools):
            mine = [column for column in problem.columns if column.pool == index]
            kept += undominated(mine, pool.gpus_per_node, Counter())
        fewer = replace(problem, columns=tuple(kept))
        assert best_rate(fewer) == pytest.approx(best_rate(problem)), seed


def test_columns_are_what_the_cost_model_says() -> None:
    case = s.scenario(workload=s.serving(isl=2048, osl=256, ttft_ms=80.0, tpot_ms=4.0))
    workload = case.workload
    assert workload.kind == "serving"
    found = columns_of(case)
    assert {column.role for column in found} == set(ROLES)
    for column in found:
        split, point = column.split, column.point
        assert memory_of(case, split).fits
        if column.role == "aggregated":
            got = predict(case, split)
            assert got.tokens_per_s == pytest.approx(point.requests_per_s * workload.osl)
            assert point.ttft_s == pytest.approx(got.ttft_s or 0.0)
            assert (point.ttft_s or 1.0) * 1e3 <= workload.ttft_ms
        if column.role == "decode":
            model = ServingModel(case, workload, split)
            assert point.tpot_s == pytest.approx(model.decode_step_s(split.batch))
            assert point.requests_per_s == pytest.approx(split.batch * split.dp / (point.tpot_s or 1.0) / workload.osl)
            assert (point.tpot_s or 1.0) * 1e3 <= workload.tpot_ms
        if column.role == "prefill":
            assert (point.ttft_s or 1.0) * 1e3 <= workload.ttft_ms * (1 + 1e-9)


def test_a_prefill_instance_is_busier_the_looser_the_objective() -> None:
    case = s.scenario(workload=s.serving(isl=2048, osl=64))
    model = ServingModel(case, s.serving(isl=2048, osl=64), make_split(case, 1, 4, 1, 4, 1, instances=1))
    assert prefill_point(model, 1e-4) is None
    points = [prefill_point(model, limit) for limit in (0.02, 0.05, 0.2, 5.0)]
    rates = [point.requests_per_s for point in points if point is not None]
    assert len(rates) >= 3
    assert rates == sorted(rates)
    loosest = points[-1]
    assert loosest is not None
    assert (loosest.ttft_s or 0.0) < 5.0


def test_sharing_a_prompt_shortens_it_and_costs_gathers() -> None:
    workload = s.serving(isl=16384, osl=64, prefill_tokens_per_gpu=4096)
    case = s.scenario(workload=workload)
    model = ServingModel(case, workload, make_split(case, 1, 4, 1, 4, 1, instances=1))
    assert context_degrees(case, model.split) == [1, 2, 4]
    alone = [prompt_alone_s(model, cp) for cp in (1, 2, 4)]
    assert alone == sorted(alone, reverse=True)
    # Four passes of a quarter each become one, with a gather of all keys and values in each of 12 layers.
    gather = all_gather_s(case.cluster, model.efficiency, 4, 16384 * 2 * 4 * 64 * 2)
    fixed = alone[0] - (model.full_pass.stages_s + 3 * model.full_pass.slowest_s)
    moved = kv_bytes_per_request(case) * (1 - 1 / 4) / case.cluster.slow.bytes_per_s
    assert alone[2] == pytest.approx(model.full_pass.stages_s + 12 * gather + fixed - moved)
    loose = [prefill_point(model, 60.0, cp) for cp in (1, 4)]
    assert loose[0] is not None
    assert loose[1] is not None
    # With all the time there is, gathers are only a cost; under a tight objective sharing is what meets it.
    assert loose[1].requests_per_s < loose[0].requests_per_s
    tight = (alone[0] + alone[2]) / 2
    assert prefill_point(model, tight, 1) is None
    assert prefill_point(model, tight, 4) is not None
    quick = case.model_copy(update={"workload": workload.model_copy(update={"ttft_ms": tight * 1e3})})
    assert any(column.cp > 1 for column in list_columns([quick], ("prefill",), Pins(dp=4, tp=1, pp=1), None).columns)


def test_kv_of_a_request() -> None:
    case = s.scenario(s.gpt_oss(), workload=s.serving(isl=4096))
    # 18 layers keep 4,096 tokens, 18 the last 128, each 2,048 bytes.
    assert kv_bytes_per_request(case) == 18 * (4096 + 128) * 2048


def test_pools_of_unlike_gpus_are_used_together() -> None:
    case = s.scenario(workload=s.serving(isl=1024, osl=128, ttft_ms=100.0, tpot_ms=10.0))
    other = case.model_copy(update={"cluster": s.cluster(nodes=1, per_node=2, name="other")})
    both = list_columns([case, other], ("aggregated",), Pins(), None)
    problem = MasterProblem((pool_of(case), pool_of(other)), both.columns, 0.0)
    one = MasterProblem((pool_of(case),), columns_of(case, ("aggregated",)), 0.0)
    assert solve_milp(problem).requests_per_s > solve_milp(one).requests_per_s
    assert {column.pool for column in both.columns} == {0, 1}


def test_replicas_are_bought_where_they_pay() -> None:
    case = s.scenario(
        s.small_model(moe=Moe(experts=8, top_k=2, expert_width=1024)),
        workload=s.serving(isl=512, osl=512, ttft_ms=500.0, tpot_ms=20.0),
    )

    def placed(scenario: Scenario, split: Split) -> MoeTimes:
        return MoeTimes() if split.redundant >= split.ep else MoeTimes(prefill_ratio=3.0, decode_ratio=3.0)

    pins = Pins(ep=4)
    found = list_columns([case], ("aggregated",), pins, None, placed).columns
    assert any(column.split.redundant > 0 for column in found)
    plain = list_columns([case], ("aggregated",), pins, None, lambda a, b: MoeTimes()).columns
    assert all(column.split.redundant == 0 for column in plain)


def test_replicas_keep_to_what_is_pinned_of_their_role() -> None:
    case = s.scenario(
        s.small_model(moe=Moe(experts=8, top_k=2, expert_width=1024)),
        cluster=s.cluster(nodes=2, per_node=4), workload=s.serving(isl=512, osl=512, ttft_ms=5000.0, tpot_ms=200.0),
        decode_pins=Pins(pp=2), prefill_pins=Pins(ep=4, pp=1),
    )  # fmt: skip

    def placed(scenario: Scenario, split: Split) -> MoeTimes:
        return MoeTimes() if split.redundant >= split.ep else MoeTimes(prefill_ratio=3.0, decode_ratio=3.0)

    found = list_columns([case], ("prefill", "decode"), Pins(), None, placed).columns
    assert {(column.role, column.split.pp) for column in found} == {("prefill", 1), ("decode", 2)}
    assert {column.split.ep for column in found if column.role == "prefill"} == {4}
    assert any(column.split.redundant for column in found)


def test_training_is_not_deployed() -> None:
    with pytest.raises(InputError, match="only serving is deployed"):
        list_columns([s.scenario(workload=s.training())], ("aggregated",), Pins(), None)
