"""Reading measured rows: what is mended, what is refused, and what can't be predicted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.accuracy.rows import COLUMNS, read_rows
from bench.accuracy.samples import samples_of
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
        (
            {"id": "a_c256_tp8_ep8_1", "gpus": "64", "tp": "1", "dp": "64", "batch_per_attention_rank": "32"},
            (8, 1, 8, 8, 32.0, True),
        ),
        ({"gpus": "16", "tp": "4", "ep": "16", "dp": "4"}, (4, 4, 4, 1, 64.0, True)),
        ({"gpus": "16", "tp": "4", "ep": "4", "dp": "4", "id": "plain"}, (16, 4, 4, 4, 16.0, False)),
        ({"id": "a_c16_tp8_ep8_1"}, (8, 8, 8, 1, 16.0, False)),
        ({"id": "a_c64_tp8_ep8_1"}, (8, 8, 8, 1, 64.0, True)),
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
    with pytest.raises(InputError, match="no such file"):
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


def test_a_user_names_the_checkpoint_and_perhaps_the_engine(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "m.csv", GOOD, GOOD | {"dtype": "fp4", "engine": ""}))
    named, unnamed = (settings_of(rows, view)[0] for view in ("named", "unnamed"))
    assert [s.scenario.engine.name for s in named] == ["sglang", "generic"]
    assert [s.scenario.engine.name for s in unnamed] == ["generic", "generic"]
    assert [s.scenario.model.types.experts for s in unnamed] == ["fp8", "nvfp4"]
    assert {s.case.engine for s in unnamed} == {None}


def test_a_measurement_is_judged_once_however_often_it_is_stated(tmp_path: Path) -> None:
    again = GOOD | {"id": "b_tp8_ep8_2", "model": "deepseek-ai/DeepSeek-V3", "gpus": "64", "tp": "64"}
    other = GOOD | {"id": "c", "tpot_ms": "13.5"}
    samples, left = samples_of(read_rows(write(tmp_path / "m.csv", GOOD, again, other)))
    assert not left
    assert [sample.row.id for sample in samples] == [GOOD["id"], "c"]
    assert {sample.model for sample in samples} == {"deepseek_r1"}


def test_rows_of_more_requests_than_hbm_holds_are_told(tmp_path: Path) -> None:
    long = GOOD | {"isl": "8192", "batch_per_attention_rank": "2048"}
    # What does not fit with one request, but ran, tells nothing.
    tight = GOOD | {"gpus": "4", "tp": "4", "ep": "4", "ttft_ms": "1"}
    samples, _ = samples_of(read_rows(write(tmp_path / "m.csv", GOOD, long, tight)))
    assert [sample.queued for sample in samples] == [False, True, False]


def test_data_types_are_the_checkpoints(tmp_path: Path) -> None:
    oss = {"model": "openai/gpt-oss-120b", "dtype": "fp4", "engine": "vllm 1"}
    kinds = (GOOD, GOOD | oss, GOOD | oss | {"gpu": "h200_sxm"}, GOOD | {"dtype": "fp4"})
    settings = settings_of(read_rows(write(tmp_path / "m.csv", *kinds)))[0]
    types = [setting.scenario.types for setting in settings]
    assert [t.experts for t in types] == ["fp8", "mxfp4", "mxfp4", "nvfp4"]
    assert [t.kv_cache for t in types] == ["bf16", "bf16", "bf16", "fp8"]
    # What engines multiply 16-bit activations in, their entries say.
    assert [t.multiplied for t in types] == ["fp8", "bf16", "bf16", "nvfp4"]
