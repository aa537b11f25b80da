"""DeepSeek-V3's published training step, predicted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.accuracy.training import published_run, table, training_accuracy
from placement.cost.memory.hbm import memory_of
from placement.errors import InputError
from placement.problem.split import make_split
from solvers.split.enumerate import enumerate_splits
from specs.loading import load_scenario

HEADER = "id,metric,value,unit\n"


def test_step_and_every_part_are_within_a_tenth(shared_dir: Path) -> None:
    path = shared_dir / "measured" / "published.csv"
    if not path.is_file():
        pytest.skip("no measurements beside this checkout (../shared/measured/published.csv)")
    found = training_accuracy(path)
    print(table(found))
    assert len(found.rows) >= 13
    assert all(row.predicted is not None for row in found.rows), "a row has no prediction"
    assert {"time/step", "1F", "bubble", "1B", "1W", "1F1B", "opt"} <= {row.metric for row in found.rows}
    assert found.worst_error < 0.10
    assert found.median_error < 0.05
    # Constants were fitted to the step and its parts, so none of these rows validates anything.
    assert all(row.fitted for row in found.rows)


def test_parts_sum_to_the_step() -> None:
    _, _, step = published_run()
    pipeline = step.pipeline
    parts = pipeline.forward_s + pipeline.backward_s + pipeline.weight_s + pipeline.pair_s + pipeline.idle_s
    assert parts == pytest.approx(pipeline.total_s)
    assert parts + step.gradients_s + step.optimizer_s == pytest.approx(step.step_s, rel=2e-3)


def test_the_run_fits_its_gpus_and_is_what_its_pins_give() -> None:
    scenario = load_scenario("deepseek_v3_train_h800")
    choice = enumerate_splits(scenario)
    assert (choice.best.gpus, choice.best.microbatches, choice.idle_gpus) == (2048, 120, 0)
    assert memory_of(scenario, make_split(scenario, 1, 64, 16, 64, 120, instances=2)).fits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "has no row dsv3_train"),
        (HEADER + "other,1F,1.0,s\n", "has no row dsv3_train"),
        (HEADER + "dsv3_train_1F,1F,fast,s\n", "value of dsv3_train_1F"),
        (HEADER + "dsv3_train_1F,1F,-1,s\n", "no positive number"),
        ("id,value\ndsv3_train_1F,1\n", "no column metric, unit"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        training_accuracy(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        training_accuracy(tmp_path / "missing.csv")


def test_rows_without_a_prediction_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + "dsv3_train_1F,1F,1.13,s\ndsv3_train_loss,loss,2.0,nats\n")
    found = training_accuracy(path)
    assert [row.error is None for row in found.rows] == [False, True]
    assert "loss, nats" in table(found)
    assert found.worst_error == pytest.approx(abs(found.rows[0].error or 0))
