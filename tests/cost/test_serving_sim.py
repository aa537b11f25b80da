"""The event simulation: against the closed form at steady load, against single steps, and at its edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from placement.cost.serving_sim.arrivals import AtRandom, InFlight, Recorded
from placement.cost.serving_sim.kinds import InstanceKind
from placement.cost.serving_sim.lengths import Lengths
from placement.cost.serving_sim.simulate import Run, run
from placement.cost.serving_sim.statistics import Spread, grows, unsettled
from placement.cost.serving_sim.steady import steady
from placement.cost.step.roles import PrefillQueue, Role
from placement.cost.step.throughput import MoeTimes
from placement.errors import InputError
from placement.problem.split import make_split
from specs.loading import load_scenario
from tests.cost import scenarios as s

AGREES = 0.05


def kind(
    scenario: Any, role: Role, count: int, batch: int = 1, cp: int = 1, moe: MoeTimes | None = None, **degrees: int
) -> InstanceKind:
    split = make_split(scenario, **{"tp": 1, "ep": 1, "pp": 1, "dp": 1, **degrees}, batch=batch)
    return InstanceKind(role, scenario, split, count, cp, moe)


def small(role: Role, count: int = 1, batch: int = 20, isl: int = 1024, **changes: int) -> InstanceKind:
    return kind(s.scenario(workload=s.serving(isl=isl)), role, count, batch, **{"ep": 4, "dp": 4, **changes})


def settled(values: Any) -> float:
    return float(values[unsettled(values) :].mean())


# Layouts that planning chooses on these clusters, with their batch.
AGGREGATED = [
    ("deepseek_v2_lite_h100_ib", {"ep": 16, "dp": 16}, 1, 17),
    ("deepseek_v4_flash_h200_ib", {"ep": 2, "dp": 2}, 16, 28),
    ("gpt_oss_120b_gb200_ib", {"ep": 2, "dp": 2}, 8, 223),
    ("kimi_k2_h200_ib", {"tp": 2, "ep": 4, "pp": 2, "dp": 2}, 4, 21),
    ("nemotron_3_super_b200_ib", {"ep": 4, "dp": 4}, 8, 96),
    ("qwen3_235b_h100_ib", {"tp": 4, "ep": 8, "dp": 2}, 4, 14),
]


@pytest.mark.parametrize(("name", "degrees", "count", "batch"), AGGREGATED, ids=[each[0] for each in AGGREGATED])
def test_full_batches_run_as_the_closed_form_says(name: str, degrees: dict[str, int], count: int, batch: int) -> None:
    """A closed loop of the planned batch: tokens/s, TTFT and TPOT of aggregated serving."""
    each = kind(load_scenario(name), "aggregated", count, batch, **degrees)
    users = each.servers * batch
    got = run([each], InFlight(users), requests=20_000)
    turns = len(got.arrival_s) // users * users
    since = got.arrival_s[-turns]
    served = ((got.done_s > since) & (got.done_s <= got.end_s)).sum() / (got.end_s - since)
    assert served == pytest.approx(each.point.requests_per_s * count, rel=AGREES)
    assert got.ttft_s[-turns:].mean() == pytest.approx(each.point.ttft_s, rel=AGREES)
    assert got.tpot_s[-turns:].mean() == pytest.approx(each.point.tpot_s, rel=AGREES)


APART: list[tuple[str, dict[str, int], int, dict[str, int], int]] = [
    ("deepseek_r1_h200_ib", {"ep": 2, "pp": 4, "dp": 2}, 2, {"tp": 2, "ep": 16, "dp": 8, "batch": 75}, 1),
    ("gpt_oss_120b_gb200_ib", {}, 60, {"ep": 4, "dp": 4, "batch": 524}, 19),
    ("kimi_k2_b200_ib", {"ep": 2, "pp": 4, "dp": 2}, 2, {"ep": 16, "dp": 16, "batch": 120}, 1),
    ("minimax_m2_5_h200_ib", {"pp": 2}, 4, {"ep": 24, "dp": 24, "batch": 62}, 1),
    ("nemotron_3_super_b200_ib", {}, 13, {"ep": 8, "dp": 8, "batch": 296}, 2),
]


@pytest.mark.parametrize(("name", "prefill", "first", "decode", "second"), APART, ids=[each[0] for each in APART])
def test_prefill_and_decode_apart_run_as_the_closed_form_says(
    name: str, prefill: dict[str, int], first: int, decode: dict[str, int], second: int
) -> None:
    """Requests at random, at 80% of what the deployment serves: the M/D/1 queue, and steps at the mean batch."""
    scenario = load_scenario(name)
    kinds = [kind(scenario, "prefill", first, **prefill), kind(scenario, "decode", second, **decode)]
    rate = 0.8 * min(each.point.requests_per_s * each.count for each in kinds)
    got = run(kinds, AtRandom(rate))
    wanted = [steady(each, rate / each.count) for each in kinds]
    assert wanted[0] is not None
    assert wanted[1] is not None
    assert settled(got.ttft_s) == pytest.approx(wanted[0].ttft_s, rel=AGREES)
    assert settled(got.tpot_s) == pytest.approx(wanted[1].tpot_s, rel=AGREES)


@pytest.mark.parametrize(("name", "degrees", "count", "batch"), AGGREGATED, ids=[each[0] for each in AGGREGATED])
def test_aggregated_steps_at_random_arrivals(name: str, degrees: dict[str, int], count: int, batch: int) -> None:
    each = kind(load_scenario(name), "aggregated", count, batch, **degrees)
    rate = 0.8 * each.point.requests_per_s
    got, wanted = run([each], AtRandom(rate * count)), steady(each, rate)
    assert wanted is not None
    assert settled(got.tpot_s) == pytest.approx(wanted.tpot_s, rel=AGREES)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.9])
def test_a_prefill_rank_is_an_m_d_1_queue(busy: float) -> None:
    each = small("prefill", isl=4096, ep=1, dp=1)
    queue = PrefillQueue.of(each.model)
    rate = busy * queue.most_requests_per_s
    got = run([each], AtRandom(rate), seed=3)
    wait = busy / (2 * (1 - busy)) * queue.service_s
    assert settled(got.waited_s[:, 0]) == pytest.approx(wait, rel=AGREES)
    assert settled(got.ttft_s) == pytest.approx(queue.alone_s + wait, rel=0.02)


def test_a_request_alone() -> None:
    """No wait: the closed form of one prompt and one sequence, and shared prompts take less."""
    alone = Recorded(np.zeros(1), np.array([s.serving().isl]), np.array([s.serving().osl]))
    kinds = [small("prefill"), small("decode")]
    got = run(kinds, alone)
    assert got.ttft_s[0] == pytest.approx(PrefillQueue.of(kinds[0].model).alone_s)
    assert got.tpot_s[0] == pytest.approx(kinds[1].model.decode_step_s(1))
    whole = small("aggregated")
    model, got = whole.model, run([whole], alone)
    one = model.prefill_pass(min(model.workload.isl, model.budget))
    assert got.ttft_s[0] == pytest.approx(model.wait * (model.first_token_s + one.stages_s))
    assert got.tpot_s[0] == pytest.approx(model.decode_step_s(1) + (model.stall - 1) * one.slowest_s / s.serving().osl)


def recorded(count: int, rate: float, seed: int) -> Recorded:
    draws = np.random.default_rng(seed)
    times = np.cumsum(draws.exponential(1 / rate, count))
    return Recorded(times - times[0], draws.integers(200, 8000, count), draws.integers(1, 300, count))


@pytest.mark.parametrize("seed", range(3))
def test_runs_of_steps_end_where_single_steps_do(seed: int) -> None:
    """Against one decode rank that goes step by step, with unequal requests and too little room."""
    each, asked = small("decode", ep=1, dp=1), recorded(300, 40.0, seed)
    each.__dict__["most"] = 25
    lengths = Lengths.of(asked.isl, asked.osl)
    table, contexts = each.decode_table(lengths), np.array(lengths.mean_contexts)
    size = each.stored((asked.isl + asked.osl).astype(np.float64))
    left: dict[int, int] = {}
    finished, now, coming = np.zeros(len(size)), 0.0, 0
    while coming < len(size) or left:
        if not left and asked.arrival_s[coming] > now:
            now = asked.arrival_s[coming]
        # The line is worked off in order.
        while (
            coming < len(size)
            and asked.arrival_s[coming] <= now + 1e-12
            and sum(size[i] for i in left) + size[coming] <= 25
        ):
            left[coming], coming = int(asked.osl[coming]), coming + 1
        mean = np.mean([asked.isl[i] + asked.osl[i] / 2 for i in left])
        now += np.interp(mean, contexts, table[:, len(left)])
        left = {i: more - 1 for i, more in left.items()}
        for i in [i for i, more in left.items() if more == 0]:
            finished[i] = now
            del left[i]
    got = run([each], asked)
    np.testing.assert_allclose(got.done_s, finished, rtol=1e-9)


def same(first: Run, second: Run) -> bool:
    return first.ttft_s.tobytes() == second.ttft_s.tobytes() and first.tpot_s.tobytes() == second.tpot_s.tobytes()


def test_the_seed_decides() -> None:
    each = [small("aggregated")]
    demand = AtRandom(0.5 * each[0].point.requests_per_s)
    assert same(run(each, demand, seed=5, requests=2000), run(each, demand, seed=5, requests=2000))
    assert not same(run(each, demand, seed=5, requests=2000), run(each, demand, seed=6, requests=2000))


def test_a_router_that_knows_loads_makes_lines_shorter() -> None:
    each = [small("prefill", count=4, isl=4096)]
    demand = AtRandom(0.85 * 4 * PrefillQueue.of(each[0].model).most_requests_per_s)
    waits = [
        run(each, demand, load_balance, requests=40_000).waited_s[:, 0].mean()
        for load_balance in ("random", "round_robin", "least_loaded")
    ]
    assert waits[0] > 2 * waits[1]
    assert waits[0] > 2 * waits[2]


def test_kinds_get_requests_by_what_they_yield() -> None:
    kinds = [small("prefill", count=1), small("prefill", count=3)]
    for load_balance in ("random", "round_robin"):
        got = run(kinds, AtRandom(0.3 * kinds[0].point.requests_per_s), load_balance, requests=20_000)
        assert (got.kind[:, 0] == 1).mean() == pytest.approx(0.75, abs=0.02)


def test_a_slice_stands_for_the_whole() -> None:
    """Of many servers a few are simulated, with their share of the requests."""
    kinds = [small("prefill", count=200, ep=1, dp=1), small("decode", count=100)]
    rate = 0.6 * min(each.point.requests_per_s * each.count for each in kinds)
    part, whole = run(kinds, AtRandom(rate), requests=30_000), run(kinds, AtRandom(rate), requests=300_000)
    assert part.simulated[0] < whole.simulated[0] <= 200
    assert settled(part.ttft_s) == pytest.approx(settled(whole.ttft_s), rel=0.05)
    assert settled(part.tpot_s) == pytest.approx(settled(whole.tpot_s), rel=0.02)


def test_room_for_sequences_is_what_memory_leaves() -> None:
    """More is asked than a rank can hold: it holds what fits, and the line grows."""
    each = small("decode", ep=1, dp=1)
    each.__dict__["most"] = 8
    most = 8 / (each.model.decode_step_s(8) * s.serving().osl)
    got = run([each], AtRandom(1.5 * most), requests=5_000)
    assert got.tpot_s.max() == pytest.approx(each.model.decode_step_s(8), rel=1e-6)
    served = len(got.done_s) / got.end_s
    assert served == pytest.approx(most, rel=0.02)
    assert grows(got.waited_s.sum(axis=1))
    assert steady(each, 1.5 * most) is None


def test_the_links_carry_no_more_than_they_can() -> None:
    """KV caches that leave a prefill rank one after the other."""
    kinds = [small("prefill", ep=1, dp=1), small("decode")]
    at_once = Recorded(np.zeros(50), np.full(50, 64), np.full(50, 4))
    kinds[0].__dict__["transfer_s"] = 10.0
    got = run(kinds, at_once)
    each = 10.0 * float(kinds[0].moved(np.array([64.0]))[0])
    assert np.sort(got.ttft_s)[-1] > 49 * each
    assert np.sort(got.ttft_s)[-1] < 51 * each + 1.0


def test_scored_layers_keep_their_ratio_at_other_batches() -> None:
    plain = small("decode")
    scored = 2.0 * plain.model.passes.moe_s(20, "decode")
    twice = kind(s.scenario(), "decode", 1, 20, moe=MoeTimes(decode_s=scored), ep=4, dp=4)
    slower = kind(s.scenario(), "decode", 1, 20, moe=MoeTimes(decode_ratio=2.0), ep=4, dp=4)
    for batch in (1, 20, 100):
        assert twice.model.decode_step_s(batch) == pytest.approx(slower.model.decode_step_s(batch))


def test_what_can_not_be_served_is_refused() -> None:
    demand = AtRandom(1.0)
    with pytest.raises(InputError, match="is training"):
        run([InstanceKind("aggregated", load_scenario("dgx_a100_175b"), small("decode").split, 1)], demand)
    with pytest.raises(InputError, match="none that prefill"):
        run([small("aggregated"), small("decode")], demand)
    huge = Recorded(np.zeros(2), np.array([10, 9_000_000]), np.array([1, 1]))
    with pytest.raises(InputError, match=r"request: 2: .* times the KV cache"):
        run([small("aggregated")], huge)


def test_the_start_is_cut_off() -> None:
    draws = np.random.default_rng(0).normal(10.0, 1.0, 20_000)
    assert unsettled(np.full(1000, 3.0)) == 0
    rising = draws.copy()
    rising[:4000] -= np.linspace(9.0, 0.0, 4000)
    assert 2000 <= unsettled(rising) <= 8000
    assert unsettled(np.arange(1000.0)) == 500
    assert not grows(draws)
    assert grows(np.linspace(0.0, 5.0, 20_000) + draws / 10)


def test_the_interval_covers_the_mean() -> None:
    draws = np.random.default_rng(1)
    found = [Spread.of(draws.exponential(2.0, 2000)) for _ in range(200)]
    assert 0.9 <= np.mean([abs(each.mean - 2.0) <= each.error for each in found]) <= 0.99
    assert found[0].p50 < found[0].mean < found[0].p95 < found[0].p99
