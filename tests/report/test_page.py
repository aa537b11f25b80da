"""The report as a page: whole, safe, the same bytes, and true to the plan."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from placement.planning.report import Report, compare_plans, report_plan
from placement.records.plan import Plan, load_plan
from placement.records.role import OperationRecord
from placement.report.page.blocks import Bars, Curve, Heat, Lines, Prose, Table
from placement.report.page.evidence import evidence_of
from placement.report.page.markdown import page_markdown
from placement.report.page.plots import svg_of
from tests.cli.conftest import ROOT, finish, process
from tests.report.plans import HOSTILE, changed, hostile_plan, two_roles
from tests.report.reading import faults, found, read, rows, text

#: Sections of a plan of one role.
SECTIONS = [
    "Answer", "Strategies compared", "Memory", "Time", "Experts and their places", "Balance", "Traffic between nodes",
    "Certificate", "Assumptions", "Checked again", "Sources",
]  # fmt: skip
CHARTS = [
    "Tokens/s by strategy", "Memory by line", "Time by part", "Heat of experts", "Copies of experts",
    "Node of each expert", "Balancedness by layer", "Balancedness by window", "Load of each GPU", "Traffic in decode",
    "Traffic in prefill", "Objective and bound by layer",
]  # fmt: skip


@pytest.fixture(scope="module")
def synthetic(folder: Path) -> Plan:
    return load_plan(folder / "synthetic.json")


@pytest.fixture(scope="module")
def report(synthetic: Plan) -> Report:
    return report_plan(synthetic)


def test_every_section_and_chart_is_there(report: Report) -> None:
    root = read(report.html())
    assert not list(faults(root))
    assert [text(each) for each in found(root, "h2")] == SECTIONS
    assert [text(each) for each in found(root, "h3")] == ["Why this answer", "Make it again"]
    titles = [text(found(each, "title")[0]) for each in found(root, "svg")]
    assert titles == CHARTS
    assert all(check.passed is not False for check in report.checks)
    assert not [each for each in found(root, "p") if each.get("class") == "warn"]


def test_figures_are_the_plans(synthetic: Plan, report: Report) -> None:
    root, role = read(report.html()), synthetic.roles[0]
    table = rows(root, f"At one batch: {role.split.batch} per attention rank")
    assert [row[0].removesuffix(" this plan") for row in table[1:]] == [each.name for each in role.strategies]
    rates, at = [f"{each.tokens_per_s:,.0f}" for each in role.strategies], table[0].index("tokens/s at one batch")
    assert [row[at] for row in table[1:]] == rates
    assert [row[0] for row in table if row[0].endswith("this plan")] == ["solved this plan"]
    assert len(rows(root, "HBM of the fullest GPU")) == 3 + sum(line.bytes > 0 for line in role.memory.lines)
    layers = rows(root, "Layers: MoE-layer time in us")
    assert [row[0] for row in layers[1:]] == [str(layer.layer) for layer in role.layers]
    assert f"{synthetic.predicted.tokens_per_s.value:,.0f} output tokens/s on 4 GPUs" in text(found(root, "header")[0])


def test_evidence_agrees_with_the_plans_own_row(synthetic: Plan) -> None:
    from placement.check.plan import cases_of

    case = cases_of(synthetic, ())[0]
    made, own = evidence_of(case, 3), case.role.own
    assert own is not None
    assert made.balance[0].layers.mean() == pytest.approx(own.balancedness, rel=1e-9)
    assert [each.name for each in made.balance] == ["solved", "eplb"]
    assert [each.name for each in made.windows] == ["1/3", "2/3", "3/3"]
    for each in made.traffic:
        per_token = each.between.sum() / (each.tokens * case.role.topology.gpus)
        assert per_token == pytest.approx(own.cross_node_bytes_per_token, rel=1e-9)
    assert np.nanmean(made.heat, axis=1) == pytest.approx(1.0)
    assert made.gpu_load.mean(axis=1) == pytest.approx(1.0)
    assert 1 / made.gpu_load.max(axis=1) == pytest.approx(made.balance[0].layers)


def test_one_window_is_what_the_plan_was_judged_on(synthetic: Plan) -> None:
    from placement.check.plan import cases_of

    made = evidence_of(cases_of(synthetic, ())[0], 1)
    assert made.windows[0].layers == pytest.approx(made.balance[0].layers)


def test_same_plan_same_bytes(folder: Path, synthetic: Plan, report: Report, tmp_path: Path) -> None:
    """Whatever the process, its hashes, and the user's settings of matplotlib."""
    with matplotlib.rc_context({"font.size": 31, "svg.fonttype": "path", "axes.grid": True}):
        assert report_plan(synthetic).html() == report.html()
    args = ["-m", "placement.report", str(folder / "synthetic.json"), "--out", "r.html"]
    assert finish(process(args, tmp_path, PYTHONHASHSEED="7")).code == 0
    assert (tmp_path / "r.html").read_text() == report.html()


def test_recorded_routing_is_asked_for(folder: Path) -> None:
    plan = load_plan(folder / "recorded.json")
    bare, whole = read(report_plan(plan).html()), read(report_plan(plan, traces=[folder / "a.npz"]).html())
    warned = [text(each) for each in found(bare, "p") if each.get("class") == "warn"]
    assert len(warned) == 4
    assert all("recorded routing (a): give it with --trace" in each for each in warned[:3])
    assert not list(faults(bare)) + list(faults(whole))
    drawn = [text(found(each, "title")[0]) for each in found(bare, "svg")]
    assert set(CHARTS) - set(drawn) == {
        "Heat of experts", "Balancedness by layer", "Balancedness by window", "Load of each GPU", "Traffic in decode",
        "Traffic in prefill",
    }  # fmt: skip
    assert [text(found(each, "title")[0]) for each in found(whole, "svg")] == CHARTS


def test_a_failed_check_is_told_and_nothing_is_derived(synthetic: Plan) -> None:
    def lie(data: dict) -> None:  # type: ignore[type-arg]
        slots = data["roles"][0]["layers"][0]["physical_to_logical"]
        slots[0] = slots[1]

    made = report_plan(changed(synthetic, lie))
    assert [check.name for check in made.checks if check.passed is False]
    root = read(made.html())
    warned = [text(each) for each in found(root, "p") if each.get("class") == "warn"]
    assert any("FAILED: placements" in each and "Do not run this plan" in each for each in warned)
    assert any(each.startswith("Note: The heat of experts is not shown") for each in warned)


def test_hostile_names_are_text(folder: Path) -> None:
    plan, traces = hostile_plan(folder)

    def rename(data: dict) -> None:  # type: ignore[type-arg]
        data["provenance"]["versions"] = {HOSTILE: HOSTILE}
        data["provenance"]["cut_short"] = [HOSTILE]
        data["roles"][0]["layers"][0]["bound_source"] = f"{HOSTILE} co-location"

    plan = changed(plan, rename)
    made = report_plan(plan, traces=traces)
    assert all(check.passed is not False for check in made.checks)
    html = made.html()
    root = read(html)
    assert not list(faults(root))
    assert "<script>alert(" in text(root)
    assert "\u202e" not in html
    drawn = [text(each) for each in found(root, "text")]
    assert any("<script>" in each for each in drawn)
    both = compare_plans(plan, plan, (HOSTILE, HOSTILE + "2")).html()
    assert not list(faults(read(both)))
    marked = made.markdown()
    assert "<script" not in re.sub(r"(?s)```.*?```", "", marked).replace("\\<script", "")
    assert "\u202e" not in marked


def test_a_plan_of_two_roles_has_a_section_a_role(folder: Path) -> None:
    plan = two_roles(folder)
    made = report_plan(plan, traces=[folder / "a.npz"])
    assert all(check.passed is not False for check in made.checks)
    root = read(made.html())
    assert not list(faults(root))
    heads = [text(each) for each in found(root, "h2")]
    assert heads == ["Answer", "Role: prefill", "Role: decode", "Assumptions", "Checked again", "Sources"]
    assert [text(each) for each in found(root, "h3")].count("Certificate") == 2
    labels = [each.get("aria-label") for each in found(root, "div") if each.get("role") == "region"]
    assert len(set(labels)) == len(labels)
    assert rows(root, "What to run")[0] == ["", "prefill", "decode"]
    assert "1 prefill instance of EP4 DP4 and 1 decode instance of EP4 DP4" in text(found(root, "header")[0])


def test_strategies_at_their_own_batches(synthetic: Plan) -> None:
    role = synthetic.roles[0]
    own = [
        OperationRecord(batch=8 + i, ttft_ms=10.0, tpot_ms=1.5, tokens_per_s=1000.0 + 100 * i)
        for i in range(len(role.strategies))
    ]
    strategies = [row.model_copy(update={"at_own_batch": each}) for row, each in zip(role.strategies, own, strict=True)]
    plan = synthetic.model_copy(update={"roles": (role.model_copy(update={"strategies": tuple(strategies)}),)})
    root = read(report_plan(plan).html())
    table = rows(root, "Each at its own batch")
    assert table[0] == ["strategy", "batch", "requests/s", "TTFT ms", "TPOT ms", "tokens/s", "of plan"]
    assert table[1] == ["hash", "8", "-", "10.0", "1.50", "1,000", "-33.33%"]
    assert "7.14% more tokens/s than the best other strategy (eplb, each at its own batch)" in text(root)


def test_two_plans_side_by_side(folder: Path) -> None:
    first, second = load_plan(folder / "synthetic.json"), load_plan(folder / "recorded.json")
    made = compare_plans(first, second, ("x/synthetic.json", "y/recorded.json"))
    root = read(made.html())
    assert not list(faults(root))
    assert [text(each) for each in found(root, "h2")] == [
        "Answers", "Questions", "Role: aggregated", "Checked again: synthetic.json", "Checked again: recorded.json",
    ]  # fmt: skip
    assert all(check.passed is not False for check in made.checks)
    figures = rows(root, "Predicted figures")
    assert figures[0] == ["", "synthetic.json", "recorded.json", "difference"]
    assert figures[1][1:3] == [f"{plan.predicted.tokens_per_s.value:,.0f}" for plan in (first, second)]
    assert "scenarios are the same, field by field" in text(root)
    assert re.search(r"From the first plan to the second, [\d,]+ of 24 slots get an expert", text(root))
    same = compare_plans(first, first)
    assert "yields the same tokens/s as" in text(read(same.html()))
    assert "second, 0 of 24 slots" in same.markdown()


def test_load_counts_and_lost_gpus(folder: Path) -> None:
    from placement import migrate_plan, plan_scenario
    from tests.report.plans import QUICK

    counts = folder / "counts.npz"
    plan = plan_scenario(folder / "tiny.yaml", traces=[counts], **QUICK)
    root = read(report_plan(plan, traces=[counts]).html())
    assert "Balancedness by window" in [text(found(each, "title")[0]) for each in found(root, "svg")]
    lost = migrate_plan(
        load_plan(folder / "recorded.json"), [folder / "b.npz"], failed_gpus=[1], max_moves=100, budget=QUICK["budget"]
    ).plan
    assert lost is not None
    made = report_plan(lost, traces=[folder / "b.npz"])
    assert "GPUs 1 have failed and hold none" in text(read(made.html()))
    assert "`placement migrate`" in text(read(made.html()))


def test_markdown_tables_are_whole(report: Report) -> None:
    lines = report.markdown().splitlines()
    assert [line[3:] for line in lines if line.startswith("## ")] == SECTIONS
    widths: list[int] = []
    for line in lines:
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (cells and widths and widths[-1]) or cells == widths[-1]
        widths.append(cells)
    assert sum(1 for line in lines if line.startswith("|--")) >= 9


def test_markdown_takes_nothing_for_markup() -> None:
    from placement.report.page.blocks import Page, Section

    page = Page("a_b", "x", (Section("s", (Table("c", ("", "a|b"), (("*x*", "<b>"),)), Prose("# no heading"))),))
    assert "| \\*x\\* | \\<b\\> |" in page_markdown(page)
    assert "\\# no heading" in page_markdown(page)


@pytest.mark.parametrize(
    ("chart", "most"),
    [
        (Heat("t", "x", "layer", "expert", "u", np.random.default_rng(0).random((61, 512))), 180_000),
        (Heat("t", "x", "layer", "GPU", "u", np.random.default_rng(0).random((61, 576))), 180_000),
        (Heat("t", "x", "a", "b", "u", np.random.default_rng(0).random((10, 10)), digits=2), 60_000),
        (Heat("t", "x", "a", "b", "u", np.full((3, 4), np.nan)), 20_000),
        (Bars("t", "x", "u", (("a" * 60, 0.0), ("b", 1e12))), 20_000),
        (Lines("t", "x", "a", "u", tuple(range(61)), (Curve("c", (1.0,) * 61),)), 20_000),
    ],
    ids=["experts", "gpus", "matrix", "empty", "long names", "lines"],
)
def test_charts_stay_small(chart: Heat | Bars | Lines, most: int) -> None:
    """Of the largest models in the catalog, and noise that does not compress: pages stay well under a megabyte."""
    drawn = svg_of(chart, "p")
    assert len(drawn) < most
    assert "#0102" not in drawn, "a colour that stands for one of the page is left"


def _palette(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart_in_light_dark_and_on_paper() -> None:
    style = files("placement.report.page").joinpath("page.css").read_text()
    light, dark, paper = (_palette(block) for block in re.findall(r"(?s):root \{(.*?)\}", style))
    for palette in (light, {**light, **dark}, {**light, **paper}):
        for ground in ("paper", "soft", "warn"):
            assert _contrast(palette["ink"], palette[ground]) >= 7
        for ink in ("muted", "link"):
            assert min(_contrast(palette[ink], palette[ground]) for ground in ("paper", "soft")) >= 4.5
        assert min(_contrast(palette[f"series-{i}"], palette["paper"]) for i in (1, 2, 3, 4)) >= 3


@pytest.mark.slow
def test_the_default_scenario_is_a_small_page() -> None:
    from placement import Budget, plan_scenario

    plan = plan_scenario("gpt_oss_120b_gb200_ib", budget=Budget(work=0.05))
    assert len(report_plan(plan).html()) < 1_500_000


def test_nothing_optional_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; import placement.planning.report; "
        "print([each for each in ('matplotlib', 'jinja2', 'markupsafe') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
