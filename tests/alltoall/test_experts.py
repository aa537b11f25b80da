"""`python -m bench.experts` on a CPU: dimensions scaled down, every GPU of the plan played."""

import json
from pathlib import Path

import pytest

from bench.experts.main import command
from placement.cli.running import outcome


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
