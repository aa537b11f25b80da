"""The planner's answer to each question, and the price of what engineers configured, in one cost model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from bench.split_choice.recipes import Question, Recipe, scenario_of
from placement.cost.step.roles import Role
from solvers.deploy.clients import Server, Serving, best_serving, list_servers, serve, servers_of
from solvers.deploy.columns import pool_of
from solvers.deploy.rivals.layouts import layout_problem, named, with_slots

ROLES: dict[str, tuple[Role, ...]] = {"agg": ("aggregated",), "disagg": ("prefill", "decode")}


@dataclass(frozen=True)
class Compared:
    """A recipe next to the planner's answer.

    Attributes:
        ours: None where nothing fits. theirs: the recipe's instances at the same price, None where they have none, and
            then why.
    """

    recipe: Recipe
    ours: Serving | None
    theirs: Serving | None
    why: str = ""

    @property
    def gain(self) -> float | None:
        """Requests/s of ours over theirs."""
        if self.ours is None or self.theirs is None or not self.theirs.requests_per_s:
            return None
        return self.ours.requests_per_s / self.theirs.requests_per_s


def compare(recipes: Sequence[Recipe], told: Callable[[str], None]) -> tuple[Compared, ...]:
    """Every recipe next to the planner's answer; questions that are alike are asked once.

    Args:
        told: gets a word on each group of questions.
    """
    asked: dict[Question, Serving | None] = {}
    found: dict[int, Compared] = {}
    groups: dict[Question, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(_priced_alike(recipe.question), []).append(recipe)
    for like, mine in groups.items():
        told(f"{like.model} {like.precision} on {like.gpu}, {like.isl}/{like.osl}: {len(mine)} rows")
        for recipe in sorted(mine, key=lambda each: each.question.nodes):
            question = recipe.question
            if question not in asked:
                pool = pool_of(scenario_of(question))
                asked[question] = best_serving(servers_for(question), question.clients, pool, question.gpus)
            theirs, why = _theirs(recipe)
            found[recipe.line] = Compared(recipe, asked[question], theirs, why)
    return tuple(found[recipe.line] for recipe in recipes)


def _priced_alike(question: Question) -> Question:
    """What questions share whose layouts have one price on as many nodes."""
    return replace(question, gpus=0, nodes=0, clients=0)


def servers_for(question: Question) -> tuple[Server, ...]:
    """The layouts that may answer a question."""
    return _servers(replace(question, gpus=0, clients=1))


@lru_cache(maxsize=16)
def _servers(question: Question) -> tuple[Server, ...]:
    return list_servers(scenario_of(question), ROLES[question.mode])


def _theirs(recipe: Recipe) -> tuple[Serving | None, str]:
    """What was configured, at its price; else why it has none."""
    scenario, kinds = scenario_of(recipe.question), []
    for workers in recipe.workers:
        own = scenario.of_role(workers.role)
        degrees = with_slots(own, named(workers.layout))
        problem = layout_problem(own, own.pins, degrees)
        servers = [] if problem else servers_of(own, (degrees,), (workers.role,))
        if not servers:
            return None, f"{workers.role} {workers.layout}: {problem or 'exceeds HBM'}"
        # Prompts stay on one rank, as in every recipe.
        kinds.append((servers[0], workers.count))
    return serve(kinds, recipe.question.clients), ""
