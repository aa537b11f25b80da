"""Reading measured rows: what is mended, what is refused, and what can't be predicted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.accuracy.rows import COLUMNS, read_rows
from bench.accuracy.settings import settings_of
from placement.errors import InputError

GOOD = {
    "id": "a_tp8_ep8_1", "model": "deepseek-ai/DeepSeek-R1", "gpu": "b200_sxm", "gpus": "8", "tp": "8", "ep": "8",
    "dp": "1", "pp": "1", "batch_per_attention_rank": "16", "isl": "1024", "osl": "1024", "dtype": "fp8",
    "engine": "sglang 0.5.9", "ttft_ms": "300.5", "tpot_ms": "12.5",
}  # fmt: skip


def write(path: Path, *rows: dict[str, str]) -> Path:
    lines = [",".join(COLUMNS), *(",".join(row[name] for name in COLUMNS) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (8, 8, 8, 1, 16.0, False)),
        ({"gpus": "64", "tp": "64"}, (8, 8, 8, 1, 16.0, True)),
        ({"gpus": "64", "tp": "1", "dp": "64", "batch_per_attention_rank": "2"}, (8, 1, 8, 8, 16.0, True)),
        ({"id": "plain", "gpus": "16", "tp": "16", "ep": "4"}, (4, 4, 4, 1, 16.0, True)),
        ({"id": "x_tp4_epnone_1", "gpus": "4", "tp": "4", "ep": "2"}, (4, 4, 2, 1, 16.0, False)),
        ({"id": "x_tp2_ep2_1", "gpus": "4", "tp": "4", "ep": "2"}, (2, 2, 2, 1, 16.0, True)),
        ({"id": "plain", "gpus": "4", "tp": "4", "ep": "2"}, (4, 4, 2, 1, 16.0, False)),
        ({"id": "plain", "gpu": "gb200", "gpus": "64", "tp": "64"}, (64, 64, 8, 1, 16.0, False)),
    ],
)
def test_gpus_counted_twice_are_mended(tmp_path: Path, change: dict[str, str], expected: tuple[float, ...]) -> None:
    (row,) = read_rows(write(tmp_path / "m.csv", GOOD | change))
    assert (row.gpus, row.tp, row.ep, row.dp, row.batch, row.mended) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column id"),
        (",".join(COLUMNS), "has no rows"),
        (",".join(COLUMNS[:-1]) + "\n1", "no column tpot_ms"),
    ],
)
def test_files_that_are_no_measurements_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_rows(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tpot_ms": "fast"}, r"line 2, tpot_ms: 'fast' is no number"),
        ({"ttft_ms": "nan"}, "line 2, ttft_ms"),
        ({"tp": "0"}, "line 2, tp"),
        ({"gpus": "2.5"}, "2.5 is not whole"),
        ({"isl": ""}, "line 2, isl"),
    ],
)
def test_values_that_are_no_figures_name_their_line(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_rows(write(tmp_path / "m.csv", GOOD | change))
    with pytest.raises(InputError, match="can't be read"):
        read_rows(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "org/unheard-of"}, "no model 'org/unheard-of' is known"),
        ({"gpu": "abacus"}, "no cluster of 'abacus' GPUs is known"),
        ({"dtype": "fp7"}, "'fp7' is no known data type"),
        ({"id": "plain", "gpus": "72", "tp": "72", "ep": "1", "gpu": "gb200"}, "tp 72 does not divide the 128 heads"),
        ({"pp": "2"}, "is not 8 GPUs"),
        ({"isl": "9000000"}, "longer than the model's context"),
    ],
)
def test_rows_without_a_prediction_say_why(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    settings, left = settings_of(read_rows(write(tmp_path / "m.csv", GOOD, GOOD | change)))
    assert len(settings) == 1
    assert len(left) == 1
    assert reason in left[0].reason


def test_data_types_follow_the_measurement(tmp_path: Path) -> None:
    oss = {"model": "openai/gpt-oss-120b", "dtype": "fp4", "engine": "vllm 1"}
    kinds = (GOOD, GOOD | oss, GOOD | oss | {"gpu": "h200_sxm"}, GOOD | {"dtype": "fp4"})
    rows = read_rows(write(tmp_path / "m.csv", *kinds))
    types = [setting.scenario.model.types for setting in settings_of(rows)[0]]
    assert [t.experts for t in types] == ["fp8", "mxfp4", "mxfp4", "nvfp4"]
    assert [t.compute for t in types] == ["fp8", "fp8", "bf16", "nvfp4"]
    assert [t.kv_cache for t in types] == ["fp8", "bf16", "bf16", "fp8"]
