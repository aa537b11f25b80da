"""Chooses the instances of a serving scenario: which roles, which splits, how many of each, in which nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.check.deployment import HeldGpus, Kind, deployment_faults
from placement.cost.memory.hbm import memory_of
from placement.cost.step.kernels import KernelTables
from placement.cost.step.roles import Role, kv_bytes_per_request
from placement.errors import InfeasibleError, InputError, ParameterError
from placement.planning.case import Case, Mode
from placement.problem.engine_rules import Layout, load_problem
from placement.problem.split import Split, degrees_text, make_split
from placement.records.choice import ChoiceRecord, DroppedRecord, RunnerUpRecord
from placement.records.layout import HeldRecord, NodesRecord
from placement.records.role import RolePlan
from placement.routing.holdout import Routing
from solvers.deploy.balance import PlacedLayers
from solvers.deploy.close import CLOSE, LEAST_S, ClosePrices, settle
from solvers.deploy.columns import ColumnSet, list_columns, pool_of
from solvers.deploy.layout import layout
from solvers.deploy.problem import Column, Deployment, MasterProblem
from solvers.deploy.rivals.rate import Rival, nearest_rivals, rivals_of, settle_with
from solvers.deploy.rivals.record import rival_record
from solvers.split.enumerate import SplitChoice, enumerate_splits
from solvers.split.pins import check_pins
from solvers.stop import Stop
from specs.cluster import Cluster
from specs.scenario import Pins, Scenario

#: Recipes that a plan names beside its own answer.
MOST_RIVALS = 3

ROLES: dict[Mode, tuple[Role, ...]] = {
    "aggregated": ("aggregated",),
    "disaggregated": ("prefill", "decode"),
    "auto": ("aggregated", "prefill", "decode"),
}


@dataclass(frozen=True)
class ChosenRole:
    """Instances of one kind.

    Attributes:
        scenario: As the role has it. cluster: The GPUs that they run on; None: the scenario's cluster.
        split: `instances` says how many there are. cp: Attention ranks that share a prompt.
        cut_gain: Of the role's stages over even ones; see SplitChoice.
        fitted: Whether the batch is the load balancer's own, with every layer placed.
    """

    role: Role
    scenario: Scenario
    cluster: Cluster | None
    split: Split
    cp: int = 1
    cut_gain: float | None = 0.0
    fitted: bool = False


@dataclass(frozen=True)
class Choice:
    """The chosen instances, what nodes hold of them, and what was chosen among."""

    roles: tuple[ChosenRole, ...]
    nodes: tuple[NodesRecord, ...]
    record: ChoiceRecord


def choose(case: Case, routing: Routing, stop: Stop) -> Choice:
    """The instances that serve the most tokens/s within HBM, TTFT and TPOT, or the target with the fewest GPUs.

    Columns are priced with a few quickly placed layers (PlacedLayers), those that answers use with all of them
    (ClosePrices). At most `case.max_kinds` kinds are used.

    Args:
        stop: When pricing ends.

    Raises:
        InputError: Pins that no split can have. InfeasibleError: nothing fits HBM, TTFT and TPOT, or the target is out
            of reach.
    """
    scenario, workload = case.scenario, case.scenario.workload
    if workload.kind != "serving":
        raise ValueError("instances are chosen for serving; training has one split")
    pools = [scenario, *(scenario.model_copy(update={"cluster": cluster}) for cluster in case.pools)]
    redundant = None if scenario.redundant == "auto" else int(scenario.redundant)
    roles = ROLES[mode_of(case)]
    for role in roles:
        own = scenario.of_role(role)
        check_pins(own, own.pins, redundant, role, scenario.own_pins(role))
    case.report.stage("pricing splits")
    kernels = KernelTables.installed() if case.kernel_tables else None
    placed = PlacedLayers(routing.solved_on) if case.placed else None
    columns = list_columns(pools, roles, scenario.pins, redundant, placed, kernels, stop)
    problem = MasterProblem(
        tuple(pool_of(pool) for pool in pools), columns.columns, kv_bytes_per_request(scenario),
        max_kinds=case.max_kinds,
    )  # fmt: skip
    if not problem.serves:
        return _cut_to_fit(case, columns, roles, stop)
    if case.target_tokens_per_s is not None:
        problem = replace(problem, goal="gpus", target=case.target_tokens_per_s / workload.osl)
    case.report.stage("choosing instances")
    left = stop.seconds_left()
    close = ClosePrices(pools, routing.solved_on, stop) if case.placed else None
    try:
        settled = settle(problem, close, None if left is None else max(LEAST_S, left))
    except InfeasibleError as error:
        asked = f"`target_rate` is {problem.target:,.6g} requests/s of {workload.osl:,} tokens"
        raise InfeasibleError(f"{asked}: {error}") from None
    problem, chosen, target = settled.problem, settled.answer, case.target_tokens_per_s
    if not chosen.gpus and target is not None:
        raise ParameterError("target_rate", "is so small that no instance is needed", "ask for more")
    if not chosen.requests_per_s > 0:
        raise InfeasibleError(f"{scenario.name}: {_do_not_fit(problem)}")
    if not case.told or stop.expired:
        return _choice(pools, problem, columns, chosen, workload.osl, target, None, None)
    case.report.stage("pricing recipes")
    found = rivals_of(pools, problem, roles, placed, kernels, _EXTRA_S)
    rivals = nearest_rivals(found, problem, close, MOST_RIVALS, _EXTRA_S)
    settled = settle_with(settled, rivals, close, _EXTRA_S)
    choice = _choice(pools, settled.problem, columns, settled.answer, workload.osl, target, close, rivals)
    records = tuple(rival_record(rival, problem.pools, workload.osl) for rival in rivals)
    return replace(choice, record=choice.record.model_copy(update={"rivals": records}))


def _do_not_fit(problem: MasterProblem) -> str:
    """Why no instances serve a request, where there are such of prefill and of decode."""
    least = {role: min(c.gpus for c in problem.columns if c.role == role) for role in ROLES["disaggregated"]}
    sizes = " and ".join(f"the smallest {role} instance takes {size:,} GPUs" for role, size in least.items())
    have = sum(pool.gpus for pool in problem.pools)
    return f"{sizes}: of {have:,} GPUs they don't fit beside each other; add nodes, or pin smaller ones"


def mode_of(case: Case) -> Mode:
    """The mode that is asked for; auto is what the pins can be of, where they fix a whole instance or one role's.

    Raises:
        ParameterError: A role is pinned that the mode does not have.
    """
    scenario, pins = case.scenario, case.scenario.pins
    own = scenario.prefill_pins != Pins() or scenario.decode_pins != Pins() or pins.cp is not None
    if own and case.mode == "aggregated":
        raise ParameterError("mode", "aggregated instances are neither prefill nor decode", "leave out pins of these")
    if own and case.mode == "auto":
        return "disaggregated"
    if case.mode == "disaggregated" and case.max_kinds == 1:
        raise ParameterError("max_kinds", "prefill and decode apart are two kinds", "give 2, or another `mode`")
    whole = pins.batch is not None or (None not in (pins.tp, pins.pp) and (pins.dp or pins.ep) is not None)
    return "aggregated" if case.mode == "auto" and whole else case.mode


def _cut_to_fit(case: Case, columns: ColumnSet, roles: Sequence[Role], stop: Stop) -> Choice:
    """Where no split fits cut evenly: the best cut of one, or the reason why there is none."""
    scenario, workload = case.scenario, case.scenario.workload
    if ("aggregated" in roles and not columns.fits) or len(roles) == 1:
        # The search over whole splits knows the memory line and the objective that fail.
        return choice_of_split(scenario, enumerate_splits(scenario, scenario.pins, scenario.redundant, stop))
    if workload.kind != "serving":
        raise ValueError("training has no columns")
    if "aggregated" in roles:
        enumerate_splits(scenario, scenario.pins, scenario.redundant, stop)
    held = {column.role for column in columns.columns}
    lacking = [
        f"{name} {limit:.4g} ms can't be met, the best is {best * 1e3:.4g} ms ({best * 1e3 / limit - 1:.2%} over)"
        for name, limit, best, role in (
            ("TTFT", workload.ttft_ms, columns.reach.prefill_ttft_s, "prefill"),
            ("TPOT", workload.tpot_ms, columns.reach.tpot_s, "decode"),
        )
        if role not in held and best < float("inf")
    ]
    if not lacking:
        raise InfeasibleError(f"{scenario.name}: no instance within HBM, TTFT and TPOT once experts are placed")
    raise InfeasibleError(f"{scenario.name}: {'; '.join(lacking)}: relax {' and '.join(w.split()[0] for w in lacking)}")


def choice_of_plan(case: Case) -> Choice:
    """The instances of the plan that is kept.

    Raises:
        ParameterError: An option that chooses instances, too. InputError: a split that the scenario, changed since,
            can't have. InfeasibleError: the instances exceed HBM, or the nodes.
    """
    plan = case.deployment
    if plan is None or plan.choice is None:
        raise ParameterError("deployment", "the plan does not say how its instances were chosen", "give one of deploy")
    asked = {"mode": case.mode != "auto", "pools": bool(case.pools), "target_rate": bool(case.target_tokens_per_s)}
    for name, given in asked.items():
        if given:
            raise ParameterError(name, "the instances of `deployment` are kept", "leave one of the two out")
    roles, used = [], 0
    for role in plan.roles:
        scenario = case.scenario.of_role(role.role, role.cluster)
        split = role.split.split()
        made = make_split(
            scenario, split.tp, split.ep, split.pp, split.dp, split.batch, split.redundant, split.instances
        )
        used += 0 if role.cluster is not None else made.gpus
        _keeps_pins(scenario, split, role)
        problem = load_problem(scenario, Layout.of(scenario, split), role.role)
        if made.slots_per_gpu != split.slots_per_gpu:
            problem = f"{split.slots_per_gpu} slots per GPU are not those of {scenario.model.moe.experts} experts"
        if problem:
            raise InputError(plan.scenario.name, "split", problem, "plan it anew")
        if not memory_of(scenario, split).fits:
            raise InfeasibleError(f"{plan.scenario.name}: the instances of the plan exceed HBM here; plan it anew")
        kind: Role = "aggregated" if role.role == "training" else role.role
        roles.append(ChosenRole(kind, scenario, role.cluster, split, role.cp))
    cluster = case.scenario.cluster
    nodes = sum(group.nodes for group in plan.nodes if group.pool == cluster.name)
    if used > cluster.gpus or nodes > cluster.nodes:
        need = f"{used} GPUs on {nodes} nodes" if nodes else f"{used} GPUs"
        raise InfeasibleError(
            f"{plan.scenario.name}: the instances need {need}, the cluster has {cluster.gpus} on {cluster.nodes}"
        )
    return Choice(tuple(roles), plan.nodes, plan.choice)


def _keeps_pins(scenario: Scenario, split: Split, role: RolePlan) -> None:
    """Refuses pins that a kept split does not have, or of ranks that share a prompt that a kept role has not.

    Raises:
        ParameterError: naming the first.
    """
    pinned = {**scenario.pins.model_dump(), "redundant": None if scenario.redundant == "auto" else scenario.redundant}
    for name, value in pinned.items():
        if value is None or name == "batch" or (name == "cp" and role.role != "prefill"):
            continue
        kept = role.cp if name == "cp" else getattr(split, name)
        if value != kept:
            raise ParameterError(
                name, f"{value} is asked for, the instances of `deployment` have {kept}", "leave it out"
            )


def choice_of_split(scenario: Scenario, choice: SplitChoice) -> Choice:
    """One kind of instance that fills the cluster, by the search over whole splits."""
    role = ChosenRole("aggregated", scenario, None, choice.best, cut_gain=choice.cut_gain)
    best = choice.prediction.tokens_per_s
    runner = None
    if choice.runners_up:
        other = choice.runners_up[0]
        runner = RunnerUpRecord(
            kinds=degrees_text(other.split.tp, other.split.ep, other.split.pp, other.split.dp),
            tokens_per_s=other.prediction.tokens_per_s,
        )
    record = ChoiceRecord(
        goal="rate", priced_tokens_per_s=best, bound=None, gap=None, status="feasible", solver="enumeration",
        considered=choice.considered, listed=choice.listed, kept=1, thinned=choice.thinned,
        dropped=tuple(DroppedRecord(role=role.role, reason=d.reason, count=d.count) for d in choice.dropped),
        idle_gpus=choice.idle_gpus, runner_up=runner,
    )  # fmt: skip
    return Choice((role,), (), record)


def _choice(
    pools: Sequence[Scenario], problem: MasterProblem, columns: ColumnSet, chosen: Deployment, osl: int,
    target: float | None, close: ClosePrices | None, rivals: Sequence[Rival] | None,
) -> Choice:  # fmt: skip
    """The answer with its packing, checked from outside; with rivals: with what came next, at close prices, too.

    Args:
        target: Output tokens/s that were asked for.

    Raises:
        RuntimeError: The solver's answer is invalid (a bug).
    """
    used = [i for i, count in enumerate(chosen.counts) if count]
    used.sort(key=lambda i: (_ORDER[problem.columns[i].role], -chosen.counts[i] * problem.columns[i].gpus))
    packed = layout(problem, chosen.counts)
    if packed is None:
        raise RuntimeError(f"the solver's instances do not fit the nodes: {chosen.counts}")
    place = {column: at for at, column in enumerate(used)}
    parts = [(problem.columns[i], chosen.counts[i]) for i in used]
    faults = deployment_faults(
        pools,
        [Kind(c.pool, c.role, c.split, count, c.point.ttft_s, c.point.tpot_s) for c, count in parts],
        [HeldGpus(group.pool, group.nodes, {place[i]: gpus for i, gpus, _ in group.held}) for group in packed],
    )
    if faults:
        raise RuntimeError(f"the solver returned an invalid deployment: {'; '.join(faults)}")
    roles = tuple(
        ChosenRole(
            c.role, pools[c.pool].of_role(c.role), pools[c.pool].cluster if c.pool else None,
            replace(c.split, instances=count), c.cp, fitted=c.moe_source == CLOSE,
        )
        for c, count in parts
    )  # fmt: skip
    # Instances of one kind lie on nodes in order.
    nodes = (
        ()
        if len(roles) == 1
        else tuple(
            NodesRecord(
                pool=problem.pools[group.pool].name,
                nodes=group.nodes,
                holds=tuple(HeldRecord(instance=place[i], gpus=gpus, count=n) for i, gpus, n in group.held),
            )
            for group in packed
        )
    )
    scale = osl if chosen.goal == "rate" else 1
    freed = None if rivals is None else _without_limit(problem, chosen, close)
    record = ChoiceRecord(
        goal=chosen.goal, priced_tokens_per_s=chosen.requests_per_s * osl, target_tokens_per_s=target,
        bound=chosen.bound * scale, gap=chosen.gap, status="optimal" if chosen.optimal else "feasible",
        solver=chosen.solver, considered=columns.considered,
        listed=max(columns.listed, columns.considered), kept=len(columns.columns), thinned=columns.thinned,
        dropped=tuple(DroppedRecord(role=d.role, reason=d.reason, count=d.count) for d in columns.dropped),
        idle_gpus=sum(pool.gpus for pool in problem.pools) - chosen.gpus,
        runner_up=None if rivals is None else _runner_up(problem, [c for c, _ in parts], osl, close, rivals),
        max_kinds=problem.max_kinds, without_max_kinds=freed,
    )  # fmt: skip
    return Choice(roles, nodes, record)


_ORDER: dict[Role, int] = {"aggregated": 0, "prefill": 1, "decode": 2}


def _without_limit(problem: MasterProblem, chosen: Deployment, close: ClosePrices | None) -> float | None:
    """Share of tokens/s (or of GPUs) that any number of kinds would gain."""
    if problem.max_kinds is None:
        return None
    free = settle(replace(problem, max_kinds=None), close, _EXTRA_S, _EXTRA_ROUNDS).answer
    if chosen.goal == "rate":
        return max(0.0, free.requests_per_s / chosen.requests_per_s - 1.0)
    return max(0.0, 1.0 - free.gpus / chosen.gpus)


#: Seconds of each master problem for what is said beside the answer, and times that it is solved again.
_EXTRA_S = 2.0
_EXTRA_ROUNDS = 3


def _runner_up(
    problem: MasterProblem, used: Sequence[Column], osl: int, close: ClosePrices | None, rivals: Sequence[Rival]
) -> RunnerUpRecord | None:
    """The best answer that does without one of the chosen kinds.

    Rivals' layouts are among its own: the chosen kinds ruled them out, and one of these is gone.
    """
    columns = dict.fromkeys((*problem.columns, *(column for rival in rivals for column, _ in rival.kinds)))
    best: RunnerUpRecord | None = None
    for gone in used:
        kept = tuple(column for column in columns if _kind(column) != _kind(gone))
        if not kept:
            continue
        fewer = replace(problem, columns=kept)
        try:
            settled = settle(fewer, close, _EXTRA_S, _EXTRA_ROUNDS)
        except InfeasibleError:
            continue
        other = settled.answer
        names = " + ".join(
            f"{n} {c.role} {degrees_text(*_kind(c)[2:])}"
            for c, n in zip(settled.problem.columns, other.counts, strict=True)
            if n
        )
        if not names:
            continue
        found = RunnerUpRecord(kinds=names, tokens_per_s=other.requests_per_s * osl, gpus=other.gpus)
        if best is None or _rank(problem, found) > _rank(problem, best):
            best = found
    return best


def _rank(problem: MasterProblem, found: RunnerUpRecord) -> tuple[float, float]:
    """What answers are compared by, the more the better."""
    fewest = float(-(found.gpus or 0))
    return (found.tokens_per_s, fewest) if problem.goal == "rate" else (fewest, found.tokens_per_s)


def _kind(column: Column) -> tuple[int, Role, int, int, int, int, int]:
    """What makes two columns instances of one kind: pool, role and degrees, whatever their batches and copies."""
    split = column.split
    return (column.pool, column.role, split.tp, split.ep, split.pp, split.dp, column.cp)
