"""Checks pinned degrees one by one, so that a pin that can't be met is refused by name and not by an empty search."""

from __future__ import annotations

from collections.abc import Collection

from placement.errors import InputError
from placement.problem.engine_rules import Layout, load_problem, role_problem
from placement.problem.split import (
    ep_problem,
    nearest_redundant,
    redundant_problem,
    sharing_degrees,
    stage_problem,
    tp_layout_problem,
    tp_problem,
)
from solvers.split.degrees import Degrees, divisors, list_candidates, stage_sizes
from specs.loading import generic_engine
from specs.scenario import Pins, Scenario


def check_pins(
    scenario: Scenario, pins: Pins, redundant: int | None, role: str = "", own: Collection[str] = ()
) -> None:
    """Refuses pins that no split can have.

    Args:
        scenario: What is planned, as the role has it.
        pins: Degrees that are pinned.
        redundant: Redundant experts; None: any.
        role: Whose instances `own` names pins of.
        own: Pins that are of this role alone.

    Raises:
        InputError: naming the pin, what it fails to divide, and values near it that work.
    """
    try:
        _check_pins(scenario, pins, redundant)
    except InputError as error:
        names = [f"{role}_{name}" if name in own else name for name in error.field.split(" x ")]
        field = " x ".join(names)
        # Such as redundant experts that don't divide over this role's ep.
        of = f", in {role} instances" if field == error.field and own else ""
        raise InputError(error.source, field, error.problem + of, error.mend) from None
    if pins.cp not in (None, 1) and scenario.engine.shares_prompts == "never":
        problem = f"{scenario.engine.label} shares no prompt between attention ranks"
        _refuse(scenario, f"{role}_cp" if "cp" in own else "cp", problem, "unpin it, or choose another engine")
    asked = pins.pp is not None or pins.ep is not None or pins.cp is not None
    left = list_candidates(scenario, pins, redundant).degrees if asked else ()
    if left and pins.cp is not None:
        good = sorted({cp for d in left for cp in sharing_degrees(scenario.cluster, d.tp, d.dp)})
        if pins.cp not in good:
            of = f"{role} instance".lstrip()
            problem = f"no {of} has {pins.cp} attention ranks, or a multiple of that, side by side in a node"
            _refuse(scenario, f"{role}_cp" if "cp" in own else "cp", problem, _near("cp", good, pins.cp))
    problems = [role_problem(scenario, _layout(scenario, d), role) for d in left]
    if problems and all(problems):
        name = _blamed(scenario, pins, redundant, role)
        _refuse(scenario, f"{role}_{name}" if name in own else name, problems[0], "unpin it, or choose another engine")


def _blamed(scenario: Scenario, pins: Pins, redundant: int | None, role: str) -> str:
    """The pin without which the engine runs some split in the role; "pins" where it takes more than one."""
    for name in ("pp", "ep", "dp", "tp", "cp"):
        if getattr(pins, name) is None:
            continue
        freer = list_candidates(scenario, pins.model_copy(update={name: None}), redundant).degrees
        if not all(role_problem(scenario, _layout(scenario, degrees), role) for degrees in freer):
            return name
    return "pins"


def _check_pins(scenario: Scenario, pins: Pins, redundant: int | None) -> None:
    model, cluster = scenario.model, scenario.cluster
    product = (pins.tp or 1) * (pins.dp or 1) * (pins.pp or 1)
    if product > cluster.gpus:
        _refuse(
            scenario, "tp x dp x pp", f"{product} GPUs are pinned, the cluster has {cluster.gpus}", "lower one of them"
        )
    if pins.pp is not None and pins.pp > model.whole_layers:
        _refuse(
            scenario,
            "pp",
            f"pp {pins.pp} is more than the model's {model.whole_layers} layers",
            f"use at most {model.whole_layers}",
        )
    if pins.tp is not None:
        problem = tp_problem(model, pins.tp) or tp_layout_problem(cluster, pins.tp)
        if problem:
            good = [tp for tp in _group_sizes(scenario) if not tp_problem(model, tp)]
            _refuse(scenario, "tp", problem, _near("tp", good, pins.tp))
    if pins.tp is not None and pins.dp is not None:
        size = pins.tp * pins.dp
        problem = stage_problem(cluster, size, pins.pp or 1)
        if problem:
            good = [s // pins.tp for s in stage_sizes(scenario) if s % pins.tp == 0]
            _refuse(scenario, "dp", problem, _near("dp", good, pins.dp))
    if pins.ep is not None:
        sizes = _sizes(scenario, pins)
        problems = [ep_problem(model, cluster, size, pins.ep) for size in sizes]
        if sizes and all(problems):
            good = sorted({ep for size in sizes for ep in divisors(size) if not ep_problem(model, cluster, size, ep)})
            general = problems[0] if len(sizes) == 1 else f"no stage of the cluster's nodes has ep {pins.ep}"
            divided = (problem for size, problem in zip(sizes, problems, strict=True) if size % pins.ep == 0)
            _refuse(scenario, "ep", next(divided, general), _near("ep", good, pins.ep))
        if redundant is not None and redundant_problem(model, pins.ep, redundant):
            near = " or ".join(map(str, nearest_redundant(model, pins.ep, redundant)))
            _refuse(
                scenario, "redundant", redundant_problem(model, pins.ep, redundant), f"use {near} redundant experts"
            )


def refuse_empty(scenario: Scenario, pins: Pins, redundant: int | None) -> None:
    """Refuses pins that are each possible but not together.

    Raises:
        InputError: always.
    """
    refused = _not_loaded(scenario, pins, redundant)
    if refused:
        _refuse(scenario, "pins", *refused)
    given = [f"{name} {value}" for name, value in pins.model_dump().items() if value is not None]
    if redundant:
        given.append(f"redundant {redundant}")
    together = ", ".join(given) or "these sizes"
    mend = "unpin one or change it"
    if redundant:
        model, cluster = scenario.model, scenario.cluster
        near = {
            value
            for size in stage_sizes(scenario)
            for ep in divisors(size)
            if pins.ep in (None, ep) and not ep_problem(model, cluster, size, ep)
            for value in nearest_redundant(model, ep, redundant)
        } - {redundant}
        mend = f"unpin one, or {_near('redundant', sorted(near), redundant)}"
    _refuse(
        scenario, "pins",
        f"no split of {scenario.model.name} over {scenario.cluster.gpus} GPUs has {together}", mend,
    )  # fmt: skip


def _not_loaded(scenario: Scenario, pins: Pins, redundant: int | None) -> tuple[str, str] | None:
    """Why no split that the pins leave is loaded, or run by anybody, and the mend; None where none is left."""
    free = scenario.model_copy(update={"engine": generic_engine(), "degrees": "any"})
    left = list_candidates(free, pins, redundant).degrees
    if not left:
        return None
    problems = [load_problem(scenario, _layout(scenario, d)) for d in left]
    if all(problems):
        return problems[0], "unpin it, or choose another engine or backend"
    return "only splits of degrees that nobody runs are left", "unpin one, or take degrees any"


def _layout(scenario: Scenario, d: Degrees) -> Layout:
    return Layout(scenario.model, scenario.cluster, d.tp, d.ep, d.pp, d.dp, d.redundant)


def _sizes(scenario: Scenario, pins: Pins) -> list[int]:
    """GPUs that a stage may have with the pinned tp and dp."""
    if pins.tp and pins.dp:
        return [pins.tp * pins.dp]
    return [size for size in stage_sizes(scenario) if size % (pins.tp or pins.dp or 1) == 0]


def _group_sizes(scenario: Scenario) -> list[int]:
    return [size for size in stage_sizes(scenario) if not tp_layout_problem(scenario.cluster, size)]


def _near(name: str, good: list[int], wanted: int) -> str:
    near = sorted(sorted(good, key=lambda value: (abs(value - wanted), value))[:2])
    return f"use {name} {' or '.join(map(str, near))}" if near else f"leave {name} open"


def _refuse(scenario: Scenario, field: str, problem: str, mend: str) -> None:
    raise InputError(scenario.name, field, problem, mend)
