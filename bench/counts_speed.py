"""Times the placement of a whole model from load counts: `python -m bench.counts_speed` (table of docs/performance.md).

DeepSeek-R1's shape, 58 MoE layers of 256 experts in 288 slots, log-normal loads. The first plan of a process compiles
or loads the search and is not counted; the median of the repeats is.
"""

from __future__ import annotations

import statistics
import time

import click
import numpy as np


@click.command()
@click.option("--repeats", type=click.IntRange(1, 50), default=3, show_default=True)
@click.option("--sigma", type=click.FloatRange(0, 3), default=0.8, show_default=True, help="Deviation of log loads.")
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
def main(repeats: int, sigma: float, workers: int, seed: int) -> None:
    """Prints seconds and gap for 32, 72 and 144 GPUs."""
    from placement.problem import LayerProblem, LayerRates, Topology
    from solvers.planner import plan_layers
    from solvers.stop import Stop

    loads = np.exp(np.random.default_rng(seed).normal(0, sigma, (58, 256)))
    loads *= 8 / loads.sum(axis=1, keepdims=True)
    rates = LayerRates(128, 1e-5, 3e-8, 7396, 14336, 4e11, 4.5e10, 3e-6, 8e-6)
    click.echo("gpus  seconds (median)  mean gap  largest gap")
    for gpus in (32, 72, 144):
        topology = Topology(gpus, 8)
        problems = [LayerProblem(row, topology, 288 // gpus, rates, objective="load") for row in loads]
        plan_layers(problems[:2], "auto", Stop(), seed, workers)
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            answers = plan_layers(problems, "auto", Stop(), seed, workers)
            seconds.append(time.perf_counter() - began)
        gaps = [answer.gap for answer in answers]
        click.echo(f"{gpus:4d}  {statistics.median(seconds):16.2f}  {np.mean(gaps):8.2%}  {max(gaps):11.2%}")


if __name__ == "__main__":
    main()
