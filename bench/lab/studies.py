"""What several targets ask of a plan: its strategies' figures for all roles together, and roles under other splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placement.cost.figures import Placement
from placement.cost.memory.hbm import MemoryReport, memory_of
from placement.cost.own_batch import BatchFit, Operation
from placement.cost.step.role_figures import at_batch, predict_role
from placement.cost.step.throughput import MoeTimes, Prediction
from placement.errors import InputError
from placement.problem.split import Split, make_split
from placement.records.convert import tokens_per_s
from placement.records.plan import Plan
from placement.records.role import RolePlan, StrategyRecord
from specs.scenario import Scenario


def figures_of(role: RolePlan, name: str) -> StrategyRecord:
    """A strategy's row; a plan by a baseline has no other row for itself."""
    found = role.strategy(name)
    if found is None:
        raise KeyError(name)
    return found


def yield_of(strategy: StrategyRecord) -> float:
    """Tokens/s at the strategy's own batch, where it has one."""
    own = strategy.at_own_batch
    return strategy.tokens_per_s if own is None else own.tokens_per_s


def throughput(plan: Plan, names: Sequence[str]) -> float:
    """Tokens/s of all roles, each placed by the strategy of its name."""
    rates = {i: yield_of(figures_of(role, name)) for i, (role, name) in enumerate(zip(plan.roles, names, strict=True))}
    return tokens_per_s(plan.scenario.spec, plan.roles, rates)


def best_names(plan: Plan) -> tuple[str, ...]:
    """Of each role the strategy that yields most; the plan's own where it is as good."""

    def order(strategy: StrategyRecord) -> tuple[float, bool]:
        return yield_of(strategy), strategy.placements is None

    return tuple(max(role.strategies, key=order).name for role in plan.roles)


def studied(plan: Plan) -> int:
    """The role whose experts lie on most GPUs, a later one where two are alike: where placement counts."""
    return max(range(len(plan.roles)), key=lambda i: (plan.roles[i].topology.gpus, i))


def step_ms(plan: Plan, names: Sequence[str]) -> float | None:
    """A training step, or the decode step (TPOT), with the strategies of these names."""
    for role, name in zip(reversed(plan.roles), reversed(names), strict=True):
        strategy = figures_of(role, name)
        if role.role == "training":
            own = role.predicted.step_ms
            return own.value * role.predicted.tokens_per_s.value / strategy.tokens_per_s if own else None
        if strategy.at_own_batch is not None and strategy.at_own_batch.tpot_ms is not None:
            return strategy.at_own_batch.tpot_ms
    return None


def missed(plan: Plan) -> tuple[str, ...]:
    """Limits that a plan misses on the routing that judges, in words: batches are fitted on the other half."""
    workload, told = plan.scenario.spec.workload, plan.predicted
    if workload.kind != "serving":
        return ()
    limits = (("TTFT", told.ttft_ms, workload.ttft_ms), ("TPOT", told.tpot_ms, workload.tpot_ms))
    return tuple(
        f"{name} {figure.value:,.2f} ms misses its limit of {limit:g} ms by {figure.value / limit - 1:.1%} on the "
        "routing that judges: the batch was fitted on the other half. Pin a smaller batch "
        "to stay below."
        for name, figure, limit in limits
        if figure is not None and figure.value > limit
    )


class Balanced(BatchFit):
    """The largest batch that meets TTFT and TPOT with experts taken as balanced: no routing is needed."""

    def __init__(self, scenario: Scenario, role: str, split: Split, cp: int = 1) -> None:
        super().__init__(scenario, role, split, (), cp=cp)

    def times(self, placement: Placement, batch: int) -> MoeTimes:
        """None measured: the step model estimates them."""
        return MoeTimes()


_ANY = Placement((), ())


@dataclass(frozen=True)
class Configured:
    """A role's instances under a split, with experts taken as balanced.

    Attributes:
        memory: At the batch of `split`. fitted: The split at the largest batch.
        binds: What a larger batch breaks.
    """

    scenario: Scenario
    split: Split
    memory: MemoryReport
    fitted: Split
    prediction: Prediction
    binds: tuple[str, ...]

    @property
    def tokens_per_s(self) -> float:
        return self.prediction.tokens_per_s

    @property
    def feasible(self) -> bool:
        """Whether it fits HBM, and TTFT and TPOT where there are such, at some batch."""
        workload, made = self.scenario.workload, self.prediction
        if not memory_of(self.scenario, self.fitted).fits:
            return False
        if workload.kind != "serving":
            return True
        late = made.ttft_s is not None and made.ttft_s * 1e3 > workload.ttft_ms * (1 + 1e-9)
        slow = made.tpot_s is not None and made.tpot_s * 1e3 > workload.tpot_ms * (1 + 1e-9)
        return not late and not slow and made.tokens_per_s > 0


def configured(scenario: Scenario, role: str, split: Split, cp: int = 1) -> Configured:
    """A role's split as it would be run: at the largest batch within HBM, the engine's limits, TTFT and TPOT."""
    memory = memory_of(scenario, split)
    if scenario.workload.kind == "training":
        return Configured(scenario, split, memory, split, predict_role(scenario, role, split), ("HBM",))
    found: Operation = Balanced(scenario, role, split, cp).fit(_ANY, split.batch)
    fitted = at_batch(split, found.batch)
    made = predict_role(scenario, role, fitted, cp=cp, requests_per_s=found.requests_per_s)
    return Configured(scenario, split, memory, fitted, made, found.binds)


def whole(plan: Plan, parts: Sequence[Configured]) -> float:
    """Tokens/s of all roles of a plan under other splits of the same GPUs."""
    rates = {i: part.tokens_per_s for i, part in enumerate(parts)}
    return tokens_per_s(plan.scenario.spec, plan.roles, rates)


def shared_out(plan: Plan, parts: Sequence[Configured]) -> float:
    """Tokens/s of a plan's roles under other splits, with its GPUs shared out anew between prefill and decode.

    Nodes are not packed: each role's instances are taken to find room.
    """
    if len(parts) != 2:
        return whole(plan, parts)
    first, second = (part.fitted.gpus_per_instance for part in parts)
    gpus = sum(role.gpus for role in plan.roles)
    best = 0.0
    for count in range(1, (gpus - second) // first + 1):
        shares = (count / parts[0].fitted.instances, (gpus - count * first) // second / parts[1].fitted.instances)
        rates = {i: part.tokens_per_s * share for i, (part, share) in enumerate(zip(parts, shares, strict=True))}
        best = max(best, tokens_per_s(plan.scenario.spec, plan.roles, rates))
    return best


def role_name(role: RolePlan) -> str:
    """The role with its degrees, for tables."""
    return f"{role.role} {role.degrees}"


def split_on(scenario: Scenario, gpus: int, batch: int, degrees: Mapping[str, int]) -> Split | None:
    """A split of these degrees in as many instances as the GPUs hold; None where there is none.

    Args:
        batch: Of serving; in training all ranks share the global batch.
        degrees: `tp`, `ep`, `pp` and `dp`.
    """
    instances, workload = gpus // (degrees["tp"] * degrees["dp"] * degrees["pp"]), scenario.workload
    if instances < 1:
        return None
    if workload.kind == "training":
        ranks = instances * degrees["dp"]
        if workload.global_batch % (ranks * workload.microbatch):
            return None
        batch = workload.global_batch // ranks
    try:
        return make_split(scenario, **degrees, batch=batch, instances=instances)
    except InputError:
        return None
