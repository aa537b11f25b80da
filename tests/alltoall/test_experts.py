"""`python -m bench.experts` on a CPU: dimensions scaled down, every GPU of the plan played."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.alltoall.concrete import draw_slots
from bench.alltoall.main import read_traces
from bench.alltoall.prepare import Settings, plan_layouts, take_sample
from bench.experts.main import command
from bench.experts.measure import Effort, play
from placement.cli.running import outcome
from placement.records.plan import load_plan


def test_every_gpu_is_played(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "experts.json"
    args = [
        "--plan", str(folder / "plan.json"), "--trace", str(folder / "a.npz"), "--baseline", "eplb", "--device", "cpu",
        "--scale", "2", "--tokens-per-rank", "40", "--repeats", "3", "--warmup", "1", "--out", str(out),
    ]  # fmt: skip
    assert outcome(command, "python -m bench.experts", args) == 0
    assert "Largest GPU" in capsys.readouterr().out
    told = json.loads(out.read_text())
    assert told["schema"] == "placement.experts/1"
    assert (told["hidden"], told["expert_width"], told["dtype"]) == (32, 16, "fp32")
    assert [each["layout"] for each in told["layouts"]] == ["solved", "eplb"]
    for each in told["played"]["times"]:
        assert 0 < each["mean_us"] <= each["largest_us"]
        assert 0 <= each["slowest_gpu"] < 4
        assert 0 < each["token_balancedness"] <= 1
    (curve,) = told["played"]["curves"]
    assert [point["tokens"] for point in curve["points"]][:2] == [1, 2]
    assert curve["catalog_error"] is None
    assert curve["points"][0]["measured_us"] == pytest.approx(curve["weight_us"])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--device", "cpu", "--dtype", "fp8"], "--dtype: fp8: needs a GPU of compute capability 9 or 10"),
        (["--device", "cuda"], "--device: cuda: is not there; use --device cpu"),
        (["--device", "cpu", "--baseline", "x"], "--baseline: x: is not in the plan"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told(
    more: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(command, "python -m bench.experts", ["--plan", str(folder / "plan.json"), *more]) == 2
    assert told in capsys.readouterr().err


def test_the_curve_goes_as_far_as_the_fullest_slot(folder: Path) -> None:
    # A mean slot has 20 tokens; a fit that ended there would take reading for multiplying in fuller ones.
    plan = load_plan(str(folder / "plan.json"))
    sample = take_sample(read_traces(plan, (str(folder / "a.npz"),), None), plan.role().topology.gpus, 40, 0)
    layouts = plan_layouts(plan, (), [0], sample, Settings(40), None)
    played = play(
        layouts, [0], [0], sample, 32, 16, "fp32", torch.device("cpu"), Effort(1, 1, 0), False, lambda _: None
    )  # fmt: skip
    problem = layouts[0].problems[0]
    served = draw_slots(problem, layouts[0].slots[0], layouts[0].fractions[0], sample.trace.topk_ids[0], sample.home, 0)
    fullest = int(np.bincount(served.reshape(-1)).max())
    assert fullest > served.size / problem.slots * 1.5
    assert played.curves[0].points[-1].tokens == fullest
