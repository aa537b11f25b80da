"""Contracts of every engine in the catalog: no split breaks its rules, and what it does reaches the scored problem.

The rules stand here a second time, by engine, as its code states them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from placement.cost.assess import Assessor
from placement.cost.figures import Placement
from placement.cost.memory.activations import serving_logit_bytes
from placement.cost.memory.hbm import MemoryModel
from placement.cost.pose import layer_problems
from placement.cost.step.pass_times import PassModel
from placement.cost.step.roles import Role
from placement.errors import InputError
from placement.problem.data import LayerData
from placement.problem.engine_rules import RULES, Layout, engine_notes, load_problem, most_sequences, reserve_bytes
from placement.problem.split import Split, make_split
from placement.routing.statistics import layer_statistics
from placement.routing.synthesize import synthesize
from solvers.deploy.columns import list_columns
from solvers.split.degrees import Degrees, list_candidates
from solvers.split.enumerate import enumerate_splits
from solvers.split.pins import check_pins
from specs.blocks.ffn import Moe
from specs.engine import SIZED, Dispatch, Rule, RuleName
from specs.loading import list_catalog, load_engine, load_scenario
from specs.overrides import overridden
from specs.scenario import Pins, Scenario
from specs.workload import Phase
from tests.cost import scenarios as s

ENGINES = [
    f"{entry.name}:{backend}" for entry in list_catalog("engine") for backend in load_engine(entry.name).backends
]
DEEPEP_RANKS = {2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 144, 160}


def _whole_nodes(d: Degrees) -> bool:
    """What DeepEP's low-latency kernels take, which an instance of some role may run alone."""
    return d.ep < 8 or d.ep % 8 == 0


def _vllm(backend: str, d: Degrees, per_node: int) -> bool:
    world = d.tp * d.dp
    if d.ep not in (1, world) or (d.redundant and d.ep == 1):
        return False
    if backend == "deepep_high_throughput":
        return d.ep == 1 or d.ep in DEEPEP_RANKS
    if backend == "deepep_low_latency":
        return _whole_nodes(d)
    return world <= per_node or not backend.startswith("flashinfer")


def _sglang(backend: str, d: Degrees, per_node: int) -> bool:
    world = d.tp * d.dp
    if d.redundant and d.ep == 1:
        return False
    if backend == "none":
        return world % d.ep == 0
    if d.ep != world:
        return False
    return {
        "deepep": _whole_nodes(d),
        "pplx": d.dp >= 2,
        "flashinfer": d.tp == 1 and world <= per_node,
    }.get(backend, True)


def _trtllm(backend: str, d: Degrees, per_node: int) -> bool:
    world = d.tp * d.dp
    if d.tp > 1 and d.dp > 1:
        return False
    if d.redundant and (d.ep == 1 or d.dp == 1):
        return False
    divides = EXPERTS % d.ep == 0
    return {
        "nvlink_one_sided": world <= per_node and d.pp == 1 and d.ep <= 128,
        "nvlink_two_sided": world <= per_node and divides,
        "deepep": divides and (d.ep == 1 or d.ep in {2, 4, 8, 16, 32, 64, 128}),
        "deepep_low_latency": divides,
    }.get(backend, True)


LOADS: dict[str, Callable[[str, Degrees, int], bool]] = {
    "generic": lambda backend, d, per_node: True,
    "vllm": _vllm,
    "sglang": _sglang,
    "trtllm": _trtllm,
}
EXPERTS = 16
#: Message rules of prefill and decode with attention data parallelism over whole experts, inside and across nodes.
MESSAGES = {
    "generic:all_to_all": ("per_node", "per_node"),
    "vllm:allgather_reducescatter": ("dense", "dense"),
    "vllm:deepep_high_throughput": ("per_node", "per_node"),
    "vllm:deepep_low_latency": ("per_rank", "per_rank"),
    "sglang:none": ("dense", "dense"),
    "sglang:deepep": ("per_node", "per_rank"),
    "trtllm:deepep": ("per_node", "per_node"),
    "trtllm:deepep_low_latency": ("per_rank", "per_rank"),
    "trtllm:allgather": ("dense", "dense"),
    "trtllm:auto": ("dense", "dense"),
}
DISPATCH = {
    "generic": "even", "vllm": "token_hash", "sglang:none": "even", "sglang": "sglang_static", "trtllm": "even",
}  # fmt: skip


def _case(engine: str, **changes: object) -> Scenario:
    model = s.small_model(moe=Moe(experts=EXPERTS, top_k=2, expert_width=2048))
    return overridden(s.scenario(model, cluster=s.cluster(nodes=4, per_node=4)), engine=engine, **changes)


def _statistics() -> tuple[LayerData, ...]:
    return layer_statistics([synthesize(12, EXPERTS, 2, 64, 4, 2.0, 1.0, 0)], 1)


def _same_degrees(found: tuple[Degrees, ...]) -> set[Degrees]:
    assert len(set(found)) == len(found)
    return set(found)


def test_every_engine_is_held_to_rules_of_its_own() -> None:
    assert {engine.split(":")[0] for engine in ENGINES} == set(LOADS)
    assert set(RULES) == set(get_args(RuleName))


@pytest.mark.parametrize("engine", ENGINES)
@given(nodes=st.integers(1, 6), per_node=st.sampled_from([1, 2, 3, 4, 8, 12]), extra=st.sampled_from([None, 0, 8, 16]))
@settings(max_examples=15, deadline=None)
def test_exactly_the_splits_that_it_loads_are_enumerated(
    engine: str, nodes: int, per_node: int, extra: int | None
) -> None:
    name, backend = engine.split(":")
    case = _case(engine).model_copy(update={"cluster": s.cluster(nodes=nodes, per_node=per_node)})
    everything = case.model_copy(update={"engine": load_engine("generic")})
    wanted = {
        d for d in list_candidates(everything, Pins(), extra).degrees if LOADS[name](backend, d, per_node)
    }  # fmt: skip
    assert _same_degrees(list_candidates(case, Pins(), extra).degrees) == wanted


@given(nodes=st.integers(1, 6), per_node=st.sampled_from([1, 3, 6, 8, 12, 24]))
@settings(max_examples=15, deadline=None)
def test_degrees_that_nobody_runs_come_only_on_request(nodes: int, per_node: int) -> None:
    every = _case("generic").model_copy(update={"cluster": s.cluster(nodes=nodes, per_node=per_node)})
    powers = {1, 2, 4, 8, 16, 32, 64, 128}
    usual = {
        d
        for d in list_candidates(every, Pins(), None).degrees
        if d.tp in powers and d.pp in powers
        and all(size in powers or size % 8 == 0 for size in (d.ep, d.tp * d.dp))
    }  # fmt: skip
    asked = every.model_copy(update={"degrees": "usual"})
    assert set(list_candidates(asked, Pins(), None).degrees) == usual


def test_a_pinned_degree_needs_no_request() -> None:
    case = _case("generic", degrees="usual").model_copy(update={"cluster": s.cluster(nodes=3, per_node=4)})
    assert {d.pp for d in list_candidates(case, Pins(pp=3), None).degrees} == {3}
    assert 3 not in {d.pp for d in list_candidates(case, Pins(), None).degrees}


@pytest.mark.parametrize("engine", ENGINES)
def test_replicas_and_instances_keep_to_the_rules_too(engine: str) -> None:
    name, backend = engine.split(":")
    case = _case(engine)
    found = list_columns([case], ("aggregated", "prefill", "decode"), Pins(), None)
    assert found.columns
    for column in found.columns:
        at = column.split
        assert LOADS[name](backend, Degrees(at.tp, at.ep, at.pp, at.dp, at.redundant), 4)


@pytest.mark.parametrize("engine", MESSAGES)
def test_rules_and_dispatch_reach_the_problem(engine: str) -> None:
    case = _case(engine)
    split = make_split(case, tp=1, ep=16, pp=1, dp=16, batch=4)
    statistics = _statistics()
    name = engine.split(":")[0]
    phases: tuple[Phase, ...] = ("prefill", "decode")
    for phase, message in zip(phases, MESSAGES[engine], strict=True):
        rules = layer_problems(case, split, phase, statistics)[0].rules
        assert rules.message == message
        assert rules.dispatch == DISPATCH.get(engine, DISPATCH[name])


def test_kernels_that_need_attention_ranks_give_way_to_gathering() -> None:
    case = _case("vllm:deepep_low_latency")
    alone = make_split(case, tp=4, ep=4, pp=1, dp=1, batch=4)
    several = make_split(case, tp=2, ep=4, pp=1, dp=2, batch=4)
    assert "balance alone" in " ".join(engine_notes(case, alone))
    assert "balance alone" not in " ".join(engine_notes(case, several))
    assert engine_notes(case, make_split(case, tp=1, ep=1, pp=1, dp=1, batch=4)) == ()


def test_each_phase_is_timed_by_its_own_rule() -> None:
    """Across nodes a token crosses once a node in SGLang's prefill, and once a GPU in its decode."""
    case = _case("sglang:deepep")
    split = make_split(case, tp=1, ep=16, pp=1, dp=16, batch=4)
    both = PassModel(case, split)
    node, rank = (PassModel(overridden(case, message_rule=rule), split) for rule in ("per_node", "per_rank"))
    assert both.moe_s(64.0, "prefill") == node.moe_s(64.0, "prefill")
    assert both.moe_s(64.0, "decode") == rank.moe_s(64.0, "decode") > node.moe_s(64.0, "decode")


def test_rules_differ_by_phase_but_one_placement_serves_both() -> None:
    case = _case("sglang:deepep")
    split = make_split(case, tp=1, ep=16, pp=1, dp=16, batch=4)
    statistics = _statistics()
    assert layer_problems(case, split, "serving", statistics)[0].rules.message == "per_node"


def test_figures_of_serving_are_of_each_phase_under_its_own_messages() -> None:
    case = _case("sglang:deepep")
    split = make_split(case, tp=1, ep=16, pp=1, dp=16, batch=4)
    assessor = Assessor(case, split, "serving", _statistics())
    placed = assessor.assess(Placement((np.arange(EXPERTS),) * 12, (None,) * 12))
    shares = [kind.share for kind in assessor.problems["serving"][0].hardware.rates.kinds]
    both = (placed.times.decode_s, placed.times.prefill_s)
    assert placed.figures.moe_layer_s == pytest.approx(np.dot(shares, np.array(both, dtype=float)))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_serves_by_its_own_rule_whatever_is_asked(engine: str) -> None:
    able = load_engine(engine).in_use.dispatch
    assert _case(engine).dispatch_in_use == _case(engine).dispatch_served == able[0]
    for dispatch in get_args(Dispatch):
        case = _case(engine, dispatch=dispatch)
        assert case.dispatch_in_use == dispatch
        assert case.dispatch_served == (dispatch if dispatch in able else able[0])


def test_only_generic_plans_dispatch_or_trains() -> None:
    assert [engine for engine in ENGINES if "planned" in load_engine(engine).in_use.dispatch] == ["generic:all_to_all"]
    with pytest.raises(InputError, match="runs no training"):
        overridden(load_scenario("dgx_a100_175b"), engine="vllm")


@pytest.mark.parametrize(
    ("engine", "per_rank", "tp", "pp"),
    [("sglang:deepep", 128, 2, 1), ("sglang:pplx", 128, 1, 2), ("vllm:deepep_low_latency", 256, 2, 2)],
)
def test_batches_fit_the_buffers_of_decode(engine: str, per_rank: int, tp: int, pp: int) -> None:
    shared = tp if engine.startswith("sglang") else 1
    assert most_sequences(_case(engine), tp, pp) == per_rank * shared * pp
    big = s.cluster(nodes=4, per_node=4, hbm_gib=4000.0)
    case = _case(engine).model_copy(update={"cluster": big, "reserve_gib": 1.0})
    best = enumerate_splits(case, Pins(tp=tp, pp=pp)).best
    assert best.batch == per_rank * shared * pp
    for column in list_columns([case], ("decode",), Pins(tp=tp, pp=pp), None).columns:
        assert column.split.batch <= per_rank * shared * pp
    with pytest.raises(InputError):
        enumerate_splits(case, Pins(tp=tp, pp=pp, batch=per_rank * shared * pp + 1))


def test_prefill_passes_fit_the_buffers() -> None:
    """vLLM's low-latency kernels take 256 tokens of an attention rank, however many the workload asks for."""
    case = _case("vllm:deepep_low_latency")
    split = make_split(case, tp=2, ep=4, pp=1, dp=2, batch=4)
    tokens = layer_problems(case, split, "prefill", _statistics())
    assert tokens[0].hardware.rates.tokens_per_gpu == 256 / 2


def test_memory_is_left_as_the_engine_takes_it() -> None:
    hbm = s.cluster().gpu.hbm_bytes
    split = make_split(_case("generic"), tp=2, ep=4, pp=1, dp=2, batch=4)

    def reserve(engine: str) -> float:
        return reserve_bytes(_case(engine).model_copy(update={"reserve_gib": None}), split)

    assert reserve("generic") == 6 * 2**30
    assert reserve("vllm") == pytest.approx(0.08 * hbm)
    assert reserve("trtllm") == pytest.approx(0.1 * hbm)
    tokens = 2 * _case("sglang").workload.prefill_tokens_per_gpu  # type: ignore[union-attr]
    assert reserve("sglang") == pytest.approx(max(10.0, 0.5 + 4 / 8 + tokens * 1.5 / 1024) * 2**30)


def test_activations_lie_inside_a_reserve_that_holds_them() -> None:
    case = _case("sglang").model_copy(update={"reserve_gib": None})
    split = make_split(case, tp=2, ep=4, pp=1, dp=2, batch=4)
    model = MemoryModel(case, split)
    report = model.report()
    inside = ("activations", "communication buffers", "framework reserve")
    logits = serving_logit_bytes(case.model, split, 4, 1)
    assert sum(report.line(name) for name in inside) == pytest.approx(reserve_bytes(case, split) + logits)
    assert model.total_bytes(4) == pytest.approx(report.total_bytes)


def test_sglang_gathers_sixteen_bits_without_a_backend() -> None:
    case = _case("sglang")
    eight = case.model.model_copy(update={"types": case.model.types.model_copy(update={"dispatch": "fp8"})})
    plain, deepep = (
        overridden(case.model_copy(update={"model": eight}), engine=engine) for engine in ("sglang", "sglang:deepep")
    )
    assert (plain.dispatch_type, deepep.dispatch_type) == ("bf16", "fp8")


def test_the_hierarchical_policy_is_told_with_the_switch_that_avoids_it() -> None:
    """DeepSeek-R1's 8 groups over the 8 OS nodes of 32 GPUs; over 18 of a rack they don't divide."""
    case = overridden(load_scenario("deepseek_r1_gb200_ib"), engine="sglang:deepep")
    at_32 = Split(tp=1, ep=32, pp=1, dp=32, batch=8, instances=1, redundant=0, slots_per_gpu=8)
    told = " ".join(engine_notes(case, at_32))
    assert "8 OS nodes" in told
    assert "--eplb-algorithm deepseek" in told
    assert not engine_notes(case, replace(at_32, ep=72, dp=72, redundant=32, slots_per_gpu=4))
    assert not engine_notes(overridden(case, engine="trtllm:deepep_low_latency"), at_32)


def test_pins_that_the_engine_refuses_are_told_with_the_place_in_its_code() -> None:
    with pytest.raises(InputError, match=r"ep 2 is neither 1 nor tp x dp = 4 .*FusedMoEParallelConfig"):
        enumerate_splits(_case("vllm"), Pins(tp=2, dp=2, ep=2))


def test_a_cache_of_a_type_that_is_not_stored_is_refused() -> None:
    case = _case("generic")
    model = case.model.model_copy(update={"types": case.model.types.model_copy(update={"kv_cache": "int4"})})
    with pytest.raises(InputError, match="kv_cache int4"):
        overridden(case.model_copy(update={"model": model}), engine="vllm")


def test_a_rule_has_the_numbers_that_it_compares_with() -> None:
    for name in get_args(RuleName):
        sized = name in SIZED
        Rule(name=name, sizes=(8,) if sized else (), source="x")
        with pytest.raises(ValidationError, match="sizes"):
            Rule(name=name, sizes=() if sized else (8,), source="x")


def test_names_and_backends() -> None:
    assert load_engine("vllm").backend == "allgather_reducescatter"
    assert load_engine("vllm:deepep_v2").backend == "deepep_v2"
    with pytest.raises(InputError, match="did you mean vllm"):
        load_engine("vlm")
    with pytest.raises(InputError, match="did you mean deepep"):
        load_engine("sglang:deep_ep")


def test_every_fact_names_its_source() -> None:
    for entry in list_catalog("engine"):
        engine = load_engine(entry.name)
        assert engine.assumes or engine.version
        for backend in engine.backends.values():
            assert backend.source
            assert all(rule.source for rule in (*engine.rules, *backend.rules, *backend.dense_unless))


def test_dense_bytes_do_not_depend_on_the_placement() -> None:
    from placement.cost.layer.score import score_layer

    case = _case("vllm")
    split = make_split(case, tp=1, ep=16, pp=1, dp=16, batch=4)
    problem = layer_problems(case, split, "prefill", _statistics())[0]
    order = np.arange(EXPERTS)
    scores = [score_layer(problem, slots) for slots in (order, order[::-1].copy())]
    assert scores[0].cross_node_bytes_per_token == scores[1].cross_node_bytes_per_token > 0


@pytest.mark.parametrize(
    ("role", "pins"), [("decode", Pins(pp=2)), ("aggregated", Pins(pp=2)), ("prefill", Pins(pp=2))]
)
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_role_has_rules_of_its_own(engine: str, role: Role, pins: Pins) -> None:
    """vLLM brings KV caches to instances of one stage only; whole instances and prefill may have more."""
    found = list_columns([_case(engine)], (role,), pins, None)
    refused = engine == "vllm" and role == "decode"
    assert bool(found.columns) != refused
    assert refused == any("not run in this role" in each.reason for each in found.dropped)


def test_stages_that_a_role_can_not_have_are_refused_by_name() -> None:
    case = _case("vllm", decode_pp=2)
    check_pins(case.of_role("prefill"), Pins(pp=2), None, "prefill")
    with pytest.raises(InputError, match=r"decode_pp: vllm 0\.33\.0 does not run it for decode alone: pp 2 is not 1"):
        check_pins(case.of_role("decode"), Pins(pp=2), None, "decode", ("pp",))


@pytest.mark.parametrize(("role", "fine"), [("decode", True), ("prefill", False), ("aggregated", False)])
def test_bulk_kernels_bind_the_instances_that_run_them(role: Role, fine: bool) -> None:
    """SGLang decoded over 72 GPUs (lmsys.org, 5 May 2025): low-latency kernels take any number of whole nodes."""
    case = overridden(load_scenario("deepseek_r1_h200_ib"), engine="sglang:deepep", nodes=9)
    found = list_columns([case], (role,), Pins(tp=1, ep=72, dp=72, pp=1), None)
    assert bool(found.columns) == fine
    if fine:
        check_pins(case, Pins(ep=72), None, role, ("ep",))
        odd = Layout(case.model, case.cluster, tp=1, ep=12, pp=1, dp=12, redundant=8)
        assert "ep 12 is neither up to 8 nor a multiple of it" in load_problem(case, odd)
    else:
        with pytest.raises(InputError, match=rf"{role}_ep: sglang .* does not load it: ep 72 is none of 2, 4, 8"):
            check_pins(case, Pins(ep=72), None, role, ("ep",))


def test_prompts_that_an_engine_can_not_share_are_refused_by_name() -> None:
    check_pins(_case("sglang"), Pins(cp=2), None, "prefill", ("cp",))
    with pytest.raises(InputError, match=r"prefill_cp: trtllm .* shares no prompt between attention ranks"):
        check_pins(_case("trtllm"), Pins(cp=2), None, "prefill", ("cp",))


@pytest.mark.parametrize(
    ("pins", "near"), [(Pins(cp=5), "3 or 4"), (Pins(cp=8), "3 or 4"), (Pins(tp=2, cp=4), "1 or 2")]
)
def test_prompts_that_no_instance_can_share_so_are_refused_by_name(pins: Pins, near: str) -> None:
    with pytest.raises(InputError, match=rf"prefill_cp: no prefill instance has {pins.cp} .*; use cp {near}"):
        check_pins(_case("sglang"), pins, None, "prefill", ("cp",))
