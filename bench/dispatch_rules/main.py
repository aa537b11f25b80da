"""`python -m bench run dispatch_rules`: plans for engines' dispatch rules, served by the engines' own functions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.options import (
    check_option,
    json_option,
    layers_option,
    seed_option,
    traces_option,
    wheels_option,
    work_option,
    workers_option,
)
from bench.recorded import DOMAINS, LAYERS
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.dispatch_rules.measure import Measured
    from bench.targets import Target

#: Slots beyond one copy of each expert, as a share of the experts.
EXTRA = (0.0, 0.5)
#: Gain over `eplb` in layer time, mean of the domains, by rule.
GAINS = {"SGLang static": 1.35, "vLLM hash": 1.30}
#: Most that a prediction is off, and points of balancedness for all domains together above `eplb`'s.
OFF, JOINT_POINTS = 0.01, 0.10


@click.command("dispatch_rules", cls=Command)
@traces_option
@wheels_option
@click.option("--rule", "rules", multiple=True, type=click.Choice(("static", "hash", "dense")), help="Only this one.")
@layers_option
@click.option(
    "--draws", type=click.IntRange(0, 1000), default=12, show_default=True,
    help="Dense, another domain: place both sides so often again, for loads changed by 1% at random.",
)  # fmt: skip
@work_option
@workers_option
@seed_option
@check_option
@json_option
def command(
    traces: str, wheels: str, rules: tuple[str, ...], layers: int, draws: int, work: float, workers: int, seed: int,
    check: bool, as_json: bool,
) -> None:  # fmt: skip
    """Layer time in prefill, and balance, of plans for SGLang's static dispatch, vLLM's hash and its dense backend.

    Recorded routing of three domains that was not solved on; copies are picked by the engines' own functions.
    """
    from bench.dispatch_rules.measure import RULES, measured
    from bench.placement_quality.protocol import Recorded, spaced
    from bench.targets import check_targets, target_records, target_table
    from placement.report.text import columns, rendered

    missing = [path for path in (Path(traces), Path(wheels) / "vllm", Path(wheels) / "sglang") if not path.is_dir()]
    if missing:
        note(f"skipped: {missing[0]} is not there (--traces, --wheels)")
        return
    recorded, found = Recorded(traces, spaced(layers, LAYERS)), []
    for rule in [one for one in RULES if not rules or one.name.split()[-1] in rules]:
        for extra in EXTRA:
            for protocol in ("in-domain", "held-out", *(("joint",) if rule.message == "dense" else ())):
                times = draws if rule.message == "dense" and protocol == "held-out" else 0
                for case in recorded.cases(protocol):
                    note(f"{rule.name}, {extra:.0%} extra, {protocol}, {case.name}")
                    found.append(measured(recorded, case, protocol, rule, extra, wheels, work, seed, workers, times))
    targets = _targets(found, len(DOMAINS))
    if as_json:
        emit(json.dumps({"cases": [asdict(each) for each in found], "targets": target_records(targets)}))
    else:
        words = "rule extra protocol domain us eplb_us gain by_layer balance eplb's off off redrawn eplb's"
        header = [word.replace("_", " ") for word in words.split()]
        emit(rendered([columns(header, [_row(each) for each in found]), "", target_table(targets)]))
    if check:
        check_targets(targets)


def _row(each: Measured) -> list[str]:
    mine, its = each.solved, each.rival
    return [
        each.rule, f"{each.extra:.0%}", each.protocol, each.domain, f"{mine.served_us:.0f}", f"{its.served_us:.0f}",
        f"{each.speedup:.3f}", "{:.2f}-{:.2f}".format(*each.layer_speedups), f"{mine.served_balancedness:.3f}",
        f"{its.served_balancedness:.3f}", f"{mine.off:+.2%}", f"{its.off:+.2%}",
        *(("", "") if each.redrawn is None else (f"{one.mean:.3f} +- {one.error:.3f}" for one in each.redrawn)),
    ]  # fmt: skip


def _targets(found: Sequence[Measured], domains: int) -> list[Target]:
    from bench.targets import Target

    targets = []
    for name, least in GAINS.items():
        if not any(one.rule == name for one in found):
            continue
        gains = [one.speedup for one in found if (one.rule, one.extra, one.protocol) == (name, 0.5, "in-domain")]
        targets.append(Target(f"{name}, +50%, gain over eplb", sum(gains) / domains, least, "x", at_least=True))
    dense = [one for one in found if one.rule == "vLLM dense"]
    if dense:
        worse = sum(one.balance_gain < 0 for one in dense if one.protocol != "joint")
        targets.append(Target("dense, cases less balanced than eplb", worse, 0, ""))
        redrawn = [one.redrawn for one in dense if one.redrawn is not None]
        if redrawn:
            behind = sum(mine.mean < its.mean for mine, its in redrawn)
            targets.append(Target("dense, the same in the mean over redrawn loads, other domain", behind, 0, ""))
        joint = min(100 * one.balance_gain for one in dense if one.protocol == "joint")
        targets.append(Target("dense, three domains jointly, points of balance", joint, 100 * JOINT_POINTS, "", True))
    off = max(abs(side.off) for one in found for side in (one.solved, one.rival))
    targets.append(Target("predicted against served, largest difference", 100 * off, 100 * OFF, "%"))
    return targets
