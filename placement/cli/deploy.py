"""The command `placement deploy`: which instances to run on a cluster, and how many of each."""

from __future__ import annotations

import time
from typing import Any

import click

from placement.cli.command import Command
from placement.cli.options import (
    degrees_option,
    engine_option,
    positive,
    redundant_experts,
    scenario_options,
    trace_option,
    variant_options,
)
from placement.cli.running import emit, run

_DEGREE = click.IntRange(1, 10_000_000)
_IN_FLIGHT = click.IntRange(1, 1_000_000)


@click.command(
    "deploy", cls=Command, short_help="Choose instances: how many of which split, aggregated or disaggregated."
)
@click.option("--spec", default="gpt_oss_120b_gb200_ib", show_default=True, metavar="NAME_OR_FILE", help="Scenario.")
@click.option(
    "--mode",
    type=click.Choice(["aggregated", "disaggregated", "mixed"]),
    default="mixed",
    show_default=True,
    help="Instances that serve whole requests, that prefill or decode, or whichever is best.",
)
@click.option("--target-rate", type=positive, metavar="TOKENS/S", help="Reach this output rate with the fewest GPUs.")
@click.option("--rate", type=positive, metavar="REQUESTS/S", help="Serve this demand with the fewest GPUs.")
@click.option(
    "--concurrency", type=_IN_FLIGHT, metavar="N", help="Serve so many requests in flight with the fewest GPUs."
)
@click.option("--arrivals", metavar="FILE", help="Serve the requests of a CSV file: columns arrival_s, isl and osl.")
@click.option(
    "--simulate/--no-simulate",
    default=None,
    help="Simulate arrivals: TTFT and TPOT at the mean and for 95 of 100 requests. Default: where there is a demand.",
)
@click.option(
    "--routing",
    type=click.Choice(["planned", "random", "round_robin", "least_loaded"]),
    default="planned",
    show_default=True,
    help="Which rank gets a simulated request; planned: by chance if it only prefills, else in turn.",
)
@click.option("--front", is_flag=True, help="Tokens/s per GPU against tokens/s per user: the Pareto front over TPOT.")
@click.option("--pool", "pools", multiple=True, metavar="CLUSTER", help="A further pool of other GPUs. Repeatable.")
@click.option("--redundant", type=redundant_experts, metavar="N|auto", help="Redundant experts per MoE layer, or auto.")
@click.option("--tp", type=_DEGREE, metavar="N", help="Pin the tensor-parallel degree.")
@click.option("--ep", type=_DEGREE, metavar="N", help="Pin the expert-parallel degree.")
@click.option("--pp", type=_DEGREE, metavar="N", help="Pin the pipeline stages.")
@click.option("--dp", type=_DEGREE, metavar="N", help="Pin the attention data-parallel degree of an instance.")
@click.option("--batch", type=_DEGREE, metavar="N", help="Pin the sequences per attention rank.")
@degrees_option
@engine_option
@variant_options
@trace_option
@click.option(
    "--placed/--balanced",
    default=True,
    show_default=True,
    help="Price imbalance and traffic by a quick expert placement, or take experts as balanced.",
)
@click.option(
    "--kernel-tables", is_flag=True, help="Use measured times of expert kernels where there are any ([kernels] extra)."
)
@click.option("--time-limit", type=positive, metavar="SECONDS", help="Stop the master problem after this.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", default=0, show_default=True)
@click.option("--out", metavar="FILE", help="Write the deployment as JSON to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(spec: str, out: str | None, as_json: bool, **options: Any) -> None:
    """Choose how many instances of which split serve the most tokens/s, within HBM, TTFT and TPOT.

    Every feasible split is priced in every role; a MILP chooses among those that are not dominated and packs them into
    the nodes. Redundant experts are chosen with the split: a replica costs KV cache.
    """
    from placement.cli.progress import ProgressBar
    from placement.errors import ParameterError
    from placement.planning.case import load_scenario
    from placement.planning.demand import at_mean_lengths, plan_for_demand
    from placement.records.arrivals import read_arrivals
    from placement.records.files import check_writable, write_text
    from placement.report.deployment import deployment_text

    started = time.perf_counter()
    if options["arrivals"] is not None:
        for name in ("isl", "osl"):
            if options[name] is not None:
                raise ParameterError(name, "it and `arrivals` exclude each other", "leave one of the two out")
        options["arrivals"] = read_arrivals(options["arrivals"])
    scenario = at_mean_lengths(load_scenario(spec, **scenario_options(options)), options["arrivals"])
    if out is not None:
        check_writable(out, "`out`")
    with ProgressBar() as progress:
        deployment = plan_for_demand(scenario, on_progress=progress, **options)
    if out is not None:
        write_text(out, deployment.json() + "\n", "`out`")
    seconds = time.perf_counter() - started
    emit(deployment.json() if as_json else deployment_text(deployment, scenario, seconds, out))


def main() -> None:
    """Entry point of `python -m placement.deploy`."""
    run(command, "placement.deploy")


if __name__ == "__main__":
    main()
