"""What a plan rests on: what was assumed, what it was made from, and the command that makes it again."""

from __future__ import annotations

from collections.abc import Iterator

from placement.records.plan import Plan
from placement.records.role import RolePlan
from placement.report.levers import lever_lines, types_in_words
from placement.report.page.blocks import Block, Code, Facts, Points, Prose, Section, Table, Warn
from placement.report.page.reproduce import reproduction
from placement.report.page.sections.words import told
from placement.report.screen import messages, nominal_links
from placement.report.units import grouped


def assumptions(plan: Plan) -> Section:
    """What was assumed, a sentence each."""
    return Section("Assumptions", (Points(tuple(_assumed(plan))),))


def _assumed(plan: Plan) -> Iterator[str]:
    spec, provenance, routing = plan.scenario.spec, plan.provenance, plan.provenance.routing
    if provenance.cut_short:
        yield f"A time limit cut short: {told('; '.join(provenance.cut_short))}."
    yield f"Engine: {told(plan.engine.label)}." + (
        f" Assumed of it: {told(spec.engine.assumes)}." if spec.engine.assumes else ""
    )
    for note in plan.engine.notes:
        yield f"{told(note[:1].upper() + note[1:])}."
    if routing.synthetic:
        yield (
            f"Routing is {told(routing.source)}: no recording of this model's routing was given. Record your own "
            "and plan again."
        )
    else:
        yield f"Routing: {told(routing.source)}. Other traffic may be routed otherwise."
    for _, words in nominal_links(plan):
        yield f"Links of {told(words)}."
    yield f"Data types: {types_in_words(spec)}, dispatch {spec.dispatch_type}."
    for lever in lever_lines(spec):
        yield f"Lever: {lever}."
    for role in plan.roles:
        yield _of_role(
            plan, role, f"A copy of an expert is chosen by {role.dispatch} dispatch; messages {messages(role)}."
        )
    kinds = {role.predicted.tokens_per_s.provenance for role in plan.roles}
    if kinds == {"calibrated"}:
        yield "Figures are calibrated: a roofline with constants fitted to measured systems (docs/cost-model.md)."
    elif kinds == {"population"}:
        yield (
            "Figures are the population's: constants fitted to measured systems, none of which had this GPU or this "
            "kind of attention (docs/cost-model.md)."
        )
    elif kinds == {"roofline"}:
        yield "Figures are rooflines: nothing measured of this GPU or engine went into them (docs/cost-model.md)."


def _of_role(plan: Plan, role: RolePlan, text: str) -> str:
    return text if len(plan.roles) == 1 else f"{role.role.capitalize()}: {text}"


def sources(plan: Plan) -> Section:
    """Inputs, versions, the engine's sources and the command."""
    provenance, routing = plan.provenance, plan.provenance.routing
    halves = {"all": "all of it", "first-half": "the first half of each trace", "second-half": "the second half"}
    facts = [
        ("scenario", told(plan.scenario.name)),
        ("routing", told(routing.source)),
        ("solved on", f"{halves[routing.solved_on]}, {grouped(routing.tokens_solved)} tokens"),
        ("judged on", f"{halves[routing.judged_on]}, {grouped(routing.tokens_judged)} tokens"),
        ("strategy", f"{told(provenance.strategy)}, seed {provenance.seed}, work {provenance.work:g}"),
        ("versions", ", ".join(f"{told(name, 40)} {told(number, 40)}" for name, number in provenance.versions.items())),
    ]
    blocks: list[Block] = [Facts(tuple(facts))]
    if provenance.inputs:
        rows = tuple((told(each.name), each.kind, each.sha256) for each in provenance.inputs)
        blocks.append(Table("Files that the plan was made from", ("name", "kind", "SHA-256"), rows, words=True))
    blocks.append(_engine(plan))
    return Section("Sources", tuple(blocks), (_again(plan),))


def _engine(plan: Plan) -> Table:
    engine = plan.scenario.spec.engine
    rows = [(f"backend {told(engine.backend, 60)}", told(engine.in_use.source))]
    rules = (*engine.rules, *engine.in_use.rules, *engine.in_use.dense_unless)
    rows += [(f"rule {rule.name}", told(rule.source)) for rule in rules]
    if engine.balancer is not None:
        rows.append(("balancer", told(engine.balancer.source)))
    return Table(f"What is known of {told(engine.label, 60)}", ("fact", "where it stands"), tuple(rows), words=True)


def _again(plan: Plan) -> Section:
    found = reproduction(plan)
    blocks: list[Block] = [Prose(found.told), *(Code(text) for text in found.texts)]
    if found.why_not:
        blocks.append(Warn(found.why_not))
    return Section("Make it again", tuple(blocks))
