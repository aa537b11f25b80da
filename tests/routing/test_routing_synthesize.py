"""The synthesizer: its contract, its knobs, and its fit to recorded routing."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.routing_fit import DOMAINS, RECORDED_SKEW, Figures, measure, synthetic_lite
from placement.errors import InputError
from placement.routing.reader import example_trace, read_trace
from placement.routing.statistics import layer_statistics
from placement.routing.synthesize import load_profile, synthesize
from placement.routing.trace import Trace

#: The recorded ends of co-location at 4 nodes x 4 GPUs: a load balancer's placement, and one that only co-locates.
RECORDED_BALANCED, RECORDED_COLOCATED = 3.35, 2.44
#: A layer in three is enough: the figures are means over layers.
SOME = range(0, 26, 3)
FEW = range(0, 26, 6)


def _skew(trace: Trace) -> float:
    return float(np.mean([layer.load[0].max() / layer.load[0].mean() for layer in layer_statistics([trace])]))


@pytest.fixture(scope="module")
def fit() -> Figures:
    every = [measure([synthetic_lite(seed)], layers=range(seed, 26, 6)) for seed in range(3)]
    return Figures(*np.mean([list(vars(one).values()) for one in every], axis=0))


def test_fit_to_the_recorded_figures(fit: Figures) -> None:
    assert fit.skew == pytest.approx(RECORDED_SKEW, rel=0.05)
    assert fit.balanced_nodes == pytest.approx(RECORDED_BALANCED, rel=0.05)
    assert fit.colocated_nodes == pytest.approx(RECORDED_COLOCATED, rel=0.05)


def test_fit_to_the_recorded_traces(fit: Figures, shared_dir: Path) -> None:
    traces = [read_trace(shared_dir / "traces" / f"dsv2lite_{domain}.npz", 64, 26, 6) for domain in DOMAINS]
    recorded = measure([trace for trace in traces if isinstance(trace, Trace)], layers=SOME)
    assert recorded.skew == pytest.approx(RECORDED_SKEW, rel=0.01)
    for name in (
        "skew",
        "skew_deviation",
        "load_variation",
        "balanced_nodes",
        "colocated_nodes",
        "colocated_nodes_seen",
    ):
        assert getattr(fit, name) == pytest.approx(getattr(recorded, name), rel=0.05), name
    # Set by hand rather than fitted: near is enough.
    assert fit.cosine == pytest.approx(recorded.cosine, abs=0.02)
    assert fit.distinct == pytest.approx(recorded.distinct, abs=0.12)
    assert fit.next_overlap == pytest.approx(recorded.next_overlap, rel=0.2)


@pytest.mark.parametrize("skew", [3.5, 4.5, 5.6])
def test_fit_over_the_recorded_range_of_skews(skew: float) -> None:
    found = measure([synthetic_lite(1, skew=skew)], layers=FEW)
    assert found.skew == pytest.approx(skew, rel=0.02)
    assert found.balanced_nodes == pytest.approx(RECORDED_BALANCED, rel=0.05)
    assert found.colocated_nodes == pytest.approx(RECORDED_COLOCATED, rel=0.07)


def test_an_unlike_model_is_foretold() -> None:
    """The example trace was not fitted to: 64 experts top-4 of a small model."""
    recorded = read_trace(example_trace())
    assert isinstance(recorded, Trace)
    found = measure([recorded], swaps=15_000)
    alike = synthesize(4, 64, 4, recorded.tokens, len(recorded.seq_lens), found.skew, 1.0, 0)
    synthetic = measure([alike], swaps=15_000)
    assert synthetic.balanced_nodes == pytest.approx(found.balanced_nodes, rel=0.05)
    assert synthetic.colocated_nodes == pytest.approx(found.colocated_nodes, rel=0.07)


def test_coactivation_knob_is_monotone() -> None:
    found = [
        measure([synthetic_lite(0, coactivation=c)], layers=FEW, swaps=15_000)
        for c in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    ]
    for low, high in pairwise(found):
        assert high.colocated_nodes < low.colocated_nodes
    assert found[0].colocated_nodes == pytest.approx(3.0, abs=0.15)
    for one in found:
        assert one.skew == pytest.approx(RECORDED_SKEW, rel=0.02)
        assert one.balanced_nodes == pytest.approx(RECORDED_BALANCED, rel=0.05)


@pytest.mark.parametrize("skew", [1.0, 1.3, 2.0, 4.5, 8.0])
@pytest.mark.parametrize(("experts", "top_k"), [(64, 6), (128, 4), (256, 8)])
def test_skew_knob(skew: float, experts: int, top_k: int) -> None:
    trace = synthesize(3, experts, top_k, 4096, 32, skew, 1.0, 5)
    # Quite even loads cannot be had from finitely many tokens: 128 an expert here.
    assert _skew(trace) == pytest.approx(skew, rel=0.05 if skew > 1 else 0.12)


def test_coactivation_zero_is_independent() -> None:
    """Without topics, two experts fire together as often as their loads alone say."""
    trace = synthesize(1, 16, 2, 60_000, 40, 1.0, 0.0, 3)
    ids = trace.topk_ids[0].astype(np.int64)
    together = np.bincount(np.minimum(*ids.T) * 16 + np.maximum(*ids.T), minlength=256).reshape(16, 16)
    pairs = together[np.triu_indices(16, 1)]
    assert pairs.mean() == pytest.approx(500)
    # A Poisson count of mean 500 has a deviation of 22.
    assert pairs.std() < 1.5 * np.sqrt(500)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2, 4, 8]))
    experts = groups * data.draw(st.integers(max(1, 8 // groups), 512 // groups))
    top_groups = data.draw(st.integers(1, groups))
    top_k = data.draw(st.integers(1, min(22, top_groups * (experts // groups))))
    tokens = data.draw(st.integers(16, 400))
    sequences = data.draw(st.integers(1, min(tokens, 50)))
    trace = synthesize(
        2, experts, top_k, tokens, sequences, data.draw(st.floats(1, 64)), data.draw(st.floats(0, 2)),
        data.draw(st.integers(0, 9)), groups, top_groups,
    )  # fmt: skip
    assert trace.topk_ids.shape == (2, tokens, top_k)
    assert trace.topk_ids.dtype == np.min_scalar_type(experts - 1)
    assert int(trace.topk_ids.max()) < experts
    assert (np.diff(np.sort(trace.topk_ids.astype(np.int64), axis=2), axis=2) > 0).all()
    assert len(trace.seq_lens) == sequences
    assert trace.seq_lens.sum() == tokens
    assert trace.seq_lens.min() >= 1
    used = np.sort(trace.topk_ids.astype(np.int64) // (experts // groups), axis=2)
    assert int((np.diff(used.astype(np.int64), axis=2) > 0).sum(axis=2).max(initial=0)) + 1 <= top_groups


def test_seed_decides() -> None:
    arguments = (3, 64, 6, 500, 8, 3.0, 1.0)
    one, again, other = (synthesize(*arguments, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.topk_ids, again.topk_ids)
    np.testing.assert_array_equal(one.seq_lens, again.seq_lens)
    assert (one.topk_ids != other.topk_ids).any()


def test_it_says_what_it_is() -> None:
    trace = synthesize(2, 64, 6, 200, 4, 4.5, 1.0, 9, model_name="some-model")
    assert trace.source == "synthetic (skew 4.5, co-activation 1, seed 9) for some-model"
    assert trace.synthetic
    assert trace.name == "synthetic-some-model"
    few = synthesize(2, 8, 2, 2000, 4, 4.5, 1.0, 9)
    assert few.source.startswith("synthetic (skew 3, the most that 8 experts allow, ")
    assert _skew(few) == pytest.approx(3.0, rel=0.05)


def test_heat_drifts_along_the_trace() -> None:
    """Windows differ more than chance alone makes them, as recorded ones do."""
    layers = layer_statistics([synthetic_lite(0)], 4)
    loads = np.stack([layer.load for layer in layers])
    mean = loads.mean(axis=1, keepdims=True)
    # Copies of n tokens to an expert of load p scatter by sqrt(p / n) if tokens are independent.
    chance = np.sqrt(mean / (4411 / 4))
    assert float(((loads - mean) / chance).std()) > 2.0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"layers": 0}, "layers"),
        ({"experts": 0}, "experts"),
        ({"top_k": 65}, "top_k"),
        ({"tokens": 0}, "tokens"),
        ({"sequences": 101}, "sequences"),
        ({"groups": 5}, "groups"),
        ({"top_groups": 2}, "top_groups"),
        ({"groups": 32, "top_groups": 2}, "top_groups"),
        ({"tokens": 10**9}, "tokens"),
        ({"skew": 0.9}, "skew"),
        ({"skew": float("nan")}, "skew"),
        ({"coactivation": 2.1}, "coactivation"),
        ({"coactivation": float("inf")}, "coactivation"),
    ],
)
def test_impossible_arguments(changes: dict[str, float], field: str) -> None:
    good = {"layers": 2, "experts": 64, "top_k": 6, "tokens": 100, "sequences": 4, "skew": 3.0, "coactivation": 1.0}
    with pytest.raises(InputError) as caught:
        synthesize(**{**good, "seed": 0, **changes})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_load_profile_has_the_asked_maximum() -> None:
    for skew in (1.0, 2.5, 6.0):
        load = load_profile(np.random.default_rng(0), 64, 6, skew)
        assert load.sum() == pytest.approx(6)
        assert load.max() / load.mean() == pytest.approx(skew, rel=1e-6)


def test_many_tokens_are_routed_in_pieces() -> None:
    trace = synthesize(1, 16, 2, 20_000, 100, 2.0, 1.0, 0)
    assert _skew(trace) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    ("layers", "experts", "top_k", "groups", "top_groups", "limit_s"), [(36, 128, 4, 1, 1, 1.5), (58, 256, 8, 8, 4, 4)]
)
@pytest.mark.slow
def test_speed(layers: int, experts: int, top_k: int, groups: int, top_groups: int, limit_s: float) -> None:
    synthesize(1, experts, top_k, 64, 2, 4.5, 1.0, 0, groups, top_groups)  # compiled once
    start = time.perf_counter()
    synthesize(layers, experts, top_k, 4096, 64, 4.5, 1.0, 0, groups, top_groups)
    assert time.perf_counter() - start < limit_s
