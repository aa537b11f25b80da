"""The benchmarks by name. Adding one is adding its module and a line here; nothing is imported to list them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass

import click

from placement.errors import InputError


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: the module that holds its `command` (click), or an older one's `main`, and what it measures."""

    name: str
    module: str
    summary: str

    @property
    def present(self) -> bool:
        """Whether the module is in this installation."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:
            return False

    def load(self) -> click.Command:
        """Its command, imported now.

        Raises:
            InputError: the module has neither a click `command` nor a `main`.
        """
        module = importlib.import_module(self.module)
        found = getattr(module, "command", None) or getattr(module, "main", None)
        if isinstance(found, click.Command):
            return found
        if found is None or not callable(found):
            raise InputError(self.name, "", f"{self.module} has no click command", "name it `command` there")
        return _passed_on(self, found)


_ALL = (
    Benchmark(
        "placement_quality",
        "bench.placement_quality.main",
        "Solved placements against heuristics, on held-out routing.",
    ),
    Benchmark("alltoall", "bench.alltoall.acceptance", "Layouts' traffic on a shaped fabric: measured and predicted."),
    Benchmark("experts", "bench.experts.roofline", "An expert's time with n tokens on a GPU: measured, modelled."),
    Benchmark(
        "dispatch_rules",
        "bench.dispatch_rules.main",
        "Plans for engines' own dispatch: as predicted, and as served.",
    ),
    Benchmark("placement_speed", "bench.placement_speed.main", "Seconds to place the layers of a model."),
    Benchmark("split_quality", "bench.split_quality.main", "Training splits against hand recipes and a rival's cases."),
    Benchmark("recipe_gain", "bench.recipe_gain.main", "Planned deployments against the best recipe."),
    Benchmark(
        "split_choice", "bench.split_choice.main", "The planner's splits next to those that engineers configured."
    ),
    Benchmark("accuracy", "bench.accuracy.main", "Predicted against measured TTFT and TPOT."),
    Benchmark("training_rates", "bench.accuracy.training_rates", "Predicted against published rates of training runs."),
    Benchmark("routing_fit", "bench.routing_fit", "Recorded against synthetic routing; how constants were set."),
    Benchmark("fits", "bench.fits.main", "GPUs that models need, next to what vLLM's recipes ask for."),
)
BENCHMARKS: dict[str, Benchmark] = {each.name: each for each in _ALL}


def present() -> tuple[Benchmark, ...]:
    """The benchmarks of this installation, in the order of the registry."""
    return tuple(each for each in BENCHMARKS.values() if each.present)


def _passed_on(benchmark: Benchmark, function: Callable[[], object]) -> click.Command:
    """A command for a `main` that reads the process's arguments itself: it gets all of them, --help too."""

    @click.command(
        benchmark.name,
        help=benchmark.summary,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        before = sys.argv
        sys.argv = [f"bench run {benchmark.name}", *arguments]
        try:
            function()
        finally:
            sys.argv = before

    return command
