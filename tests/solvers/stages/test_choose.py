"""The stage problem against the scorer, and the cut that a split gets."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from placement.cost.calibration.efficiency import load_efficiency
from placement.cost.memory.hbm import MemoryModel, memory_of
from placement.cost.stage_prices import stage_problem
from placement.cost.step.throughput import ServingModel, predict
from placement.cost.training.step import TrainingModel
from placement.errors import InfeasibleError
from placement.problem.schedule import piece_count
from placement.problem.split import Split, make_split
from placement.problem.stages import StageCut
from solvers.split.enumerate import enumerate_splits
from solvers.stages.choose import best_cut, cut_fits, with_cut
from solvers.stages.dynamic import cut_by_dynamic_programming
from solvers.stages.excess import least_excess
from solvers.stages.model import cut_by_cpsat
from specs.model_short import SlidingWindow
from specs.scenario import Pins, Scenario
from tests.cost import scenarios as s
from tests.solvers.stages.problems import score_cut


def uneven() -> Any:
    """Three dense layers, a heavy head, and windows in every third layer."""
    return s.small_model(
        dense_layers=(0, 1, 7), dense_width=4096, vocabulary=128_000, sliding=SlidingWindow(window=64, period=3)
    )


def training(hbm_gib: float = 80.0, **changes: Any) -> tuple[Scenario, Split]:
    """Four stages of one GPU."""
    workload = s.training(recompute="auto", **changes)
    case = s.scenario(uneven(), workload=workload, cluster=s.cluster(nodes=1, per_node=4, hbm_gib=hbm_gib))
    return case, make_split(case, tp=1, ep=1, pp=4, dp=1, batch=64)


def some_cut(seed: int, layers: int, pieces: int, options: int) -> StageCut:
    draw = random.Random(seed)
    inner = sorted(draw.sample(range(1, layers), pieces - 1))
    bounds = [0, *inner, layers]
    cut = tuple(end - first for first, end in pairwise(bounds))
    return StageCut(cut, tuple(draw.randrange(options) for _ in range(layers)))


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb_h1", "interleaved", "dualpipe", "dualpipe_v"])
def test_problem_counts_time_and_memory_as_the_scorer_does(schedule: str) -> None:
    case, split = training(schedule=schedule)
    workload = case.workload
    assert workload.kind == "training"
    problem = stage_problem(case, split)
    for seed in range(20):
        answer = some_cut(seed, 12, piece_count(workload, split.pp), 3)
        score, changed = score_cut(problem, answer), with_cut(case, split, answer)
        report = memory_of(case, changed)
        assert score.over_bytes == pytest.approx(-report.headroom_bytes, abs=1.0)
        assert score.over_rank == report.stage
        step = TrainingModel(case, workload, changed, load_efficiency()).step()
        if schedule in ("gpipe", "1f1b", "zb_h1", "interleaved"):
            assert score.objective == pytest.approx(step.pipeline.total_s)
        else:
            assert score.objective > 0


def test_problem_of_serving_counts_the_slowest_stage() -> None:
    case = s.scenario(uneven(), cluster=s.cluster(nodes=1, per_node=4))
    workload = case.workload
    assert workload.kind == "serving"
    split = make_split(case, tp=1, ep=1, pp=4, dp=1, batch=16)
    problem = stage_problem(case, split)
    model = ServingModel(case, workload, split)
    even = StageCut((3, 3, 3, 3), (0,) * 12)
    assert score_cut(problem, even).over_bytes <= -memory_of(case, split).headroom_bytes + 1
    bunch = model.bunch(16)
    decode, prefill = model.decode_times(16), model.prefill_times(bunch.tokens)
    prompts = 16 / workload.osl * model.efficiency.prefill_time.value * bunch.passes / bunch.prompts
    slow = max(4 * decode.stage_s(shape) + prompts * prefill.stage_s(shape) for shape, _ in model.passes.stages)
    assert score_cut(problem, even).pace_s == pytest.approx(slow)


def test_uneven_layers_get_an_uneven_cut_that_the_scorer_prefers() -> None:
    for case, split in (
        training(),
        (s.scenario(uneven(), cluster=s.cluster(1, 4)), None),
    ):
        own = split or make_split(case, tp=1, ep=1, pp=4, dp=1, batch=16)
        choice = best_cut(case, own)
        assert choice is not None
        assert choice.split.cut not in (None, (3, 3, 3, 3))
        assert choice.gain is not None
        assert choice.gain > 0.02
        assert choice.tokens_per_s == predict(case, choice.split).tokens_per_s
        assert memory_of(case, choice.split).fits


def test_little_memory_makes_layers_recompute_and_less_is_refused() -> None:
    case, split = training()
    roomy = best_cut(case, split)
    assert roomy is not None
    assert roomy.split.recompute is not None
    assert set(roomy.split.recompute) == {"none"}
    need = memory_of(case, roomy.split).total_bytes
    assert roomy.answer is not None
    times, modes = [score_cut(stage_problem(case, split), roomy.answer.answer).objective], []
    least = least_need(case, split)
    for share in (0.8, 0.6, 0.4, 0.2, 0.0):
        tight, own = training((least * 1.0001 + (need - least) * share) / 2**30)
        choice = best_cut(tight, own)
        if choice is None or choice.answer is None:
            break
        assert memory_of(tight, choice.split).fits
        assert choice.split.recompute is not None
        modes.append(choice.split.recompute)
        times.append(score_cut(stage_problem(tight, own), choice.answer.answer).objective)
    assert times == sorted(times)
    assert any(len(set(each)) > 1 for each in modes), "some layers recompute and some do not"
    tiny, own = training(4.5)
    assert best_cut(tiny, own) is None
    assert not cut_fits(tiny, own)
    # With what is lacking added, a cut fits; with a little less, none does.
    lacks = score_of_best(tiny, own)
    for extra, fits in ((1.001, True), (0.999, False)):
        relaxed, same = training(4.5 + lacks * extra / 2**30)
        assert cut_fits(relaxed, same) is fits


def least_need(case: Scenario, split: Split) -> float:
    """HBM bytes of the smallest GPU that some cut fits."""
    return case.cluster.gpu.hbm_bytes + score_of_best(case, split)


def score_of_best(case: Scenario, split: Split) -> float:
    return least_excess(stage_problem(case, split)).over_bytes


@pytest.mark.parametrize("schedule", ["interleaved", "dualpipe", "dualpipe_v"])
def test_schedules_of_several_pieces_are_cut_by_cpsat(schedule: str) -> None:
    case, split = training(schedule=schedule)
    choice = best_cut(case, split)
    assert choice is not None
    assert choice.answer is not None
    assert choice.answer.source == "CP-SAT"
    assert choice.before is not None
    assert choice.tokens_per_s >= choice.before


def test_enumeration_returns_the_cut_and_what_it_gained() -> None:
    case, _ = training()
    choice = enumerate_splits(case, Pins(pp=4, tp=1))
    assert choice.best.cut is not None
    assert choice.cut_gain is not None
    assert choice.cut_gain > 0
    assert choice.prediction == predict(case, choice.best)
    plain = predict(case, replace(choice.best, cut=None, recompute=("none",) * 12)).tokens_per_s
    assert choice.prediction.tokens_per_s >= plain


def test_a_scenario_that_only_an_uneven_cut_fits_is_not_refused() -> None:
    case, split = training()
    least = replace(split, recompute=("full",) * 12)
    even = MemoryModel(case, least).total_bytes(split.batch)
    best = even + score_of_best(*training(even / 2**30))
    assert best < even * 0.999
    tight, _ = training((best + even) / 2 / 2**30)
    choice = enumerate_splits(tight, Pins(pp=4, tp=1))
    assert choice.best.cut is not None
    assert choice.cut_gain is None
    assert choice.memory.fits
    smaller, _ = training(best * 0.99 / 2**30)
    with pytest.raises(InfeasibleError, match="HBM is exceeded"):
        enumerate_splits(smaller, Pins(pp=4, tp=1))


def test_cpsat_agrees_with_the_program_on_priced_layers() -> None:
    case, split = training()
    need = MemoryModel(case, replace(split, recompute=("none",) * 12)).total_bytes(64)
    least = least_need(case, split)
    for share in (1.0, 0.6, 0.2):
        problem = stage_problem(*training((least * 1.001 + (need - least) * share) / 2**30))
        exact, cpsat = cut_by_dynamic_programming(problem), cut_by_cpsat(problem)
        assert exact is not None
        assert cpsat is not None
        found, best = (score_cut(problem, each.answer) for each in (cpsat, exact))
        assert found.over_bytes <= 0
        assert found.objective == pytest.approx(best.objective, rel=1e-4)
