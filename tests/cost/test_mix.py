"""Passes of aggregated serving: how often each kind comes, and what a layer's mean pass is worth in TPOT."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.layer.scenario_rates import layer_rates
from placement.cost.step.serving_mix import planned_rates
from placement.cost.step.throughput import MoeTimes, ServingModel
from placement.problem.rates import ALIKE
from placement.problem.split import Split, make_split
from specs.scenario import Scenario
from tests.cost import scenarios as s


def case_of(isl: int, osl: int, batch: int, pp: int = 1) -> tuple[Scenario, Split]:
    case = s.scenario(workload=s.serving(isl=isl, osl=osl), cluster=s.cluster(nodes=4, per_node=4))
    return case, make_split(case, tp=1, ep=8, pp=pp, dp=8, batch=batch, redundant=0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    isl=st.integers(1, 20_000), osl=st.integers(1, 20_000), batch=st.integers(1, 300), pp=st.integers(1, 2),
    factors=st.tuples(st.floats(0.7, 1.4), st.floats(0.7, 1.4)),
)  # fmt: skip
def test_the_mean_pass_is_what_a_layer_takes_of_tpot(
    isl: int, osl: int, batch: int, pp: int, factors: tuple[float, float]
) -> None:
    """TPOT changes by the change of the mean pass's time, times one number for all placements of a split."""
    case, split = case_of(isl, osl, batch, pp)
    rates = planned_rates(case, split, "serving")
    shares = [kind.share for kind in rates.kinds]
    model = ServingModel(case, case.workload, split)
    balanced = (model.passes.moe_s(split.batch / split.microbatches), model.passes.moe_s(model.budget))

    def tpot_s(*times: float) -> float:
        moe = MoeTimes(decode_s=times[0], prefill_s=times[1])
        return ServingModel(case, case.workload, split, moe).at(split.batch).tpot_s

    def mean_s(*times: float) -> float:
        return sum(share * time for share, time in zip(shares, times, strict=True))

    one = tpot_s(balanced[0] * 2, balanced[1]) - tpot_s(*balanced)
    worth = one / (mean_s(balanced[0] * 2, balanced[1]) - mean_s(*balanced))
    times = tuple(factor * time for factor, time in zip(factors, balanced, strict=True))
    change = worth * (mean_s(*times) - mean_s(*balanced))
    assert tpot_s(*times) - tpot_s(*balanced) == pytest.approx(change, rel=1e-4, abs=1e-9 * tpot_s(*balanced))


def test_kinds_are_the_two_phases() -> None:
    case, split = case_of(1024, 256, 8)
    rates = planned_rates(case, split, "serving")
    assert sum(kind.share for kind in rates.kinds) == pytest.approx(1.0)
    assert sum(kind.share * kind.tokens for kind in rates.kinds) == pytest.approx(1.0)
    for kind, phase in zip(rates.kinds, ("decode", "prefill"), strict=True):
        alone, phases = rates.of_kind(kind), layer_rates(case, split, phase)
        assert alone.tokens_per_gpu == pytest.approx(phases.tokens_per_gpu)
        assert (alone.kinds, alone.weight_s, alone.token_s) == (ALIKE, phases.weight_s, phases.token_s)
    for phase in ("decode", "prefill"):
        assert planned_rates(case, split, phase) == layer_rates(case, split, phase)


def test_prompts_count_as_much_as_they_hold_up() -> None:
    """As many prompt tokens for each output token: as much prefill. Twice as many: about twice."""

    def prefill(isl: int, osl: int) -> float:
        decode, prefill = planned_rates(*case_of(isl, osl, 8), "serving").kinds
        return prefill.share / decode.share

    assert prefill(8192, 1024) == pytest.approx(prefill(16384, 2048))
    assert prefill(16384, 1024) == pytest.approx(2 * prefill(8192, 1024))
    assert prefill(64, 20_000) < 1e-4


def test_other_workloads_have_no_such_passes() -> None:
    case = s.scenario(workload=s.training())
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=8)
    assert planned_rates(case, split, "train") == layer_rates(case, split, "train")
    with pytest.raises(ValueError, match="training"):
        planned_rates(case, split, "serving")
