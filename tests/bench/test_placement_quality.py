"""The quality benchmark on a recorded layer, as a process of its own, and what it compares."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.cli import cli
from bench.placement_quality import rivals
from bench.placement_quality.certified import bounds_part
from bench.placement_quality.gains import Crossed, phases_part, time_part
from bench.placement_quality.learning import tokens_part
from bench.placement_quality.measure import Comparison, Figures, Solves
from bench.placement_quality.plot import write_plots
from bench.placement_quality.protocol import FOLDS, Recorded, Setting, _dealt, problems, spaced
from bench.placement_quality.risks import robust_part, rounding_part
from bench.recorded import DOMAINS, read_domain
from bench.targets import Target, check_targets
from placement.cli.running import outcome
from placement.cost.figures import Placement, figures_of, score_placement
from placement.cost.layer.score import LayerScore
from placement.errors import CheckFailedError, InputError
from placement.routing.trace import Trace
from solvers.params import DEFAULTS


def _quiet(line: str) -> None:
    """Tells nobody."""


def _figures(size: float, balancedness: float, us: float) -> Figures:
    return Figures(1.0, size, balancedness, us, 1.0, 1.0, 1.0)


def test_comparisons_are_relative_to_the_balancer() -> None:
    one = Comparison("in-domain", Setting(), _figures(60, 0.9, 50), _figures(80, 0.88, 75))
    assert one.bytes_change == pytest.approx(-0.25)
    assert one.balancedness_change == pytest.approx(0.02)
    assert one.speedup == pytest.approx(1.5)


def test_targets_are_met_on_their_side() -> None:
    low, high = Target("low", 2.0, 3.0, "s"), Target("high", 2.0, 3.0, "x", at_least=True)
    assert low.met
    assert not high.met
    check_targets([low])
    with pytest.raises(CheckFailedError, match="missed 1 of 2: high"):
        check_targets([low, high])


def test_layers_are_spread_evenly() -> None:
    assert spaced(26, 26) == tuple(range(26))
    assert spaced(3, 26) == (0, 12, 25)
    assert spaced(1, 26) == (0,)


def test_protocols_solve_on_one_part_and_judge_on_another(shared_dir: Path) -> None:
    recorded = Recorded(str(shared_dir / "traces"), (3,))
    inside, outside = recorded.cases("in-domain"), recorded.cases("held-out")
    assert [case.name for case in inside] == [case.name for case in outside] == ["intent", "law", "summary"]
    assert len(recorded.cases("joint")) == 1
    for case in inside:
        assert case.train[0].load.shape[0] == 4
        assert case.test[0].load.shape[0] == 1
        assert not (case.train[0].load[0] == case.test[0].load[0]).all()
    assert len(recorded.cases("joint", mixture=False)[0].train[0].load) == 3


def test_times_are_means_over_seeds(shared_dir: Path) -> None:
    solves = Solves(Recorded(str(shared_dir / "traces"), (5,)), 0.02, 3, 1)
    part = time_part(solves, _quiet, seeds=2)
    alone = [Solves(solves.recorded, 0.02, seed, 1).compare("in-domain", Setting(extra=0.5)) for seed in (3, 4)]
    timed = next(one for one in part.records if one.comparison.setting == Setting(extra=0.5))
    assert timed.speedups == tuple(one.speedup for one in alone)
    assert timed.speedups[0] != timed.speedups[1]
    mean_us = sum(one.solved.layer_us for one in alone) / 2
    assert timed.comparison.solved.layer_us == pytest.approx(mean_us)
    target = next(one for one in part.targets if one.name.startswith("prefill, 50%"))
    assert target.measured == pytest.approx(alone[0].rival.layer_us / mean_us)


def test_figures_are_the_scorers(shared_dir: Path) -> None:
    recorded = Recorded(str(shared_dir / "traces"), (5,))
    solves = Solves(recorded, 0.02, 0, 1)
    setting = Setting(extra=0.5)
    expected: list[LayerScore] = []
    for case in recorded.cases("in-domain"):
        answers = solves.answers("in-domain", case, setting, "eplb")
        placement = Placement(tuple(a.slots for a in answers), tuple(a.fractions for a in answers))
        expected += score_placement(problems(case.test, setting, 64), placement)
    told, derived = solves.figures("in-domain", setting, "eplb"), figures_of(expected)
    assert told.bytes_per_token == pytest.approx(derived.cross_node_bytes_per_token)
    assert told.balancedness == pytest.approx(derived.balancedness)
    assert told.layer_us == pytest.approx(derived.moe_layer_us)


def test_every_part_of_a_domain_judges_once_and_is_never_solved_on(shared_dir: Path) -> None:
    for name in DOMAINS:
        trace = read_domain(str(shared_dir / "traces"), name)
        judged = [_sequences(_dealt(trace, [part])) for part in range(FOLDS)]
        assert sorted(number for part in judged for number in part) == list(range(len(trace.seq_lens)))
        for part, mine in enumerate(judged):
            solved = _sequences(_dealt(trace, [part + 1 + i for i in range(FOLDS - 1)]))
            assert sorted(mine + solved) == list(range(len(trace.seq_lens)))
    recorded = Recorded(str(shared_dir / "traces"), (5,))
    assert len({case.name for case in recorded.folded(1)}) == len(recorded.folded(1)) == 3 * FOLDS
    assert recorded.folded_tokens(5) == pytest.approx(5 * recorded.folded_tokens(1))


def _sequences(trace: Trace) -> list[int]:
    return [number for start, stop in trace.meta["sequences"] for number in range(start, stop)]


def test_more_routing_is_learnt_from(shared_dir: Path, tmp_path: Path) -> None:
    """Figures are those of the cases, and the plot is drawn."""
    solves = Solves(Recorded(str(shared_dir / "traces"), (5,)), 0.02, 0, 1)
    part = tokens_part(solves, _quiet)
    assert [(one.extra, one.folds) for one in part.records] == [(x, n) for x in (0.0, 0.5) for n in range(1, 6)]
    one = part.records[7]
    cases = solves.recorded.folded(3)
    scores = [
        solves.judge(case, Setting(extra=0.5), [(a.slots, a.fractions)])[0]
        for case in cases
        for a in solves.answers("in-domain", case, Setting(extra=0.5), "auto")
    ]
    assert one.layer_us == pytest.approx(1e6 * np.mean([score.time_s for score in scores]))
    assert one.speedup == pytest.approx(one.rival_us / one.layer_us)
    # The less there is to fit, the better it is fitted.
    assert part.records[5].train_speedup > part.records[9].train_speedup
    assert write_plots([part], tmp_path)
    assert (tmp_path / "tokens.svg").stat().st_size > 1000


def test_a_run_as_users_start_it(shared_dir: Path, tmp_path: Path) -> None:
    args = [
        sys.executable, "-m", "bench", "run", "placement_quality", "--layers", "1", "--work", "0.02", "--workers", "1",
        "--parts", "time,migration", "--out", str(tmp_path), "--json", "--check",
    ]  # fmt: skip
    traces = os.environ | {"PLACEMENT_TRACES": str(shared_dir / "traces")}
    done = subprocess.run(args, capture_output=True, text=True, check=False, env=traces)
    told = json.loads(done.stdout)
    missed = [target["name"] for target in told["targets"] if not target["met"]]
    assert done.returncode == (6 if missed else 0), done.stderr
    assert all(name in done.stderr for name in missed)
    assert told == json.loads((tmp_path / "results.json").read_text())
    assert set(told["parts"]) == {"time", "migration"}
    assert len(told["parts"]["time"]) == 4
    assert all({"name", "measured", "limit", "met"} <= set(target) for target in told["targets"])
    table = (tmp_path / "table.txt").read_text()
    assert table.startswith("1 of 26 layers, work 0.02, seed 0\n")
    assert "faster" in table
    assert told["parts"]["migration"][-1]["gain"] == pytest.approx(1.0)
    assert (tmp_path / "migration.png").stat().st_size > 1000


def test_phases_swap_placements(shared_dir: Path) -> None:
    solves = Solves(Recorded(str(shared_dir / "traces"), (5,)), 0.02, 0, 1)
    found: dict[tuple[str, float], Crossed] = {(c.phase, c.extra): c for c in phases_part(solves, _quiet).records}
    assert len(found) == 4
    for extra in (0.0, 0.5):
        prefill, decode = found["prefill", extra], found["decode", extra]
        # What each phase shares with the other does not depend on which of them judges.
        assert prefill.shared == pytest.approx(decode.shared, abs=0.1)
        assert 0 < prefill.shared < 1
        assert prefill.own_us < prefill.balancer_us
        assert prefill.own_us > 5 * decode.own_us


def test_robust_objectives_are_ordered_and_rounding_is_scored(shared_dir: Path) -> None:
    solves = Solves(Recorded(str(shared_dir / "traces"), (5,)), 0.02, 0, 1)
    robust = robust_part(solves, _quiet).records
    assert [(r.strategy, r.tail) for r in robust] == [("auto", 1.0), ("auto", 0.5), ("auto", 0.0), ("eplb", 1.0)]
    for r in robust:
        assert r.train_mean_us <= r.train_half_us <= r.train_worst_us
        assert r.mean_us <= r.half_us <= r.worst_us
    part = rounding_part(solves, _quiet)
    assert len(part.rows) == 12
    for phase in ("prefill", "decode"):
        ratios = [r.time_ratio for r in part.records if (r.phase, r.source) == (phase, "eplb")]
        split = {r.split for r in part.records if (r.phase, r.source) == (phase, "eplb")}
        assert len(split) == 1
        # Fine weights are near to the fractions (on held-out routing either may be a little faster), and some fractions
        # are no whole fourths.
        assert abs(ratios[2] - 1) < 0.002
        assert ratios[0] != 1
        assert 0 < split.pop() < 1


def test_bounds_are_below_and_more_effort_brings_them_nearer(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.placement_quality.certified.CASES", (("planned", 0.0), ("planned", 0.5)))
    monkeypatch.setattr("bench.placement_quality.certified.EFFORTS", (0.3, 4.0))
    part = bounds_part(Solves(Recorded(str(shared_dir / "traces"), (5,)), 0.1, 0, 1), _quiet)
    assert len(part.rows) == len(part.records) == 8
    for little, much in zip(part.records[::2], part.records[1::2], strict=True):
        assert (little.objective, little.extra) == (much.objective, much.extra)
        assert 0 < much.least <= much.mean <= much.largest
        assert much.mean <= little.mean
        assert little.mean < (0.25 if little.extra == 0 else 0.65)
        assert much.above > 2 * much.mean


def test_a_sweep_over_synthetic_routing(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in (("SKEWS", (3.0,)), ("COACTIVATIONS", (0.0, 2.0)), ("NODES", (2, 4)), ("EXTRA", (0.25,))):
        monkeypatch.setattr(rivals, name, values)
    part = rivals.sweep_part(Solves(Recorded(str(shared_dir / "traces"), (0,)), 0.05, 0, 1), _quiet)
    ratio = {(s.coactivation, s.nodes): s.ratio for s in part.records}
    assert len(ratio) == 4
    assert max(ratio.values()) <= 1 + DEFAULTS.near_time
    assert part.targets[0].met
    # What experts are used together with is what traffic can be saved by.
    assert ratio[2.0, 4] < ratio[0.0, 4]


def test_bad_input_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("run", "placement_quality", "--traces", str(tmp_path))
    assert outcome(cli, "python -m bench", [*args, "--parts", "bites"]) == 2
    assert "bites is no part" in capsys.readouterr().err.replace(":", "")
    assert outcome(cli, "python -m bench", args) == 2
    assert "dsv2lite_intent.npz" in capsys.readouterr().err
    with pytest.raises(InputError, match="on 32 GPUs"):
        problems([], Setting(extra=0.25, nodes=8), 64)
