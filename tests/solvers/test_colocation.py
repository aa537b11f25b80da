"""The co-location bounds: their parts against brute force, their values against all placements and for strength."""

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.layer.score import score_layer
from placement.problem.topology import Topology
from placement.routing.reader import example_trace, read_trace
from placement.routing.statistics import layer_statistics
from solvers.bounds import layer_bound
from solvers.bounds.colocation import distinct_bins
from solvers.bounds.homes import remote_bins
from solvers.bounds.partitions import (
    MOST_IN_SET,
    approach,
    cut_sets,
    new_tokens,
    proven,
    rounded_prices,
)
from solvers.bounds.subsets import LANES, cheapest, new_lanes
from solvers.dispatch import plan_fractions
from solvers.experts.layers import plan_layers
from solvers.stop import Stop
from tests.layers import layer_problem
from tests.solvers.problems import RATES, random_problem
from tests.solvers.test_bounds import random_fractions, sampled


def feature_count(experts: int, home: bool) -> int:
    """Features of a partition: its pairs; with a home, pairs elsewhere, pairs at home and experts at home."""
    pairs = experts * (experts - 1) // 2
    return 2 * pairs + experts if home else pairs


def partitions(items: Sequence[int]) -> Iterator[list[list[int]]]:
    """All partitions of some items."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for size in range(len(rest) + 1):
        for others in combinations(rest, size):
            left = [item for item in rest if item not in others]
            for blocks in partitions(left):
                yield [[first, *others], *blocks]


def featured(experts: int, home: bool, most: int) -> Iterator[tuple[np.ndarray, int]]:
    """(features, bins that count) of every way in which a token's experts may fall into bins."""
    pairs = [(i, j) for i in range(experts) for j in range(i)]
    everything = tuple(range(experts))
    for size in range(experts + 1 if home else 1):
        for at_home in combinations(everything, size):
            for blocks in partitions([i for i in everything if i not in at_home]):
                if max([size, *map(len, blocks)], default=0) > most:
                    continue
                apart = [float(any(i in block and j in block for block in blocks)) for i, j in pairs]
                near = [float(i in at_home and j in at_home) for i, j in pairs]
                alone = [float(i in at_home) for i in range(experts)]
                yield np.array([*apart, *near, *alone] if home else apart), len(blocks)


def least_by(price: np.ndarray, experts: int, home: bool, most: int) -> tuple[float, int, float]:
    """By itself, and the same among others of other prices."""
    lanes, among = new_lanes(experts, len(price)), np.random.default_rng(experts).normal(0.1, 0.4, (len(price), LANES))
    answers = []
    for lane, count in ((0, 1), (LANES // 2, LANES)):
        lanes.price[:] = among
        lanes.price[:, lane] = price
        cheapest(lanes, count, experts, home, most)
        answers.append((float(lanes.least[lane]), int(lanes.held[lane]), float(lanes.bins[lane])))
    assert answers[0] == answers[1]
    return answers[0]


@pytest.mark.parametrize(("experts", "most"), [(1, 1), (2, 2), (3, 2), (4, 4), (5, 3), (6, 6), (6, 2)])
@pytest.mark.parametrize("home", [False, True])
def test_the_cheapest_partition_is_that_of_brute_force(experts: int, most: int, home: bool) -> None:
    rng = np.random.default_rng(experts * 10 + most)
    known = list(featured(experts, home, most))
    for _ in range(20):
        price = rng.normal(0.1, 0.4, feature_count(experts, home))
        value, held, bins = least_by(price, experts, home, most)
        costs = [count + float(price @ features) for features, count in known]
        assert value == pytest.approx(min(costs), abs=1e-12)
        features, count = known[int(np.argmin(costs))]
        assert [held >> q & 1 for q in range(len(price))] == features.tolist()
        assert bins == count


def test_the_number_of_partitions_is_known() -> None:
    """Bell numbers, with a home those of one expert more."""
    for k, bell in ((1, 1), (2, 2), (3, 5), (4, 15), (5, 52)):
        assert len(list(featured(k, False, k))) == bell
        assert len(list(featured(k, True, k))) == (2, 5, 15, 52, 203)[k - 1]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6), home=st.booleans(), experts=st.integers(2, 5), penalty=st.sampled_from([0.1, 0.4, 2])
)
def test_points_stay_in_the_hull_and_prices_prove_what_they_say(
    seed: int, home: bool, experts: int, penalty: float
) -> None:
    """After any steps: points are mixtures of partitions, the pull is their sum, and no placement beats the prices."""
    rng = np.random.default_rng(seed)
    of, sets = 7, 6
    features = feature_count(experts, home)
    variables = feature_count(of, home)
    ids = np.array([np.sort(rng.permutation(of)[:experts]) for _ in range(sets)])
    place = {pair: q for q, pair in enumerate((i, j) for i in range(of) for j in range(i))}
    pairs = [[place[row[i], row[j]] for i in range(experts) for j in range(i)] for row in ids]
    count = len(place)
    variable = np.array([
        [*near, *(count + q for q in near), *(2 * count + row)] if home else near
        for near, row in zip(pairs, ids, strict=True)
    ], dtype=np.int64)  # fmt: skip
    weight = rng.dirichlet(np.ones(sets))
    tokens = new_tokens(variable, weight, experts, home, experts)
    pull, slope = np.zeros(variables), np.zeros(variables)
    for step in range(7):
        approach(tokens, step % 2, 2, rng.uniform(0, 1, variables), penalty, 3, pull)
    bits = tokens.held[:, :, None] >> np.arange(features, dtype=np.uint64) & np.uint64(1)
    used = np.arange(tokens.held.shape[1]) < tokens.mixed[:, None]
    share = np.where(used, tokens.share, 0.0)
    assert share.min() >= 0
    assert share.sum(axis=1) == pytest.approx(1.0)
    assert np.einsum("sm,smf->sf", share, bits) == pytest.approx(tokens.point, abs=1e-9)
    asked = np.zeros(variables)
    np.add.at(asked, variable, weight[:, None] * (tokens.point + tokens.price))
    assert pull == pytest.approx(asked, abs=1e-9)
    prices = rounded_prices(tokens, penalty)
    number = proven(tokens, prices, slope, 2, sets, proven(tokens, prices, slope, 0, 2, 0.0))
    for _ in range(20):
        # A placement: a bin for every expert, of which bin 0 is the home's.
        bin_of = rng.integers(0, 3, of)
        bins = [len(set(bin_of[row].tolist()) - ({0} if home else set())) for row in ids]
        reached = float(weight @ bins)
        together = [float(bin_of[i] == bin_of[j]) for i, j in place]
        if home:
            away = [float(bin_of[i] == bin_of[j] != 0) for i, j in place]
            near = [float(bin_of[i] == bin_of[j] == 0) for i, j in place]
            together = [*away, *near, *(bin_of == 0).astype(float)]
        assert number - slope @ np.array(together) <= reached + 1e-9


def test_large_sets_are_cut_to_their_most_loaded_experts() -> None:
    load = np.arange(12.0)
    ids = np.array([np.arange(10), np.arange(2, 12), [0, 1, *range(2, 10)]])
    kept, weight = cut_sets(ids, np.array([0.5, 0.3, 0.2]), load)
    assert kept.tolist() == [list(range(2, 10)), list(range(4, 12))]
    assert weight == pytest.approx([0.7, 0.3])
    assert kept.shape[1] == MOST_IN_SET
    few = ids[:, :4]
    assert cut_sets(few, weight, load)[0] is few


def cover(token: Sequence[int], home: int, held: Sequence[frozenset[int]]) -> int:
    """Least bins beside the home that hold what it lacks, by brute force."""
    left = set(token) - held[home]
    others = [content for b, content in enumerate(held) if b != home]
    for size in range(len(others) + 1):
        if any(left <= frozenset().union(*some) for some in combinations(others, size)):
            return size
    raise AssertionError("no copy")


@pytest.mark.parametrize("homes", [(1 / 3, 1 / 3, 1 / 3), (0.6, 0.3, 0.1), (0.7, 0.3, 0.0)])
def test_no_placement_has_fewer_remote_bins_and_the_best_is_near(homes: tuple[float, ...]) -> None:
    """All contents of three bins of 3 slots for 6 experts, every token served in as few other bins as can be."""
    rng = np.random.default_rng(2)
    contents = [frozenset(some) for some in combinations(range(6), 3)]
    near = []
    for _ in range(4):
        ids = np.array(list({tuple(sorted(rng.permutation(6)[:3].tolist())) for _ in range(6)}))
        weight = rng.dirichlet(np.ones(len(ids)))
        best = min(
            sum(w * share * cover(row, h, held) for w, row in zip(weight, ids.tolist(), strict=True)
                for h, share in enumerate(homes) if share)
            for held in product(contents, repeat=3) if len(frozenset().union(*held)) == 6
        )  # fmt: skip
        bound = remote_bins(ids, weight, 6, np.array(homes), 3, Stop(4.0)).bins
        assert bound <= best * (1 + 1e-9)
        near.append(bound / best)
    assert np.mean(near) > 0.75


def test_colocation_bound_is_exact_on_symmetric_and_on_separable_routing() -> None:
    """All pairs alike: every placement is as good. Four closed topics on four nodes: one node per token."""
    experts, bins, most = 12, 3, 4
    pairs = np.array([(a, b) for a in range(experts) for b in range(a + 1, experts)])
    alike = distinct_bins(pairs, np.full(len(pairs), 1 / len(pairs)), experts, bins, most).bins
    assert alike == pytest.approx(2 - (most - 1) / (experts - 1), abs=1e-3)
    assert alike <= 2 - (most - 1) / (experts - 1) + 1e-9
    topics = np.arange(experts).reshape(bins, most)[:, :3]
    assert distinct_bins(topics, np.full(3, 1 / 3), experts, bins, most).bins == pytest.approx(1.0, abs=1e-9)


def test_colocation_bound_is_stronger_than_counting_and_below_every_placement() -> None:
    """One copy each, 16 experts on 4 nodes: the best of many searched placements is above it, 20% more is not."""
    tight = 0
    for seed in range(4):
        problem = random_problem(seed, 16, 4, 1, 4, k=4, tokens=300)
        ids, weight = problem.data.sets.ids.astype(np.int64), problem.data.sets.weight[0]
        bound = distinct_bins(ids, weight, 16, 4, 4).bins
        answer = plan_layers([problem], "search", Stop(work=0.3), seed, floor=False)[0]
        assert 1.0 < bound <= answer.score.nodes_per_token
        tight += bound * 1.2 > answer.score.nodes_per_token
        assert answer.score.objective >= layer_bound(problem).value > layer_bound(problem, quick=True).value
    assert tight >= 3


def test_remote_nodes_of_planned_copies_are_bounded_where_homes_dispatch_apart() -> None:
    """Any fractions: remote nodes per token stay above the bound that the link bound stands on."""
    rng = np.random.default_rng(3)
    for seed in range(5):
        problem = random_problem(seed, 12, 4, 1, 4, k=4, tokens=200, dispatch="planned")
        ids = problem.data.sets.ids.astype(np.int64)
        remote = remote_bins(ids, problem.data.sets.weight[0], 12, np.full(4, 0.25), 4).bins
        for slots in sampled(problem, rng, 6):
            for shares in (random_fractions(problem, slots, rng), plan_fractions(problem, slots)):
                assert score_layer(problem, slots, shares).remote_nodes_per_token >= remote - 1e-9
        assert remote > 0


def test_gaps_of_recorded_routing_are_what_they_were() -> None:
    """The shipped trace on 4 nodes of 4 GPUs: with one copy each, and with half as many slots again."""
    trace = read_trace(str(example_trace()))
    statistics = layer_statistics([trace], 1)[:2]
    for slots, dispatch, most in ((4, "planned", 0.14), (6, "planned", 0.45), (6, "nearest", 0.6)):
        problems = [
            layer_problem(
                layer.load, Topology(16, 4), slots, RATES, sets=layer.sets, window_weight=layer.window_weight,
                dispatch=dispatch, objective="traffic",
            )
            for layer in statistics
        ]  # fmt: skip
        for answer in plan_layers(problems, "auto", Stop(), 0, floor=False):
            assert answer.bound_source == "co-location"
            assert 0 < answer.gap < most


def test_who_only_compares_gets_the_same_answer_with_a_quick_bound() -> None:
    problem = random_problem(1, 16, 4, 1, 4, k=4, tokens=300, objective="traffic")
    (full,), (quick,) = (plan_layers([problem], "search", Stop(0.1), 3, certify=certify) for certify in (True, False))
    assert (quick.slots == full.slots).all()
    assert quick.score.objective == full.score.objective
    assert 0 < quick.bound < full.bound
