"""Drift of loads against plain covariances."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.pose import layer_problems
from placement.routing.drift import STRETCH, Stretches
from placement.routing.statistics import counts_statistics, layer_statistics, with_mixture
from placement.routing.trace import LoadCounts, Trace
from solvers.split.enumerate import enumerate_splits
from specs.loading import load_scenario


def _trace(seed: int, lens: list[int], experts: int = 9, top_k: int = 3) -> Trace:
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((2, sum(lens), experts)), axis=2)[:, :, :top_k]
    return Trace(ids.astype(np.uint16), np.array(lens), experts, f"t{seed}", "recorded")


@settings(max_examples=40, deadline=None)
@given(
    first=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    second=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    share=st.floats(0.05, 0.95),
)
def test_stretches_are_short_parts_of_one_sequence(first: list[int], second: list[int], share: float) -> None:
    found = Stretches.of([_trace(0, first), _trace(1, second)], np.array([share, 1 - share]))
    # Every sequence ends where a stretch ends.
    assert set(np.cumsum(first + second)) <= set(np.cumsum(found.sizes))
    assert found.sizes.min() >= 1
    assert found.sizes.max() <= 1.5 * STRETCH
    # A trace weighs its share, whatever its length, and its stretches weigh by their tokens.
    cut = int(np.searchsorted(np.cumsum(found.sizes), sum(first))) + 1
    assert found.weight[:cut].sum() == pytest.approx(share)
    assert found.weight.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(found.weight[:cut], found.sizes[:cut] / sum(first) * share)


@pytest.mark.parametrize("lens", [[300], [64, 63, 70], [1, 1, 1, 90, 700]])
def test_covariance_is_that_of_the_stretches_loads(lens: list[int]) -> None:
    trace = _trace(3, lens)
    found = Stretches.of([trace], np.ones(1))
    ids = trace.topk_ids[1]
    ends = np.cumsum(found.sizes)
    loads = [
        np.bincount(ids[end - size : end].ravel(), minlength=9) / size
        for end, size in zip(ends, found.sizes, strict=True)
    ]
    covariance = found.covariance(ids, 9)
    assert covariance is not None
    np.testing.assert_allclose(covariance, np.cov(np.array(loads).T, aweights=found.weight, ddof=0), atol=1e-12)
    # Every token has k experts, so that all loads together do not drift.
    np.testing.assert_allclose(covariance.sum(axis=0), 0.0, atol=1e-12)


def test_domains_of_one_file_are_domains() -> None:
    """As if each had a file of its own."""
    parts = [_trace(1, [200, 100]), _trace(2, [300])]
    whole = replace(
        parts[0], topk_ids=np.concatenate([part.topk_ids for part in parts], axis=1),
        seq_lens=np.array([200, 100, 300]),
        meta={"domains": ["a", "b"], "tokens_per_domain": 300},
    )  # fmt: skip
    one, two = layer_statistics([whole])[0], layer_statistics(parts)[0]
    assert one.comovement is not None
    assert two.comovement is not None
    np.testing.assert_allclose(one.comovement, two.comovement, atol=1e-12)


def test_correlation_is_that_inside_each_domain() -> None:
    """The second trace heats other experts: covariance over both sees that, correlation inside each does not."""
    traces, share = [_trace(1, [300, 128]), _trace(2, [200, 90]), _trace(3, [30])], np.array([0.5, 0.3, 0.2])
    traces[1] = replace(traces[1], topk_ids=traces[1].topk_ids % 5)
    ids = [trace.topk_ids[0] for trace in traces]
    found = Stretches.of(traces, share).correlation(np.concatenate(ids), 9)
    assert found is not None
    expected = np.zeros((9, 9))
    for trace, part in zip(traces[:2], share[:2], strict=True):
        own = Stretches.of([trace], np.ones(1))
        covariance = own.covariance(trace.topk_ids[0], 9)
        assert covariance is not None
        deviation = np.sqrt(np.diag(covariance))
        product = np.outer(deviation, deviation)
        # Experts 5 to 8 have no tokens in the second trace: nothing is known of them there.
        expected += part / 0.8 * np.divide(covariance, product, out=np.zeros((9, 9)), where=product > 1e-9)
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.linalg.eigvalsh(found).min() > -1e-12


def test_a_single_stretch_tells_no_drift() -> None:
    single = layer_statistics([_trace(0, [50]), _trace(1, [40])])[0]
    assert single.drift is not None
    assert single.comovement is None
    assert layer_statistics([_trace(0, [50])])[0].drift is None
    assert counts_statistics(LoadCounts(np.ones((2, 3, 8)), "c", "recorded"), 2)[0].drift is None


def test_statistics_carry_it_whatever_the_windows() -> None:
    traces = [_trace(0, [100, 200, 150]), _trace(1, [80, 80])]
    one, several = layer_statistics(traces)[1], layer_statistics(traces, 2)[1]
    assert one.drift is not None
    assert several.drift is not None
    np.testing.assert_array_equal(one.drift, several.drift)
    mixed = with_mixture(several)
    assert mixed.drift is not None
    np.testing.assert_array_equal(mixed.drift, several.drift)
    assert one.comovement is not None
    assert mixed.comovement is not None
    np.testing.assert_array_equal(mixed.comovement, one.comovement)
    with pytest.raises(ValueError, match="read-only"):
        one.drift[0, 0] = 1.0


def test_layer_problems_know_it() -> None:
    scenario = load_scenario("deepseek_v2_lite_h100_ib")
    layers = layer_statistics([_trace(0, [200, 100], experts=64, top_k=6)])
    posed = layer_problems(scenario, enumerate_splits(scenario).best, "decode", layers)
    for problem, layer in zip(posed, layers, strict=True):
        assert problem.data.drift is not None
        assert layer.drift is not None
        np.testing.assert_array_equal(problem.data.drift, layer.drift)
