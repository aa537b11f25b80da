"""`python -m bench run alltoall`: layouts of recorded routing on a shaped fabric, measured against their prediction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.options import check_option, json_option, traces_option
from bench.recorded import DOMAINS, LAYERS, read_domain
from placement.cli.command import Command
from placement.cli.running import emit, note
from placement.problem.layer import LayerRules

if TYPE_CHECKING:
    from bench.alltoall.fabric import Fabric
    from bench.alltoall.measured import Agreement, Measured, Total
    from bench.alltoall.prepare import Layout, Sample, Settings
    from bench.targets import Target
    from placement.problem.split import Split
    from placement.routing.trace import Trace
    from specs.engine import MessageRule
    from specs.scenario import Scenario

SHAPED = Path(__file__).parent / "shaped"
#: What is compared, at the same slots, dispatch and scorer; `auto` is the solved one.
STRATEGIES = ("hash", "greedy", "eplb", "auto")
RULES: tuple[MessageRule, ...] = ("per_node", "per_rank", "per_expert")
#: Redundant experts as a share of the experts, and how many times faster than eplb solved layouts have to be.
ASKED = {0.0: 1.2, 0.5: 1.5}
#: One message for each copy leaves nothing to gain from putting experts together: shown, but not asked for.
ASKED_RULES: tuple[MessageRule, ...] = ("per_node", "per_rank")
MOST_ERROR, LEAST_SPEARMAN = 15.0, 0.95


@dataclass(frozen=True)
class Gain:
    """Solved against eplb under one rule: times faster, measured and predicted, and the same for the busiest node's
    bytes and for all bytes across nodes."""

    rule: str
    extra: float
    measured: float
    predicted: float
    busiest_bytes: float
    all_bytes: float


@dataclass(frozen=True)
class Outcome:
    """All that was measured."""

    exchanges: tuple[Measured, ...]
    totals: tuple[Total, ...]
    agreement: Agreement
    gains: tuple[Gain, ...]
    targets: tuple[Target, ...]


@click.command("alltoall", cls=Command)
@traces_option
@click.option("--domains", default=",".join(DOMAINS), show_default=True, help="Recorded domains, each by itself.")
@click.option(
    "--layers", type=click.IntRange(1, LAYERS), default=2, show_default=True, help="MoE layers of each domain."
)
@click.option("--tokens-per-rank", type=click.IntRange(1, 100_000), default=512, show_default=True)
@click.option("--repeats", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--warmup", type=click.IntRange(0, 1000), default=1, show_default=True)
@click.option("--scenario", "spec", default=str(SHAPED / "deepseek_v2_lite.yaml"), help="Default: 4 nodes x 2 ranks.")
@click.option("--fabric", "fabric_path", default=str(SHAPED / "fabric.yaml"), help="Default: 200 Mbit/s uplinks.")
@click.option("--work", type=click.FloatRange(1e-3, 1e3), default=16.0, show_default=True, help="Search effort.")
@click.option("--workers", type=click.IntRange(1, 1024), default=2, show_default=True, help="For solving.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--out", metavar="FILE", help="Write the JSON to this file, too.")
@check_option
@json_option
def command(
    traces: str,
    domains: str,
    layers: int,
    tokens_per_rank: int,
    repeats: int,
    warmup: int,
    spec: str,
    fabric_path: str,
    work: float,
    workers: int,
    seed: int,
    out: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """Dispatch and combine of hash, greedy, eplb and solved layouts, measured on a fabric of network namespaces.

    Every message rule, with one copy of each expert and with 50% extra slots. Solved on the first half of each
    domain's sequences, measured on tokens of the second. Needs root, iproute2 and torch; some 30 minutes.
    """
    from bench.alltoall.fabric import read_fabric
    from bench.alltoall.launch import need_torch, run_job
    from bench.alltoall.main import deaths_told
    from bench.alltoall.measured import measured
    from bench.alltoall.namespaces import shaped
    from bench.alltoall.prepare import Settings, prepare, take_sample
    from bench.targets import check_targets
    from placement.errors import CheckFailedError
    from placement.records.files import check_writable, write_text
    from solvers.split.enumerate import enumerate_splits
    from specs.loading import load_scenario

    if out is not None:
        check_writable(out, "--out")
    need_torch()
    scenario, fabric = load_scenario(spec), read_fabric(fabric_path)
    chosen = [name.strip() for name in domains.split(",") if name.strip()]
    halves = [_halves(traces, name, scenario) for name in chosen]
    split = enumerate_splits(scenario).best
    settings = Settings(tokens_per_rank, warmup=warmup, repeats=repeats, seed=seed)
    found: list[Measured] = []
    with deaths_told(), shaped(fabric, scenario.cluster.nodes) as places:
        for name, (first, second) in zip(chosen, halves, strict=True):
            picked = _spaced(layers, first.layers)
            note(f"{name}: solving layers {', '.join(str(scenario.model.moe_layers[i]) for i in picked)}")
            sample = take_sample([second], scenario.cluster.gpus, tokens_per_rank, seed)
            layouts = _layouts(scenario, split, first, sample, picked, settings, fabric, work, workers)
            prepared = prepare(layouts, picked, sample, scenario.model, settings)
            note(f"{name}: measuring {len(layouts)} layouts")
            found += measured(prepared, run_job(prepared.job, places), links_known=True)
    outcome = judge(found)
    text = json.dumps(_record(outcome, tokens_per_rank, repeats, seed, fabric.model_dump()))
    if out is not None:
        write_text(out, text + "\n", "--out")
    emit(text if as_json else _text(outcome))
    wrong = [each for each in found if not (each.exact and each.right)]
    if wrong:
        raise CheckFailedError(f"layer {wrong[0].layer} under {wrong[0].layout}: bytes or results are not as they must")
    if check:
        check_targets(outcome.targets)


def _halves(folder: str, name: str, scenario: Scenario) -> tuple[Trace, Trace]:
    from placement.errors import InputError
    from placement.routing.parts import split_by_sequence

    if name not in DOMAINS:
        raise InputError("--domains", name, "is no recorded domain", f"choose of {', '.join(DOMAINS)}")
    return split_by_sequence(read_domain(folder, name, scenario.model))


def _layouts(
    scenario: Scenario, split: Split, train: Trace, sample: Sample, layers: Sequence[int], settings: Settings,
    fabric: Fabric, work: float, workers: int,
) -> list[Layout]:  # fmt: skip
    """Every strategy under every rule, without and with extra slots, solved on `train` and posed on the sample."""

    from bench.alltoall.prepare import Layout, posed
    from placement.cost.pose import layer_problems
    from placement.routing.holdout import WINDOWS
    from placement.routing.statistics import layer_statistics, with_mixture
    from solvers.experts.layers import plan_layers
    from solvers.stop import Stop

    model = scenario.model
    solved_on = [with_mixture(layer) for layer in layer_statistics([train], WINDOWS)]
    judged_on = layer_statistics([sample.trace])
    frames = layer_problems(scenario, split, "prefill", solved_on)
    found = []
    for extra in ASKED:
        slots = round(model.moe.experts * (1 + extra))
        for rule in RULES:
            asked = LayerRules("planned" if extra else "even", rule)
            problems = [
                posed(
                    replace(frames[i], rules=asked).with_hardware(slots_per_gpu=slots // split.ep),
                    solved_on[i], model, settings, fabric,
                )
                for i in layers
            ]  # fmt: skip
            measured_on = tuple(
                posed(problem, judged_on[i], model, settings, fabric)
                for i, problem in zip(layers, problems, strict=True)
            )
            for strategy in STRATEGIES:
                answers = plan_layers(problems, strategy, Stop(work), settings.seed, workers, certify=False)
                found.append(
                    Layout(
                        layout_name(strategy, rule, extra), measured_on, tuple(a.slots for a in answers),
                        tuple(a.fractions for a in answers),
                    )
                )  # fmt: skip
    return found


def layout_name(strategy: str, rule: str, extra: float) -> str:
    """What a layout is called in the reports."""
    return f"{'solved' if strategy == 'auto' else strategy} {rule} +{extra:.0%}"


def judge(exchanges: Sequence[Measured]) -> Outcome:
    """Totals over all layers and domains, gains over eplb, and the targets."""
    from bench.alltoall.measured import agreement, totals
    from bench.targets import Target

    found, agreed = totals(exchanges), agreement(exchanges)
    if agreed is None:
        raise RuntimeError("a fabric's links are known")
    by_name = {each.layout: each for each in found}
    gains = []
    for extra in ASKED:
        for rule in RULES:
            own = by_name[layout_name("auto", rule, extra)]
            rival = by_name[layout_name("eplb", rule, extra)]
            gains.append(
                Gain(
                    rule, extra, rival.moved_ms / own.moved_ms, (rival.predicted_ms or 0.0) / (own.predicted_ms or 1.0),
                    rival.busiest_bytes / own.busiest_bytes, rival.across_bytes / own.across_bytes,
                )
            )  # fmt: skip
    share = 100.0 / len(exchanges)
    targets = [
        Target("bytes exact", share * sum(each.exact for each in exchanges), 100.0, "%", True),
        Target("results right", share * sum(each.right for each in exchanges), 100.0, "%", True),
        *(
            Target(f"{gain.rule}, {gain.extra:.0%} extra slots: times faster than eplb", gain.measured,
                   ASKED[gain.extra], "x", True)
            for gain in gains if gain.rule in ASKED_RULES
        ),
        Target("median error of predicted times", 100 * agreed.median_error, MOST_ERROR, "%"),
        Target(f"Spearman over {agreed.layouts} layouts", agreed.spearman, LEAST_SPEARMAN, "", True),
    ]  # fmt: skip
    return Outcome(tuple(exchanges), found, agreed, tuple(gains), tuple(targets))


def _record(outcome: Outcome, tokens: int, repeats: int, seed: int, fabric: dict[str, object]) -> dict[str, object]:
    from bench.targets import target_records

    return {
        "tokens_per_rank": tokens, "repeats": repeats, "seed": seed, "fabric": fabric,
        "targets": target_records(outcome.targets), "agreement": asdict(outcome.agreement),
        "gains": [asdict(each) for each in outcome.gains], "totals": [asdict(each) for each in outcome.totals],
        "exchanges": [asdict(each) for each in outcome.exchanges],
    }  # fmt: skip


def _text(outcome: Outcome) -> str:
    from bench.alltoall.report import agreement_lines
    from bench.targets import target_table
    from placement.report.text import columns, heading, rendered

    rows = [
        (
            each.layout, f"{each.across_bytes * 1e-6:.1f}", f"{each.busiest_bytes * 1e-6:.1f}",
            f"{each.dispatch_ms:.0f}", f"{each.combine_ms:.0f}", f"{each.moved_ms:.0f}", f"{each.predicted_ms:.0f}",
            f"{(each.predicted_ms or 0.0) / each.moved_ms - 1:+.1%}",
        )
        for each in outcome.totals
    ]  # fmt: skip
    gains = [
        (
            f"{each.rule} +{each.extra:.0%}", f"{each.measured:.3f}x", f"{each.predicted:.3f}x",
            f"{each.busiest_bytes:.3f}x", f"{each.all_bytes:.3f}x",
        )
        for each in outcome.gains
    ]  # fmt: skip
    header = ("layout", "MB across", "busiest", "dispatch ms", "combine ms", "both", "predicted", "off")
    return rendered(
        [
            heading("Measured", " (medians, added up over layers and domains; busiest: the node's link)"),
            columns(header, rows), "",
            heading("Solved against eplb"),
            columns(("rule, extra slots", "measured", "predicted", "busiest bytes", "all bytes"), gains), "",
            *agreement_lines(outcome.agreement), "",
            heading("Targets"), target_table(outcome.targets),
        ]
    )  # fmt: skip


def _spaced(layers: int, of: int) -> list[int]:
    """`layers` positions spread over the inside of `of`, so that one layer is the middle one."""
    return [int((i + 0.5) * of / layers) for i in range(layers)]
