"""f(n) of experts: the measurement that ships against the cost model, its file, and the command on a CPU."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from bench.experts.recorded import CASES, Measurement, load, predicted, shipped
from bench.experts.roofline import command
from placement.cli.running import outcome
from placement.errors import InputError
from specs.fields import DataType
from specs.loading import load_cluster


def ratios(found: Measurement, kind: DataType) -> np.ndarray:
    """Measured over predicted, every case and number of tokens, by the quicker library of the two."""
    quickest: dict[tuple[object, ...], float] = defaultdict(lambda: np.inf)
    for curve in found.curves:
        case = curve.case
        if case.kind == kind:
            line = predicted(case, found.cluster)
            for point in curve.points:
                key = (case.model, case.slots, case.etp, point.tokens)
                quickest[key] = min(quickest[key], point.us / line.at(point.tokens))
    return np.array(list(quickest.values()))


@pytest.mark.parametrize(
    ("kind", "points", "factor", "median"),
    # fp8 kernels differ by library: torch's read weights slowly, triton's multiply fast.
    [("bf16", 116, 1.5, 0.13), ("mxfp4", 24, 1.6, 0.065), ("fp8", 49, 2.6, 0.40)],
)
def test_the_model_is_near_what_an_h100_took(kind: DataType, points: int, factor: float, median: float) -> None:
    found = ratios(shipped(), kind)
    assert len(found) == points
    assert found.max() < factor
    assert found.min() > 1 / factor
    assert np.median(np.abs(1 / found - 1)) < median


def test_what_ships_is_of_one_h100() -> None:
    found = shipped()
    assert "H100" in found.device
    assert {curve.case for curve in found.curves} <= set(CASES)
    gpu = load_cluster(found.cluster).gpu
    assert 0.9 < found.ceilings.read_gb_per_s * 1e9 / gpu.hbm_bytes_per_s < 1
    assert 0.6 < found.ceilings.tflops["bf16"] * 1e12 / gpu.peak_flops("bf16") < 1
    for curve in found.curves:
        tokens = tuple(point.tokens for point in curve.points)
        assert tokens == curve.case.tokens(4096)
        assert all(point.spread < 0.1 for point in curve.points)
        # No kernel reads faster than a plain read, or multiplies faster than dense products.
        assert curve.case.bytes / curve.points[0].us * 1e-3 < found.ceilings.read_gb_per_s
        rate = 2 * curve.case.elements * tokens[-1] / curve.points[-1].us * 1e-6
        assert rate < found.ceilings.tflops["fp8" if curve.case.kind == "fp8" else "bf16"]


def test_the_line_is_the_models_own() -> None:
    case = next(each for each in CASES if each.model == "deepseek_r1" and each.etp == 8)
    whole = next(each for each in CASES if each.model == "deepseek_r1" and each.kind == "fp8" and each.etp == 1)
    part, full = predicted(case, "h100_hgx_ib"), predicted(whole, "h100_hgx_ib")
    assert case.bytes == 3 * 7168 * 2048 / 8
    assert full.weight_us == pytest.approx(8 * part.weight_us)
    assert full.token_us == pytest.approx(8 * part.token_us)
    assert full.at(1) == full.weight_us
    assert full.at(2 * round(full.knee)) == pytest.approx(2 * round(full.knee) * full.token_us)
    assert case.tokens(4096)[-1] * case.slots == 131_072


def test_what_ships_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(command, "x", []) == 0
    told = capsys.readouterr().out
    assert "NVIDIA H100 80GB HBM3" in told
    assert "deepseek_r1/fp8/8/torch" in told
    assert "all points: median error" in told


def test_a_cpu_tries_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "m.json"
    args = ["--measure", "cpu", "--case", "olmoe_1b_7b/bf16/8/torch", "--most-tokens", "4", "--repeats", "2"]
    assert outcome(command, "x", [*args, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    found = load(out)
    (curve,) = found.curves
    assert [point.tokens for point in curve.points] == [1, 2, 4]
    assert found.device == "cpu"
    assert outcome(command, "x", ["--measured", str(out)]) == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--measure", "cpu", "--case", "olmoe/bf16/8"], "--case: olmoe/bf16/8: is no case; choose of deepseek_r1/"),
        (["--measure", "cpu", "--cluster", "h101"], "h101"),
        (["--measure", "cuda"], "--measure: cuda: is not there; use --measure cpu"),
        (["--measured", "/nowhere.json"], "/nowhere.json: can't be read: No such file or directory; give a file"),
    ],
)
def test_bad_usage_is_one_line(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(command, "x", args) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("error: ")
    assert told in captured
    assert captured.count("\n") == 1


@pytest.mark.parametrize("text", ["{", "{}", '{"format": "placement.plan/1"}'])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no measurement"):
        load(path)
