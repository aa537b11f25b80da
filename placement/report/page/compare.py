"""Puts the comparison of two plans together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from placement.check.findings import Check
from placement.problem.moves import moves_between
from placement.records.convert import own_placement
from placement.records.plan import Plan
from placement.records.role import Figure, RolePlan
from placement.report.certainty import apart, ends
from placement.report.page.blocks import Bars, Block, Page, Prose, Section, Table
from placement.report.page.reproduce import differing
from placement.report.page.sections.answer import lead
from placement.report.page.sections.certificate import checks
from placement.report.page.sections.words import difference, told
from placement.report.units import gb, grouped

#: Settings that are listed where the plans' scenarios differ.
MOST_LISTED = 40


def comparison_page(
    first: Plan, second: Plan, names: tuple[str, str], found: tuple[Sequence[Check], Sequence[Check]]
) -> Page:
    """Two plans side by side.

    Args:
        names: What the plans are called, such as their files.
        found: What was checked of each.
    """
    # Of files the names alone, where these differ.
    short = tuple(Path(name).name for name in names)
    a, b = (told(name, 60) for name in (short if short[0] != short[1] else names))
    header = (a, b)
    sections = [_answers(first, second, header), _question(first, second, header)]
    pairs = [(role, other) for role in first.roles for other in second.roles if role.role == other.role]
    for role, other in pairs:
        title = f"Role: {role.role}"
        sections.append(Section(title, tuple(_role(role, other, header))))
    if not pairs:
        sections.append(Section("Roles", (Prose("The plans have no role in common, so that none are compared."),)))
    sections += [checks(of, f"Checked again: {name}") for name, of in zip(header, found, strict=True)]
    return Page(f"{a} and {b}", _verdict(first, second, header), tuple(sections))


def _verdict(first: Plan, second: Plan, header: tuple[str, str]) -> str:
    mine, its = first.predicted.tokens_per_s.value, second.predicted.tokens_per_s.value
    gain = difference(its, mine)
    same = first.scenario.spec == second.scenario.spec
    apart = "" if same else " The plans answer different questions: see below."
    told_gain = "the same tokens/s as" if gain == "same" else f"{gain} tokens/s against"
    return f"{header[1]} yields {told_gain} {header[0]}.{apart}"


def _answers(first: Plan, second: Plan, header: tuple[str, str]) -> Section:
    def value(plan: Plan, name: str) -> float | None:
        figure: Figure | None = getattr(plan.predicted, name)
        return None if figure is None else figure.value

    rows = []
    for name, what, digits in (
        ("tokens_per_s", "tokens/s", 0), ("tokens_per_s_per_gpu", "tokens/s per GPU", 1), ("ttft_ms", "TTFT ms", 2),
        ("tpot_ms", "TPOT ms", 2), ("step_ms", "training step ms", 1),
    ):  # fmt: skip
        mine, its = value(first, name), value(second, name)
        if mine is not None or its is not None:
            rows.append(_row(what, mine, its, partial(grouped, digits=digits)))
            rows += _intervals(getattr(first.predicted, name), getattr(second.predicted, name))
    rows.append(_row("GPUs", first.gpus, second.gpus, grouped))
    chart = Bars(
        "Tokens/s", "Bars start at 0.", "tokens/s",
        ((header[0], first.predicted.tokens_per_s.value), (header[1], second.predicted.tokens_per_s.value)),
    )  # fmt: skip
    both = tuple(Prose(f"{name}: {lead(plan)}") for name, plan in zip(header, (first, second), strict=True))
    return Section("Answers", (*both, Table("Predicted figures", ("", *header, "difference"), tuple(rows)), chart))


def _intervals(mine: Figure | None, its: Figure | None) -> Iterator[tuple[str, ...]]:
    """The intervals of two figures, and whether these lie within each other's."""
    told = [None if figure is None else figure.interval for figure in (mine, its)]
    if any(told):
        cells = ("-" if interval is None else ends(interval) for interval in told)
        yield ("interval", *cells, "" if mine is None or its is None else _beside(mine, its))


def _beside(mine: Figure, its: Figure) -> str:
    beyond = [
        apart(one, other.value / one.value) if one.value > 0 else None for one, other in ((mine, its), (its, mine))
    ]
    return "within" if beyond == [False, False] else "outside" if True in beyond else ""


def _question(first: Plan, second: Plan, header: tuple[str, str]) -> Section:
    plans = (first, second)
    rows: list[tuple[str, ...]] = [
        ("scenario", *(told(plan.scenario.name, 80) for plan in plans)),
        ("routing", *(told(plan.provenance.routing.source, 120) for plan in plans)),
        ("engine", *(told(plan.engine.label, 80) for plan in plans)),
    ]
    changes = list(differing(first.scenario.spec, second.scenario.spec))
    rows += [(path, told(str(mine), 80), told(str(its), 80)) for path, mine, its in changes[:MOST_LISTED]]
    blocks: list[Block] = [Table("What was asked", ("", *header), tuple(rows), words=True)]
    if len(changes) > MOST_LISTED:
        blocks.append(Prose(f"{len(changes) - MOST_LISTED} more fields of the scenarios differ."))
    if not changes:
        blocks.append(Prose("The scenarios are the same, field by field."))
    return Section("Questions", tuple(blocks))


def _role(role: RolePlan, other: RolePlan, header: tuple[str, str]) -> Iterator[Block]:
    columns = ("", *header, "difference")
    yield Table("Split", columns, tuple(_degrees(role, other)))
    yield Table("HBM of the fullest GPU", columns, tuple(_memory(role, other)))
    yield Table("The plans' own placements", columns, tuple(_own(role, other)))
    yield Prose(_moves(role, other))


def _degrees(role: RolePlan, other: RolePlan) -> Iterator[tuple[str, ...]]:
    for name in ("instances", "tp", "ep", "pp", "dp", "etp", "batch", "redundant", "slots_per_gpu"):
        mine, its = getattr(role.split, name), getattr(other.split, name)
        what = name.upper() if len(name) < 4 else name.replace("_", " ").replace("gpu", "GPU")
        yield (what, grouped(mine), grouped(its), "same" if mine == its else f"{its - mine:+,}")


def _memory(role: RolePlan, other: RolePlan) -> Iterator[tuple[str, ...]]:
    mine, its = ({told(line.name, 60): line.bytes for line in each.memory.lines} for each in (role, other))
    for name in dict.fromkeys((*mine, *its)):
        if mine.get(name, 0.0) or its.get(name, 0.0):
            yield _row(name, mine.get(name), its.get(name), gb)
    yield _row("in all", role.memory.total_bytes, other.memory.total_bytes, gb)


def _own(role: RolePlan, other: RolePlan) -> Iterator[tuple[str, ...]]:
    for name, what, digits in (
        ("balancedness", "balancedness", 3), ("nodes_per_token", "nodes per token", 2),
        ("cross_node_bytes_per_token", "bytes between nodes per token", 0), ("moe_layer_us", "MoE layer us", 1),
        ("tokens_per_s", "tokens/s", 0),
    ):  # fmt: skip
        mine, its = (None if each.own is None else getattr(each.own, name) for each in (role, other))
        yield _row(what, mine, its, partial(grouped, digits=digits))
    gap, its_gap = (None if each.certificate.gap is None else each.certificate.gap * 100 for each in (role, other))
    yield _row("certificate's gap in %", gap, its_gap, partial(grouped, digits=2))


def _moves(role: RolePlan, other: RolePlan) -> str:
    before, after = own_placement(role), own_placement(other)
    sizes = [[len(slots) for slots in placement.slots] for placement in (before, after)]
    if sizes[0] != sizes[1] or role.topology != other.topology:
        return "The placements have other slots or GPUs, so that no moves are counted."
    slots = sum(sizes[0])
    moves = sum(
        moves_between(mine, its, len(mine) // role.topology.gpus)
        for mine, its in zip(before.slots, after.slots, strict=True)
    )
    told_moves = f"{grouped(moves)} of {grouped(slots)} slots get an expert that their GPU did not hold"
    return f"From the first plan to the second, {told_moves}."


def _row(name: str, mine: float | None, its: float | None, shown: Callable[[float], str]) -> tuple[str, ...]:
    cells = tuple("-" if value is None else shown(value) for value in (mine, its))
    change = "-" if mine is None or its is None else "same" if mine == its else difference(its, mine)
    return (name, *cells, change)
