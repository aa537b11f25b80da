"""Published deployments: what a row is read as, and how near the predictions are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.accuracy.offline import queue_tokens_per_s
from bench.accuracy.published import COLUMNS, median_error, published_figures, read_published
from placement.cost.step.throughput import ServingModel
from placement.errors import InputError
from placement.problem.split import make_split
from tests.cost import scenarios as s

DECODE = {
    "id": "sgl_x", "model": "DeepSeek-V3", "hardware": "H100 SXM, IB", "gpus": "72", "phase": "decode", "tp": "1",
    "ep": "72", "dp": "72", "pp": "1", "batch_per_gpu": "128", "isl": "4000", "osl": "100", "dtype": "fp8",
    "metric": "output throughput per node (32 redundant experts)", "value": "12929", "unit": "tok/s/node",
}  # fmt: skip


def write(path: Path, *rows: dict[str, str]) -> Path:
    lines = [",".join(COLUMNS), *(",".join(f'"{row[name]}"' for name in COLUMNS) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "Llama-4-Maverick"}, "no model 'Llama-4-Maverick'"),
        ({"hardware": "an abacus"}, "no cluster"),
        ({"gpus": ""}, "not stated"),
        ({"unit": "x"}, "not a throughput"),
        ({"phase": "e2e", "isl": ""}, "lengths are not stated"),
        ({"gpus": "1", "ep": "1", "dp": "1", "metric": ""}, "does not"),
    ],
)
def test_rows_without_a_prediction_say_why(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    rows = DECODE | change
    if "does not" in reason:
        rows |= {"batch_per_gpu": "", "osl": "1"}
    good, bad = published_figures(read_published(write(tmp_path / "p.csv", DECODE, rows)))
    assert good.predicted is not None
    assert bad.predicted is None
    assert bad.error is None
    assert reason in bad.settings


def test_units_are_shares_of_the_same_rate(tmp_path: Path) -> None:
    rows = [DECODE | {"unit": unit} for unit in ("tok/s/node", "tok/s/gpu", "tok/s")]
    node, gpu, whole = (f.predicted or 0.0 for f in published_figures(read_published(write(tmp_path / "p.csv", *rows))))
    assert node == pytest.approx(8 * gpu)
    assert whole == pytest.approx(72 * gpu)


def test_a_queue_is_worked_off_in_waves() -> None:
    case = s.scenario(workload=s.serving(isl=512, osl=64))
    split = make_split(case, tp=1, ep=1, pp=1, dp=1, batch=1)
    model = ServingModel(case, s.serving(isl=512, osl=64), split)
    one = queue_tokens_per_s(model, 100, 100)
    prefill = 100 * 512 / 4096 * model.full_pass.slowest_s
    assert one == pytest.approx(100 * 64 / (prefill + 64 * model.decode_step_s(100)))
    # 100 requests, 60 at a time: two waves of 50.
    assert queue_tokens_per_s(model, 100, 60) == pytest.approx(100 * 64 / (prefill + 2 * 64 * model.decode_step_s(50)))


@pytest.mark.parametrize(("text", "message"), [("a,b\n1,2\n", "no column id"), (None, "no such file")])
def test_files_that_hold_no_figures_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "p.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_published(path)
    with pytest.raises(InputError, match="line 2, value: 'many' is no number"):
        read_published(write(tmp_path / "q.csv", DECODE | {"value": "many"}))


def test_published_deployments_are_met(shared_dir: Path) -> None:
    path = shared_dir / "measured" / "published.csv"
    if not path.is_file():
        pytest.skip("no published figures beside this checkout (../shared/measured/published.csv)")
    figures = published_figures(read_published(path))
    assert sum(figure.predicted is not None for figure in figures) > 50
    assert median_error(figures) < 0.25
    asked = [f for f in figures if f.id.startswith("sgl_h100") and f.predicted is not None]
    assert len(asked) >= 8
    assert median_error(asked) < 0.2


def test_the_command_tells_a_table_or_json(tmp_path: Path) -> None:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "bench", "accuracy", *args], capture_output=True, text=True)

    path = str(write(tmp_path / "p.csv", DECODE))
    told = run("--published", path)
    assert told.returncode == 0, told.stderr
    assert "sgl_x" in told.stdout
    record = json.loads(run("--published", path, "--json").stdout)
    assert record["predicted"] == 1
    assert run().returncode == 2
    wrong = run("--data", path)
    assert wrong.returncode == 2
    assert "no column" in wrong.stderr
    assert "Traceback" not in wrong.stderr
