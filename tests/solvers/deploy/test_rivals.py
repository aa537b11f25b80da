"""Recipes: what was configured is read as it was counted, and every rival is the best that its layouts allow."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from placement.cost.memory.hbm import memory_of
from placement.cost.step.roles import kv_bytes_per_request
from placement.problem.split import stage_problem
from placement.records.rival import RivalRecord
from solvers.deploy.columns import list_columns, pool_of
from solvers.deploy.problem import MasterProblem
from solvers.deploy.rivals.book import recipes_of
from solvers.deploy.rivals.layouts import families, gpus_of, name_of, named, powers
from solvers.deploy.rivals.rate import Rival, best_rival, rivals_of
from solvers.deploy.rivals.recipes import load_recipes, nearest_entries
from solvers.deploy.rivals.record import rival_record
from solvers.deploy.solve import solve_master
from solvers.split.degrees import Degrees
from specs.loading import catalog_names, load_cluster, load_model, load_scenario
from specs.scenario import Pins, Scenario
from tests.cost import scenarios as s
from tests.solvers.deploy.problems import ROLES, few_kinds, packs


def small() -> Scenario:
    """A small model on 2 x 4 GPUs."""
    return s.scenario(workload=s.serving(isl=1024, osl=128, ttft_ms=60.0, tpot_ms=4.0))


def master(case: Scenario, **changes: object) -> MasterProblem:
    columns = list_columns([case], ROLES, case.pins, None).columns
    return replace(MasterProblem((pool_of(case),), columns, kv_bytes_per_request(case)), **changes)


def named_rival(rivals: tuple[Rival, ...], name: str) -> Rival:
    return next(rival for rival in rivals if rival.name == name)


def test_names_of_layouts() -> None:
    assert named("TEP8") == Degrees(8, 8, 1, 1, 0)
    assert named("DEP32") == Degrees(1, 32, 1, 32, 0)
    assert named("DTP4") == Degrees(1, 1, 1, 4, 0)
    assert named("TP1xPP4") == Degrees(1, 1, 4, 1, 0)
    assert named("TP8EP2") == Degrees(8, 2, 1, 1, 0)
    assert named("TP2DP4") == Degrees(2, 1, 1, 4, 0)
    every = {name for entry in load_recipes().entries for role in ROLES for name in entry.layouts(role)}
    for name in sorted({*every, *families(powers(64))}):
        assert named(name_of(named(name))) == named(name)
    with pytest.raises(ValueError, match="names no layout"):
        named("XP8")


def test_recipes_name_what_there_is() -> None:
    recipes = load_recipes()
    models = [model for family in recipes.families.values() for model in family.models]
    assert set(models) <= set(catalog_names("model"))
    assert len(models) == len(set(models))
    assert {entry.family for entry in recipes.entries} <= recipes.families.keys()
    assert {entry.gpu for entry in recipes.entries} <= recipes.gpus.keys()
    assert all(entry.points > 0 for entry in recipes.entries)


def test_recipes_are_counted_as_they_were_configured(shared_dir: Path) -> None:
    wanted: Counter[tuple[str, str, str]] = Counter()
    with (shared_dir / "measured" / "recipes_2026.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            role = "aggregated" if row["mode"] == "agg" else "decode"
            for gpu in filter(None, row["gpu"].split("|")):
                for of_role, layout in ((role, row["decode_layout"]), ("prefill", row["prefill_layout"])):
                    if any(digit.isdigit() for digit in layout):
                        wanted[gpu, of_role, layout] += 1
    found: Counter[tuple[str, str, str]] = Counter()
    for entry in load_recipes().entries:
        for of_role in ROLES:
            for layout, counted in entry.layouts(of_role).items():
                found[entry.gpu, of_role, layout] += counted[0]
    assert found == wanted


def test_the_nearest_recipes_are_of_the_family_and_the_gpu_first() -> None:
    rack, box = load_cluster("gb200_nvl72_ib"), load_cluster("h100_hgx_ib")
    near = nearest_entries(load_model("deepseek_r1"), rack)
    assert {(entry.family, entry.gpu) for entry in near.of_family} == {("deepseek_r1", "GB200")}
    sizes = {load_recipes().families[entry.family].billions for entry in near.of_size}
    assert sizes
    assert all(671 / 2 <= size <= 671 * 2 for size in sizes)
    assert {entry.gpu for entry in near.of_size} == {"GB200"}
    # OLMoE is in no recipe, and far smaller than any: the smallest family is nearest.
    assert not nearest_entries(load_model("olmoe_1b_7b"), box).of_family
    assert {e.family for e in nearest_entries(load_model("olmoe_1b_7b"), box).of_size} == {"glm_4_5v"}
    # H800 is in no recipe: another Hopper in a box of eight is.
    assert {e.gpu for e in nearest_entries(load_model("deepseek_r1"), load_cluster("h800_2048_ib")).of_family} <= {
        "H20", "H100", "H200",
    }  # fmt: skip


def test_a_layout_that_does_not_lie_on_the_nodes_becomes_the_nearest_that_do() -> None:
    case = load_scenario("deepseek_r1_gb200_ib")
    configured = recipes_of([case], ("decode",))[0]
    names = configured.allowed[0].layouts
    assert "DEP32" in {name for entry in nearest_entries(case.model, case.cluster).of_family for name in entry.decode}
    assert "DEP32" in names  # eight trays of a rack
    # Without trays a stage divides the node, or fills nodes.
    whole = case.cluster.model_copy(update={"gpus_per_os_node": None})
    names = recipes_of([case.model_copy(update={"cluster": whole})], ("decode",))[0].allowed[0].layouts
    assert {"DEP24", "DEP72"} <= set(names)
    assert not any(stage_problem(whole, gpus_of(name)) for name in names)
    assert [gpus_of(name) for name in names] == sorted(gpus_of(name) for name in names)


@pytest.mark.parametrize("roles", [ROLES, ("aggregated",), ("prefill", "decode")])
def test_a_rival_is_the_best_of_its_layouts(roles: tuple[str, ...]) -> None:
    """TP alone and EP alone against columns of pinned degrees, the way the planner lists them."""
    case = small()
    wanted = [role for role in ROLES if role in roles]
    problem = master(case)
    rivals = rivals_of([case], problem, wanted)
    for name, pins in (
        ("TP only", [Pins(tp=n, ep=1, pp=1, dp=1) for n in (1, 2, 4)]),
        ("EP only", [Pins(tp=1, ep=n, pp=1, dp=n) for n in (1, 2, 4)]),
    ):
        columns = [c for pin in pins for c in list_columns([case], wanted, pin, None).columns]
        best = solve_master(replace(problem, columns=tuple(columns)))
        rival = named_rival(rivals, name)
        assert rival.requests_per_s == pytest.approx(best.requests_per_s, rel=1e-9)
        assert rival.gpus == best.gpus


def test_rivals_keep_what_the_planner_keeps() -> None:
    case = small()
    workload = case.workload
    assert workload.kind == "serving"
    for most in (None, 2):
        problem = master(case, max_kinds=most)
        planned = solve_master(problem)
        rivals = rivals_of([case], problem, ROLES)
        assert [r.requests_per_s for r in rivals] == sorted((r.requests_per_s for r in rivals), reverse=True)
        assert best_rival(rivals) is rivals[0]
        for rival in rivals:
            assert rival.feasible != bool(rival.why)
            assert rival.requests_per_s <= planned.requests_per_s * (1 + 1e-9)
            columns = tuple(column for column, _ in rival.kinds)
            counts = tuple(count for _, count in rival.kinds)
            own = replace(problem, columns=columns)
            assert packs(own, counts)
            assert few_kinds(own, counts)
            assert own.requests_per_s(counts) == pytest.approx(rival.requests_per_s)
            assert rival.gpus == own.gpus(counts) <= case.cluster.gpus
            assert all(memory_of(case, column.split).fits for column in columns)
            assert (rival.ttft_s or 0.0) * 1e3 <= workload.ttft_ms * (1 + 1e-9)
            assert (rival.tpot_s or 0.0) * 1e3 <= workload.tpot_ms * (1 + 1e-9)


def test_the_smallest_prefill_holds_the_model() -> None:
    case = small().model_copy(update={"cluster": s.cluster(hbm_gib=1.5), "reserve_gib": 0.5})
    high = named_rival(rivals_of([case], master(case), ROLES), "high concurrency: smallest prefill, DEP decode")
    prefill = [column.gpus for column, _ in high.kinds if column.role == "prefill"]
    held = [
        n for n in (1, 2, 4, 8)
        if any(c.columns for c in [list_columns([case], ("prefill",), Pins(pp=1, tp=1, dp=n), None)])
    ]  # fmt: skip
    assert prefill
    assert min(held) > 1
    assert min(held) <= min(prefill) <= max(prefill) <= 2 * min(held)


def test_a_recipe_that_the_pins_or_hbm_forbid_says_so() -> None:
    pinned = small().model_copy(update={"pins": Pins(tp=2)})
    rivals = rivals_of([pinned], master(pinned), ROLES)
    assert named_rival(rivals, "EP only").why.startswith("aggregated: tp is pinned to 2")
    assert all(column.split.tp == 2 for rival in rivals for column, _ in rival.kinds)
    apart = small().model_copy(update={"prefill_pins": Pins(tp=4), "decode_pins": Pins(tp=1)})
    for rival in rivals_of([apart], master(apart), ("prefill", "decode")):
        assert all(column.split.tp == (4 if column.role == "prefill" else 1) for column, _ in rival.kinds)
    tiny = small().model_copy(update={"cluster": s.cluster(hbm_gib=0.6), "reserve_gib": 0.5})
    refused = rivals_of([tiny], master(tiny), ("aggregated",))
    assert best_rival(refused) is None
    assert "exceeds HBM" in named_rival(refused, "TP only").why


def test_a_wanted_rate_is_reached_with_the_fewest_gpus() -> None:
    case = small()
    best = solve_master(master(case))
    problem = master(case, goal="gpus", target=best.requests_per_s / 2)
    planned = solve_master(problem)
    rivals = [rival for rival in rivals_of([case], problem, ROLES) if rival.feasible]
    assert [rival.gpus for rival in rivals] == sorted(rival.gpus for rival in rivals)
    assert all(planned.gpus <= rival.gpus for rival in rivals)
    assert all(rival.requests_per_s >= problem.target * (1 - 1e-6) for rival in rivals)


def test_a_rival_as_a_record() -> None:
    case = small()
    problem = master(case)
    for rival in rivals_of([case], problem, ROLES):
        record = rival_record(rival, problem.pools, 128)
        assert RivalRecord.model_validate_json(record.model_dump_json()) == record
        assert record.feasible == rival.feasible
        assert sum(each.gpus * each.count for each in record.roles) == record.gpus
        if record.tokens_per_s is not None:
            assert record.tokens_per_s == pytest.approx(128 * rival.requests_per_s)
