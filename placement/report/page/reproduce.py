"""The command that makes a plan again, from what its file says of how it was made."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from placement.errors import InputError
from placement.records.plan import Plan
from placement.routing.holdout import WINDOWS
from specs.documents import shown
from specs.loading import catalog_names, load_scenario
from specs.overrides import overridden
from specs.scenario import Scenario

#: The strategy of plans that a migration made.
MIGRATED = "migrate"
#: More values than this that differ from the catalog's make no readable command.
MOST_SETTINGS = 16


@dataclass(frozen=True)
class Reproduction:
    """How a plan is made again.

    Attributes:
        told: What the texts are. texts: Commands or programs. why_not: What they leave open, or "".
    """

    told: str
    texts: tuple[str, ...]
    why_not: str


def reproduction(plan: Plan) -> Reproduction:
    """How the plan is made again, and how it is checked."""
    files = [f"{shown(each.name, 200)}.npz" for each in plan.provenance.inputs]
    traces = [part for file in files for part in ("--trace", file)]
    verify = shlex.join(["placement", "verify", "plan.json", *traces])
    if plan.provenance.strategy == MIGRATED:
        return Reproduction(
            "It was made by `placement migrate` from a plan that ran before. To check it:", (verify,), ""
        )
    open_points = " ".join(_open(plan))
    settings = _settings(plan.scenario.spec)
    options = dict(_options(plan))
    if settings is None:
        told = (
            "Its scenario is no entry of the catalog, so that the plan file itself is the scenario. The program makes "
            "the plan again; the command checks it."
        )
        return Reproduction(told, (_program(options, files), verify), open_points)
    flags = [part for name, value in options.items() for part in _flag(name, value)]
    solve = shlex.join(
        ["placement", "solve", "--spec", plan.scenario.spec.name, *settings, *traces, *flags, "--out", "plan.json"]
    )
    cut = plan.provenance.cut_short
    again = "asks for it again" if cut else "makes the plan again, byte for byte"
    return Reproduction(f"The first command {again}. The second checks it.", (solve, verify), open_points)


def differing(base: Scenario, other: Scenario) -> Iterator[tuple[str, Any, Any]]:
    """Path, value in `base` and value in `other` of every field that differs, the summary aside."""
    return _differing(base.model_dump(mode="json"), other.model_dump(mode="json"), "")


def _differing(base: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(base, dict) and isinstance(other, dict) and base.keys() == other.keys():
        for name in base:
            if (path, name) != ("", "summary"):
                yield from _differing(base[name], other[name], f"{path}.{name}".lstrip("."))
    elif base != other:
        yield path, base, other


def _options(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Arguments of `plan_scenario` that are not its defaults."""
    provenance, routing, role = plan.provenance, plan.provenance.routing, plan.roles[0]
    serving = plan.scenario.spec.workload.kind == "serving"
    if len(plan.roles) == 1 and role.phase != ("serving" if serving else "train"):
        yield "phase", role.phase
    counts = any(each.kind == "counts" for each in provenance.inputs)
    if plan.objective != ("load" if counts else "time"):
        yield "objective", plan.objective
    if provenance.strategy != "auto":
        yield "strategy", provenance.strategy
    if routing.solved_on == "all" and not counts:
        yield "holdout", False
    if routing.judged_windows_per_trace != 1 or routing.windows_per_trace != -(
        -WINDOWS // max(1, len(provenance.inputs))
    ):
        yield "windows", routing.windows_per_trace
    if plan.tail != 1.0:
        yield "tail", plan.tail
    if not provenance.balance_floor:
        yield "balance_floor", False
    if provenance.work != 1.0:
        yield "work", provenance.work
    if provenance.seed:
        yield "seed", provenance.seed


def _flag(name: str, value: Any) -> tuple[str, ...]:
    option = "--" + name.replace("_", "-")
    return (f"--no-{option[2:]}",) if value is False else (option, str(value))


def _program(options: Mapping[str, Any], files: list[str]) -> str:
    """The same through the library."""
    asked = {name: value for name, value in options.items() if name != "work"}
    lines = [f"    {name}={value!r}," for name, value in asked.items()]
    names = "Budget, load_plan, plan_scenario" if "work" in options else "load_plan, plan_scenario"
    if "work" in options:
        lines.append(f"    budget=Budget(work={options['work']!r}),")
    if files:
        lines.append(f"    traces={files!r},")
    return "\n".join(
        (
            f"from placement import {names}",
            "",
            "plan = plan_scenario(",
            '    load_plan("plan.json").scenario.spec,',
            *lines,
            ")",
        )
    )


def _open(plan: Plan) -> Iterator[str]:
    provenance = plan.provenance
    if provenance.inputs:
        yield "Files may bear other names than here: their SHA-256 decides."
    if provenance.params:
        names = ", ".join(provenance.params)
        yield f"Parameters of the search were set ({names}): give them as a file to --params."
    if provenance.cut_short:
        yield "A time limit cut the search short, so that another run may find another plan."
    if plan.demand is not None:
        yield "Its instances were chosen, or simulated, for a demand: add --rate, --concurrency or --arrivals."
    if len(plan.roles) > 1:
        yield "The plan has several roles; the options are of all of them."


def _settings(spec: Scenario) -> tuple[str, ...] | None:
    """What `placement solve --spec NAME` needs beside the catalog's scenario; None where that won't do."""
    if spec.name not in catalog_names("scenario"):
        return None
    try:
        base, asked = load_scenario(spec.name), list[str]()
        if base.engine != spec.engine:
            engine = f"{spec.engine.name}:{spec.engine.backend}"
            base, asked = overridden(base, engine=engine), ["--engine", engine]
        changes = {path: value for path, _, value in differing(base, spec)}
        if len(changes) > MOST_SETTINGS:
            return None
        same = overridden(base, set=changes).model_copy(update={"summary": spec.summary}) == spec
    except InputError:
        return None
    if not same:
        return None
    return (*asked, *(part for path, value in changes.items() for part in ("--set", f"{path}={_yaml(value)}")))


def _yaml(value: Any) -> str:
    """A value as YAML on one line; JSON is YAML, and a word needs no quotes."""
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value)
