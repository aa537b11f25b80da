"""The command `placement evaluate`: scores a plan, and the baselines it holds, on other routing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from placement.commands.running import emit, run

if TYPE_CHECKING:
    from placement.figures import Placement
    from placement.plan import Plan
    from placement.report.evaluation import Evaluation

PARTS = ("all", "first-half", "second-half")


def evaluate_plan(
    plan: Plan,
    trace: str,
    part: Literal["all", "first-half", "second-half"] = "all",
    windows: int = 1,
    weight_levels: int | None = None,
) -> Evaluation:
    """The figures of a plan and of its baselines on one file of recorded routing.

    Every placement (and, for `planned` dispatch, every fraction) is the one that stands in the plan: nothing is solved
    on this routing.

    Args:
        trace: a trace, or load counts. part: which sequences count. windows: load windows.
        weight_levels: score dispatch fractions rounded to whole multiples of 1 / weight_levels; None: as they are.

    Raises:
        InputError: routing that can't be read, is of another model, or has no such part.
    """
    from placement.assess import Assessor, placement_of, strategy_record
    from placement.errors import InputError
    from placement.report.evaluation import Evaluation, Row
    from placement.routing.split import select_part
    from placement.routing.statistics import counts_statistics, layer_statistics
    from placement.routing.trace import LoadCounts
    from placement.sources import read_sources

    scenario = plan.scenario.spec
    routing = read_sources(scenario.model, [trace])[0].routing
    if isinstance(routing, LoadCounts):
        if part != "all":
            raise InputError("--part", "", "load counts have no sequences to part", "leave --part out")
        statistics = counts_statistics(routing, scenario.model.moe.top_k)
        tokens = round(float(routing.counts[:, 0].sum()) / scenario.model.moe.top_k)
    else:
        chosen = select_part(routing, part)
        statistics, tokens = layer_statistics([chosen], windows), chosen.tokens
    split = plan.split.split()
    assessor = Assessor(scenario, split, plan.phase, statistics, plan.objective, failed_gpus=plan.failed_gpus)
    rows = []
    for strategy in plan.strategies:
        placed = placement_of(plan, strategy)
        if weight_levels is not None:
            placed = _with_whole_weights(placed, weight_levels)
        assessment = assessor.assess(placed)
        rows.append(Row(strategy.placements is None, strategy_record(strategy.name, assessment, None)))
    return Evaluation(routing.name, trace, part, tokens, routing.synthetic, tuple(rows))


def _with_whole_weights(placed: Placement, levels: int) -> Placement:
    from dataclasses import replace

    from solvers.dispatch import rounded_fractions

    return replace(
        placed,
        fractions=tuple(
            None if fractions is None else rounded_fractions(fractions, slots, levels)
            for slots, fractions in zip(placed.slots, placed.fractions, strict=True)
        ),
    )


@click.command("evaluate", short_help="Score a plan on other routing.")
@click.option("--plan", "plan_path", required=True, metavar="FILE", help="Plan file, as solve writes it.")
@click.option(
    "--trace",
    "--loads",
    "traces",
    required=True,
    multiple=True,
    metavar="FILE",
    help="Recorded routing to score on. Repeatable.",
)
@click.option("--part", type=click.Choice(PARTS), default="all", show_default=True, help="Which sequences count.")
@click.option(
    "--windows", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Load windows of each trace."
)
@click.option(
    "--weight-levels",
    type=click.IntRange(1, 2**20),
    metavar="N",
    help="Round dispatch fractions to whole multiples of 1/N first, as engines with integer weights do.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    plan_path: str,
    traces: tuple[str, ...],
    part: Literal["all", "first-half", "second-half"],
    windows: int,
    weight_levels: int | None,
    as_json: bool,
) -> None:
    """Score a plan, and the baselines solved beside it, on each trace.

    Placements are taken from the plan file as they stand; nothing is solved on this routing. A plan that was solved on
    the first half of a trace is judged fairly by --part second-half.
    """
    from placement.commands.progress import Progress
    from placement.plan import read_plan
    from placement.report.evaluation import evaluation_json, evaluation_text

    plan = read_plan(plan_path)
    results = []
    with Progress() as progress:
        progress.stage("scoring", len(traces))
        for trace in traces:
            results.append(evaluate_plan(plan, trace, part, windows, weight_levels))
            progress.advance()
    render = evaluation_json if as_json else evaluation_text
    emit(render(plan_path, plan, results))


def main() -> None:
    """Entry point of `python -m placement.evaluate`."""
    run(command, "placement.evaluate")


if __name__ == "__main__":
    main()
