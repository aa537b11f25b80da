import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from placement.planning import migrate as migrating
from placement.records.plan import load_plan
from tests.cli.conftest import Done, finish, process

QUICK = ("--work", "0.05", "--workers", "1")


def _args(folder: Path, *more: str) -> list[str]:
    return ["migrate", "--plan", str(folder / "recorded.json"), "--trace", str(folder / "b.npz"), *QUICK, *more]


def test_the_front_runs_from_the_running_plan_to_the_full_solve(call: Callable[..., Done], folder: Path) -> None:
    done = call(*_args(folder, "--json"))
    assert done.code == 0
    told = json.loads(done.out)
    front = told["front"]
    assert told["running"]["moves"] == 0
    assert told["chosen"] is None
    assert told["layers"] == []
    assert front[0]["moves"] == 0
    assert front[-1]["gain"] == pytest.approx(1.0)
    for less, more in pairwise(front):
        assert less["moves"] < more["moves"]
        assert less["objective"] > more["objective"]


def test_a_migrated_plan_verifies_and_keeps_the_budget(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.json"
    done = call(*_args(folder, "--max-moves", "2", "--out", str(out)))
    assert done.code == 0, done.err
    assert "held-out" in done.out
    old, new = load_plan(folder / "recorded.json").role(), load_plan(out).role()
    moves = sum(
        len(set(after[g : g + 3]) - set(before[g : g + 3]))
        for before, after in (
            (a.physical_to_logical, b.physical_to_logical) for a, b in zip(old.layers, new.layers, strict=True)
        )
        for g in range(0, 12, 3)
    )
    assert moves <= 2
    assert new.strategy("running").placements == tuple(layer.physical_to_logical for layer in old.layers)
    verified = call("verify", str(out), "--trace", str(folder / "b.npz"))
    assert verified.code == 0, verified.out
    assert verified.out.endswith("16 checked, 5 claimed, 1 missing\n")
    assert call("evaluate", "--plan", str(out), "--trace", str(folder / "b.npz")).code == 0


def test_a_bound_above_the_objective_is_a_bug_and_not_masked(
    call: Callable[..., Done], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = migrating.layer_fronts

    def wrong(*args: Any) -> Any:
        fronts = true(*args)
        return replace(fronts, full=tuple(replace(answer, bound=answer.bound * 1e3) for answer in fronts.full))

    monkeypatch.setattr(migrating, "layer_fronts", wrong)
    with pytest.raises(RuntimeError, match="above the objective"):
        call(*_args(folder, "--max-moves", "2", "--out", str(tmp_path / "new.json")))


def test_a_transfer_limit_is_kept(call: Callable[..., Done], folder: Path) -> None:
    free = json.loads(call(*_args(folder, "--json")).out)["front"][-1]["transfer_ms"]
    told = json.loads(call(*_args(folder, "--json", "--max-transfer-ms", f"{free / 2:.9f}")).out)
    assert 0 < told["chosen"]["transfer_ms"] <= free / 2 + 1e-9


def test_failed_gpus_are_left_empty(folder: Path) -> None:
    done = finish(
        process(
            ["-m", "placement.migrate", *_args(folder, "--failed-gpu", "1", "--max-moves", "9", "--json")[1:]], folder
        )
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["running"] is None
    assert told["forced_moves"] <= told["chosen"]["moves"] <= 9
    for layer in told["layers"]:
        assert layer["physical_to_logical"][3:6] == [-1, -1, -1]
        assert set(range(8)) <= set(layer["physical_to_logical"])


@pytest.mark.parametrize("dispatch", ["nearest", "planned"])
def test_a_plan_with_a_failed_gpu_is_written_verified_evaluated_and_migrated_on(
    call: Callable[..., Done], folder: Path, tmp_path: Path, dispatch: str
) -> None:
    old, new, later = (str(tmp_path / f"{name}.json") for name in ("old", "new", "later"))
    a, b = str(folder / "a.npz"), str(folder / "b.npz")
    args = ["solve", "--spec", str(folder / "tiny.yaml"), "--strategy", "search", "--dispatch", dispatch]
    assert call(*args, "--trace", a, "--out", old, *QUICK).code == 0
    done = call("migrate", "--plan", old, "--trace", b, *QUICK, "--failed-gpu", "1", "--max-moves", "9", "--out", new)
    assert done.code == 0, done.err
    plan = load_plan(new)
    assert plan.role().failed_gpus == (1,)
    assert plan.role().strategy("running") is None
    for layer in plan.role().layers:
        assert layer.physical_to_logical[3:6] == (-1, -1, -1)
        assert set(range(8)) <= set(layer.physical_to_logical)
    verified = call("verify", new, "--trace", b, "--json")
    assert verified.code == 0, verified.out
    checks = json.loads(verified.out)["checks"]
    # A plan that runs keeps its batch.
    assert [check["name"] for check in checks if check["kind"] == "missing"] == ["batches"]
    assert all(check["passed"] for check in checks if check["kind"] == "checked")
    evaluated = json.loads(call("evaluate", "--plan", new, "--trace", b, "--part", "second-half", "--json").out)
    assert evaluated["traces"][0]["plan"]["moe_layer_us"] == pytest.approx(plan.role().strategy("solved").moe_layer_us)

    done = call("migrate", "--plan", new, "--trace", a, *QUICK, "--max-moves", "3", "--out", later, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["failed_gpus"] == [1]
    assert told["forced_moves"] == 0
    assert told["running"] is not None
    ran = tuple(each.physical_to_logical for each in plan.role().layers)
    assert load_plan(later).role().strategy("running").placements == ran
    assert call("verify", later, "--trace", a).code == 0
    done = call("migrate", "--plan", new, "--trace", a, *QUICK, "--fixed-gpu", "1")
    assert done.code == 2
    assert "can't keep its experts" in done.err


def test_too_few_gpus_left_is_infeasible_by_so_many_slots(call: Callable[..., Done], folder: Path) -> None:
    done = call(*_args(folder, "--failed-gpu", "0", "--failed-gpu", "1"))
    assert done.code == 3
    assert "6 slots for 8 experts, 2 too few" in done.err


def test_a_budget_below_the_forced_moves_is_infeasible(call: Callable[..., Done], folder: Path) -> None:
    done = call(*_args(folder, "--failed-gpu", "1", "--max-moves", "0"))
    assert done.code == 3
    assert "more than the budget of 0" in done.err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--failed-gpu", "4"), "GPU 4 of 4"),
        (("--failed-gpu", "1", "--fixed-gpu", "1"), "can't keep its experts"),
        (("--max-moves", "1", "--max-transfer-ms", "1"), "more than one budget"),
        (("--max-moves", "-1"), "is not in the range"),
        (("--max-moves-percent", "101"), "is not in the range"),
        (("--max-moves-percent", "nan"), "nan is no budget"),
        (("--max-transfer-ms", "nan"), "nan is no budget"),
        (("--max-transfer-ms", "-1"), "is not in the range"),
        (("--out", "x.json"), "no budget"),
    ],
)
def test_bad_input_is_one_line(call: Callable[..., Done], folder: Path, more: tuple[str, ...], told: str) -> None:
    done = call(*_args(folder, *more))
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1


def test_a_trace_is_needed(call: Callable[..., Done], folder: Path) -> None:
    done = call("migrate", "--plan", str(folder / "recorded.json"))
    assert done.code == 2
    assert "no new routing" in done.err
