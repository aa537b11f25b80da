"""Random small models and clusters: a feasible choice, or one of the two refusals, and never anything else."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.layer.scenario_rates import layer_rates, topology_of
from placement.cost.memory.hbm import memory_of
from placement.errors import InfeasibleError, InputError
from placement.problem.split import cut_problem, nearest_redundant, redundant_problem
from solvers.split.enumerate import enumerate_splits
from specs.blocks.attention import GqaAttention
from specs.blocks.ffn import Moe
from specs.blocks.latent import MlaAttention
from specs.model_common import DataTypes
from specs.model_short import SlidingWindow
from specs.scenario import Pins
from tests.cost import scenarios as s

small = st.integers(1, 9)
SCHEDULES = ["gpipe", "1f1b", "1f1b", "interleaved", "zb_h1", "dualpipe", "dualpipe_v"]


@st.composite
def models(draw: st.DrawFn) -> Any:
    experts = draw(st.integers(1, 40))
    kv = draw(small)
    attention = draw(
        st.sampled_from(
            [
                GqaAttention(kind="gqa", query_heads=kv * draw(small), kv_heads=kv, head_dim=draw(small) * 16),
                MlaAttention(kind="mla", heads=draw(small), kv_rank=64, rope_dim=16, nope_dim=32, value_dim=32),
            ]
        )
    )
    layers = draw(st.integers(1, 30))
    dense = draw(st.integers(0, layers - 1))
    kind = draw(st.sampled_from(["bf16", "fp8", "mxfp4", "int4", "int8", "fp32"]))
    return s.small_model(
        layers=layers,
        hidden=draw(small) * 96,
        vocabulary=draw(st.integers(1, 200_000)),
        attention=attention,
        moe=Moe(
            experts=experts,
            top_k=draw(st.integers(1, experts)),
            expert_width=draw(st.integers(1, 3000)),
            shared_experts=draw(st.integers(0, 2)),
        ),
        dense_layers=tuple(range(dense)),
        dense_width=draw(st.integers(1, 9000)) if dense else None,
        sliding=draw(st.sampled_from([None, SlidingWindow(window=128, period=2)])),
        types=DataTypes(experts=kind, compute=kind, attention=draw(st.sampled_from(["bf16", "fp8"]))),
    )


@st.composite
def cases(draw: st.DrawFn) -> Any:
    tray = draw(st.integers(1, 3))
    cluster = s.cluster(
        nodes=draw(st.integers(1, 4)),
        per_node=tray * draw(st.integers(1, 4)),
        tray=tray,
        hbm_gib=draw(st.sampled_from([0.5, 1.0, 4.0, 80.0])),
    )
    workload: Any = draw(
        st.sampled_from(
            [
                s.serving(isl=draw(st.integers(1, 9000)), osl=draw(st.integers(1, 3000)), tpot_ms=20.0, ttft_ms=500.0),
                s.training(
                    global_batch=draw(st.integers(1, 200)),
                    microbatch=draw(st.integers(1, 3)),
                    zero_stage=draw(st.integers(0, 3)),
                    schedule=draw(st.sampled_from(SCHEDULES)),
                    recompute=draw(st.sampled_from(["none", "selective", "full", "auto"])),
                ),
            ]
        )
    )
    rule = draw(st.sampled_from(["per_node", "per_rank", "per_expert"]))
    return s.scenario(draw(models()), cluster=cluster, workload=workload, message_rule=rule, reserve_gib=0.3)


degree = st.one_of(st.none(), st.integers(1, 13))


@st.composite
def all_pins(draw: st.DrawFn) -> tuple[Pins, Any]:
    """Pins with redundant experts; mostly none, since most random pins are impossible."""
    if draw(st.booleans()):
        return Pins(), "auto"
    pins = Pins(tp=draw(degree), ep=draw(degree), pp=draw(degree), dp=draw(degree), batch=draw(degree))
    return pins, draw(st.one_of(st.just("auto"), st.integers(0, 30)))


@settings(max_examples=80, deadline=None)
@given(case=cases(), fixed=all_pins())
def test_a_choice_or_a_refusal(case: Any, fixed: tuple[Pins, Any]) -> None:
    pins, redundant = fixed
    refusal, choice = None, None
    try:
        choice = enumerate_splits(case, pins, redundant)
    except (InputError, InfeasibleError) as error:
        refusal = str(error)
    if choice is None:
        assert refusal
        assert "\n" not in refusal
        return
    best = choice.best
    for name in ("tp", "ep", "pp", "dp", "batch"):
        assert getattr(pins, name) in (None, getattr(best, name))
    assert memory_of(case, best).fits
    assert not cut_problem(case, best.pp, best.cut, best.recompute)
    assert best.gpus + choice.idle_gpus == case.cluster.gpus
    assert (case.model.moe.experts + best.redundant) == best.slots
    assert best.slots_per_gpu <= case.model.moe.experts
    assert topology_of(case, best).gpus == best.ep
    rates = layer_rates(case, best, "decode")
    assert min(rates.weight_s, rates.token_s, rates.tokens_per_gpu) > 0


@given(experts=st.integers(1, 300), ep=st.integers(1, 64), redundant=st.integers(0, 500))
def test_nearest_redundant_counts_are_valid(experts: int, ep: int, redundant: int) -> None:
    model = s.small_model(moe=Moe(experts=experts, top_k=1, expert_width=64))
    # More ranks than experts x ranks slots never happens: a rank has at least one slot.
    for value in nearest_redundant(model, ep, redundant):
        assert redundant_problem(model, ep, value) == ""
