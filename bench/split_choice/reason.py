"""Why the planner rates its own pick above what engineers configured: what binds each, and what the difference is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.split_choice.choose import Compared, servers_for
from bench.split_choice.recipes import scenario_of
from placement.cost.step.role_figures import at_batch
from placement.cost.step.roles import MOST_BUSY
from placement.cost.step.throughput import ServingModel, breakdown_of
from solvers.deploy.clients import Server, Serving, best_serving
from solvers.deploy.columns import pool_of
from solvers.deploy.rivals.layouts import name_of
from solvers.split.degrees import Degrees
from specs.scenario import Scenario

#: An instance at this share of its most requests/s is bound by it.
_BOUND = 0.98


@dataclass(frozen=True)
class Reason:
    """Why a pick is rated higher.

    Attributes:
        cause: the part of the choice that is worth most: "counts", "prefill" or "decode".
        worth: gain over theirs of other counts of their layouts, of another prefill layout beside their decode layout,
            and of another decode layout beside their prefill layout, each at its best counts.
        words: one line.
    """

    cause: str
    worth: dict[str, float]
    words: str


def layout_of(server: Server) -> str:
    """A layout by its short name."""
    split = server.split
    name = name_of(Degrees(split.tp, split.ep, split.pp, split.dp, 0))
    return f"{name} CP{server.cp}" if server.cp > 1 else name


def told(serving: Serving) -> str:
    """A deployment in words."""
    return ", ".join(f"{count} {server.role} {layout_of(server)}" for server, count in serving.kinds)


def binds(serving: Serving, clients: int) -> str:
    """What holds a deployment back: where clients spend their time, or what a role can't pass."""
    parts = []
    for server, count in serving.kinds:
        share = serving.requests_per_s / (server.rates[-1] * count)
        if share >= _BOUND:
            limit = f"{MOST_BUSY:.0%} busy" if server.role == "prefill" else f"at {server.most} a rank ({server.limit})"
            parts.append(f"{server.role} is {limit}")
    if parts:
        return " and ".join(parts)
    held = {server.role: float(server.holds(serving.requests_per_s, count)) for server, count in serving.kinds}
    role = max(held, key=lambda name: held[name])
    return f"{held[role] / clients:.0%} of clients are in {role}"


def reason(compared: Compared) -> Reason:
    """Why the planner's pick is rated above a recipe; both have a price."""
    if compared.ours is None or compared.theirs is None:
        raise ValueError("no two prices to compare")
    question = compared.recipe.question
    return difference(
        scenario_of(question), servers_for(question), question.clients, question.gpus, compared.ours, compared.theirs
    )


def difference(
    scenario: Scenario, servers: Sequence[Server], clients: int, gpus: int, ours: Serving, theirs: Serving
) -> Reason:
    """Why one deployment is rated above another.

    Args:
        servers: the layouts that ours were chosen among. clients, gpus: of both.
    """
    own = [server for server, _ in theirs.kinds]

    def worth(free: str | None) -> float:
        """Of the best counts with their layouts, those of one role free."""
        among = [each for each in servers if each.role == free] + [each for each in own if each.role != free]
        found = best_serving(among, clients, pool_of(scenario), gpus)
        return found.requests_per_s / theirs.requests_per_s if found else 1.0

    worths: dict[str, float] = {"counts": worth(None)}
    worths |= {server.role: worth(server.role) for server in own}
    alone = {name: value / (worths["counts"] if name != "counts" else 1.0) for name, value in worths.items()}
    cause = max(alone, key=lambda name: alone[name])
    words = (
        f"{told(ours)} for {told(theirs)}: theirs: {binds(theirs, clients)}; ours: {binds(ours, clients)}; "
        f"other counts {worths['counts']:.2f}x"
    )
    words += "".join(f", another {role} {worths[role]:.2f}x" for role in worths if role != "counts")
    if cause not in ("counts", "prefill"):
        words += f"; {_step_parts(scenario, ours, theirs, cause)}"
    return Reason(cause, worths, words)


def _step_parts(scenario: Scenario, ours: Serving, theirs: Serving, role: str) -> str:
    """The steps of both, and the parts in which they differ most."""
    before, after = _step(scenario, theirs, role), _step(scenario, ours, role)
    most = sorted(before.parts, key=lambda name: -abs(before.parts[name] - after.parts[name]))[:2]
    parts = ", ".join(f"{name} {before.parts[name] * 1e3:.1f} to {after.parts[name] * 1e3:.1f}" for name in most)
    return (
        f"a step of {before.seconds * 1e3:.1f} ms at {before.batch} a rank to {after.seconds * 1e3:.1f} at "
        f"{after.batch} ({parts})"
    )


@dataclass(frozen=True)
class _Step:
    """A decode step: sequences of a rank, its seconds and those of its parts."""

    batch: int
    seconds: float
    parts: dict[str, float]


def _step(scenario: Scenario, serving: Serving, role: str) -> _Step:
    server, count = next(kind for kind in serving.kinds if kind[0].role == role)
    batch = max(1, round(server.batch(serving.requests_per_s, count)))
    workload, split = scenario.workload, at_batch(replace(server.split, instances=1), batch)
    if workload.kind != "serving":
        raise ValueError("clients are served")
    model = ServingModel(scenario, workload, split)
    parts = breakdown_of(model.decode_times(batch), model.passes, 1.0)
    return _Step(batch, model.decode_step_s(batch), {part.name: part.seconds for part in parts})
