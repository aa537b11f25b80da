"""Places the experts of all layers by each strategy: the baselines, and the plan's own solver."""

from __future__ import annotations

from collections.abc import Sequence

from placement.cost.figures import Placement
from placement.errors import ParameterError
from placement.planning.effort import Effort
from placement.planning.progress import Reporter
from placement.problem.layer import LayerProblem
from solvers.base import UnsupportedError
from solvers.experts.layers import LayerAnswer, plan_layers
from solvers.registry import BASELINES
from solvers.stop import Stop

Answers = tuple[LayerAnswer, ...]


def place_baselines(
    problems: Sequence[LayerProblem], stop: Stop, effort: Effort, report: Reporter, own: str = ""
) -> dict[str, Answers]:
    """Each baseline's answers, by its name; only `own`'s carry the best bound known, since nobody is shown others'.

    They are placed however little time is left: each plan has them, and they are what is taken where there is none.
    """
    return {name: place(problems, name, stop, effort, report, certify=name == own) for name in BASELINES}


def place(
    problems: Sequence[LayerProblem],
    strategy: str,
    stop: Stop,
    effort: Effort,
    report: Reporter,
    floor: bool = True,
    certify: bool = True,
) -> Answers:
    """One strategy's answers.

    Args:
        floor: Whether solved layers stay as balanced as the load balancers'. certify: see plan_layers.

    Raises:
        ParameterError: The strategy does not support what the problems ask.
    """
    report.stage(f"placing experts: {strategy}", len(problems))
    try:
        return plan_layers(
            problems, strategy, stop, effort.seed, effort.threads, report.advance, floor, effort.backend, certify
        )
    except UnsupportedError as error:
        raise ParameterError("strategy", f"{strategy}: {error}", "choose another strategy, such as auto") from None


def placement_of_answers(answers: Answers) -> Placement:
    """The slots and fractions of answers."""
    return Placement(tuple(a.slots for a in answers), tuple(a.fractions for a in answers))
