import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from placement.planning import migration_case as migrating
from placement.planning.resize import resize
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
    assert verified.out.endswith("17 checked, 4 claimed, 1 missing\n")
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


def _moved(before: list[int], after: list[int], width: int, wide: int) -> int:
    """Experts that come to a GPU that did not hold them, or was not there."""
    held = [set(before[g : g + width]) for g in range(0, len(before), width)]
    return sum(
        len(set(after[g : g + wide]) - {-1} - (held[g // wide] if g // wide < len(held) else set()))
        for g in range(0, len(after), wide)
    )


@pytest.mark.parametrize(("gpus", "ranks", "wide"), [(6, 6, 3), (8, 8, 3), (3, 4, 3), (2, 2, 4)])
def test_a_plan_grows_and_shrinks_with_few_moves(
    gpus: int, ranks: int, wide: int, call: Callable[..., Done], folder: Path, tmp_path: Path
) -> None:
    """From 4 GPUs on nodes of 2: to whole nodes, to a number that leaves one out, and to where slots must be added."""
    out = tmp_path / "new.json"
    done = call(*_args(folder, "--to-gpus", str(gpus), "--max-moves", "60", "--json", "--out", str(out)))
    assert done.code == 0, done.err
    told = json.loads(done.out)
    old, new = load_plan(folder / "recorded.json").role(), load_plan(out).role()
    assert (told["gpus_before"], told["gpus"]) == (4, gpus)
    assert (new.split.ep, new.split.dp, new.slots_per_gpu) == (ranks, ranks, wide)
    assert new.failed_gpus == tuple(range(gpus, ranks))
    pairs = [
        (list(a.physical_to_logical), list(b.physical_to_logical)) for a, b in zip(old.layers, new.layers, strict=True)
    ]
    assert told["chosen"]["moves"] == sum(_moved(before, after, 3, wide) for before, after in pairs)
    # Every free slot is a move, and so is every expert that was only on GPUs that leave.
    kept = [before[: gpus * 3] for before, _ in pairs]
    least = sum(max(8 - len(set(before)), gpus * wide - len(before)) for before in kept)
    assert told["forced_moves"] == least
    assert told["forced_moves"] <= told["chosen"]["moves"]
    assert all(set(after[: gpus * wide]) == set(range(8)) for _, after in pairs)
    verified = call("verify", str(out), "--trace", str(folder / "b.npz"))
    assert verified.code == 0, verified.out
    assert told["front"][0]["moves"] == told["forced_moves"]
    assert "running" not in [strategy.name for strategy in new.strategies]


def test_gpus_that_leave_send_what_they_hold(call: Callable[..., Done], folder: Path) -> None:
    """A GPU that is lost sends nothing; one that is taken out does, and so nothing comes from storage."""
    loaded = json.loads(call(*_args(folder, "--failed-gpu", "3", "--json")).out)
    sent = json.loads(call(*_args(folder, "--to-gpus", "3", "--json")).out)
    assert sent["forced_moves"] == loaded["forced_moves"]
    assert sent["front"][0]["transfer_gb"] == loaded["front"][0]["transfer_gb"]
    assert sent["front"][0]["transfer_ms"] <= loaded["front"][0]["transfer_ms"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--to-gpus", "4"), "4 is no other number than the plan's 4"),
        (("--to-gpus", "6", "--failed-gpu", "1"), "leave out --to-gpus"),
        (("--to-gpus", "6", "--fixed-gpu", "1"), "leave out --to-gpus"),
    ],
)
def test_numbers_of_gpus_that_make_no_sense_are_refused(
    more: tuple[str, ...], words: str, call: Callable[..., Done], folder: Path
) -> None:
    done = call(*_args(folder, *more))
    assert done.code == 2
    assert words in done.err


def test_one_role_of_several_grows_by_itself(folder: Path) -> None:
    plan = load_plan(folder / "recorded.json")
    cluster, only = plan.scenario.spec.cluster, plan.role()
    pools = {"prefill": cluster.model_copy(update={"name": "other"}), "decode": cluster}
    filled = only.model_copy(update={"binds": ("prefill",), "largest_batch": 2 * only.split.batch})
    roles = tuple(filled.model_copy(update={"role": name, "cluster": pool}) for name, pool in pools.items())
    two = plan.model_copy(update={"roles": roles})
    done = resize(two, roles[1], 6)
    spec = done.plan.scenario.spec
    assert (spec.pins.ep, spec.prefill_pins.ep, spec.decode_pins.ep, spec.decode_pins.dp) == (4, None, 6, 6)
    assert spec.redundant == "auto"
    assert (cluster.nodes, spec.cluster.nodes, done.role.cluster.nodes) == (2, 2, 3)
    assert done.plan.roles == (roles[0], done.role)
    # What kept a batch of other instances small is not known of these.
    assert (done.role.binds, done.role.largest_batch) == ((), None)
    assert done.plan.scenario_of(done.role).pins.ep == done.role.split.ep == 6


def test_a_size_that_serves_nobody_in_time_is_infeasible(
    call: Callable[..., Done], folder: Path, tmp_path: Path
) -> None:
    plan = load_plan(folder / "recorded.json")
    tight = plan.scenario.spec.workload.model_copy(update={"tpot_ms": 1e-3})
    spec = plan.scenario.spec.model_copy(update={"workload": tight})
    path = tmp_path / "tight.json"
    plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"spec": spec})}).save(path)
    done = call("migrate", "--plan", str(path), "--trace", str(folder / "b.npz"), *QUICK, "--to-gpus", "6")
    assert done.code == 3
    assert "on 6 GPUs, with 8 sequences per attention rank, TPOT is" in done.err


def _migrated(call: Callable[..., Done], folder: Path, apart: Path, out: Path, *more: str) -> Any:
    """What a migration of the plan of two roles says in JSON; its plan verifies."""
    b = str(folder / "b.npz")
    done = call("migrate", str(apart), "--trace", b, *QUICK, "--out", str(out), "--json", *more)
    assert done.code == 0, done.err
    verified = call("verify", str(out), "--trace", b, "--json")
    assert verified.code == 0, verified.out
    missing = [each["name"] for each in json.loads(verified.out)["checks"] if each["kind"] == "missing"]
    assert all(name.endswith("batches") for name in missing)
    return json.loads(done.out)


def test_all_roles_move_and_the_plan_verifies(
    call: Callable[..., Done], folder: Path, apart: Path, tmp_path: Path
) -> None:
    told = _migrated(call, folder, apart, tmp_path / "new.json", "--max-moves", "4")
    plan, before = load_plan(tmp_path / "new.json"), load_plan(apart)
    assert list(told["roles"]) == ["prefill", "decode"]
    for old, new in zip(before.roles, plan.roles, strict=True):
        part = told["roles"][new.role]
        assert part["chosen"]["moves"] <= 4
        assert part["layers"] == [
            {"layer": layer.layer, "physical_to_logical": list(layer.physical_to_logical)} for layer in new.layers
        ]
        ran = new.strategy("running")
        assert ran is not None
        assert ran.placements == tuple(layer.physical_to_logical for layer in old.layers)
    assert "\ndecode, an instance's" in call("migrate", str(apart), "--trace", str(folder / "b.npz"), *QUICK).out


def test_a_role_moves_and_the_other_is_judged_on_the_new_routing(
    call: Callable[..., Done], folder: Path, apart: Path, tmp_path: Path
) -> None:
    told = _migrated(call, folder, apart, tmp_path / "new.json", "--role", "decode", "--max-moves", "4")
    assert told["role"] == "decode"
    (kept, moved), (stood, ran) = load_plan(tmp_path / "new.json").roles, load_plan(apart).roles
    assert [each.physical_to_logical for each in kept.layers] == [each.physical_to_logical for each in stood.layers]
    assert kept.predicted != stood.predicted
    assert moved.layers != ran.layers


def test_gpus_and_maps_are_of_the_role_that_is_named(
    call: Callable[..., Done], folder: Path, apart: Path, tmp_path: Path
) -> None:
    args = ("migrate", str(apart), "--trace", str(folder / "b.npz"), *QUICK)
    for more in (("--failed-gpu", "0"), ("--to-gpus", "2"), ("--current", str(folder / "a.npz"))):
        done = call(*args, *more)
        assert done.code == 2
        assert "--role: the plan has 2 (prefill, decode); name one of them" in done.err


def test_a_role_grows_and_its_instances_lie_on_nodes_again(
    call: Callable[..., Done], folder: Path, apart: Path, tmp_path: Path
) -> None:
    told = _migrated(
        call, folder, apart, tmp_path / "new.json", "--role", "decode", "--to-gpus", "6", "--max-moves", "99"
    )
    assert (told["gpus_before"], told["gpus"]) == (4, 6)
    plan = load_plan(tmp_path / "new.json")
    lies = sum(each.nodes * held.gpus for each in plan.nodes for held in each.holds if held.instance == 1)
    assert lies == plan.role("decode").gpus == 6
