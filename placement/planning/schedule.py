"""Which order a training step's pipeline should run in, on the real stages of a split: every schedule simulated, with
even stages and with the best cut, and orders of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.local import LocalParameters
from placement.cost.training.schedule.orders import ORDERS, OrderName, schedule_order
from placement.cost.training.schedule.pipe import Pipe, pipe_of
from placement.cost.training.schedule.simulate import Run, Transfers, simulate
from placement.cost.training.step import TrainingModel
from placement.errors import InfeasibleError, InputError
from placement.problem.pieces import stage_table
from placement.problem.schedule import piece_count, schedule_problem
from placement.problem.split import Split
from solvers.schedule.best import ScheduleAnswer, best_order
from solvers.schedule.problem import ShopProblem, down_and_up, side_by_side
from solvers.split.enumerate import enumerate_splits
from solvers.split.train import fitting_mode
from solvers.stages.choose import best_cut
from solvers.stop import Stop
from specs.scenario import Scenario
from specs.workload import Schedule, TrainingWorkload


@dataclass(frozen=True)
class Candidate:
    """A pipeline that was simulated.

    Attributes:
        name: The schedule's, or "list" or "cpsat" for an order that was found.
        schedule: Whose cut of the model it runs on.
        split: With its cut and what each layer recomputes.
        recut: Whether the stage solver chose the cut; else it is even.
        run: The simulation.
        other_s: Seconds of the step outside of the pipeline.
        scored_s: The closed form's pipeline; None where there is none of the order.
        answer: How an order was found; None for a published one.
    """

    name: str
    schedule: Schedule
    split: Split
    recut: bool
    run: Run
    other_s: float
    scored_s: float | None
    answer: ScheduleAnswer | None = None

    @property
    def step_s(self) -> float:
        return self.run.makespan_s + self.other_s


@dataclass(frozen=True)
class ScheduleStudy:
    """All candidates of a scenario, none of them left out.

    Attributes:
        scenario: With the microbatches that were asked for.
        split: Its degrees.
        candidates: In the order of schedules, even cuts first.
        missing: (schedule, why it can't run here).
    """

    scenario: Scenario
    split: Split
    candidates: tuple[Candidate, ...]
    missing: tuple[tuple[OrderName, str], ...]

    def best(self) -> Candidate:
        """The shortest step that fits HBM.

        Raises:
            InfeasibleError: none fits; the message says what comes nearest.
        """
        fitting = [each for each in self.candidates if each.run.fits]
        if fitting:
            return min(fitting, key=lambda each: each.step_s)
        if not self.candidates:
            why = "; ".join(f"{name}: {problem}" for name, problem in self.missing)
            raise InfeasibleError(f"{self.scenario.name}: no schedule can run: {why}")
        near = min(self.candidates, key=lambda each: each.run.over_bytes)
        raise InfeasibleError(
            f"{self.scenario.name}: no schedule fits HBM; {near.name} exceeds it by {near.run.over_bytes / 1e9:.1f} GB "
            f"on the fullest device"
        )

    def even(self, schedule: OrderName) -> Candidate | None:
        """The candidate of a schedule with even stages."""
        return next((each for each in self.candidates if each.name == schedule and not each.recut), None)


def training_split(
    scenario: Scenario, pp: int | None = None, microbatches: int | None = None
) -> tuple[Scenario, Split]:
    """(The scenario with what was asked for, the best split of the workload's own schedule).

    Args:
        scenario: A training scenario.
        pp: Pipeline stages; None: the scenario's pins, or whatever is best.
        microbatches: Of a step on an attention rank; the global batch follows. None: the workload's batch.

    Raises:
        InputError: the workload serves, or a degree that no split has. InfeasibleError: nothing fits HBM.
    """
    workload = _training(scenario)
    if pp is not None:
        scenario = scenario.model_copy(update={"pins": scenario.pins.model_copy(update={"pp": pp})})
    split = enumerate_splits(scenario).best
    if microbatches is None:
        return scenario, split
    batch = microbatches * workload.microbatch
    changed = workload.model_copy(update={"global_batch": batch * split.dp * split.instances})
    scenario = scenario.model_copy(update={"workload": changed})
    return scenario, replace(split, batch=batch, microbatches=microbatches)


def study_schedules(
    scenario: Scenario,
    split: Split,
    schedules: Sequence[OrderName] = ORDERS,
    transfers: Transfers = "blocking",
    recut: bool = True,
    own: bool = True,
    stop: Stop | None = None,
    seed: int = 0,
) -> ScheduleStudy:
    """Simulate schedules on the stages of a split.

    Args:
        scenario, split: See training_split; the split's own cut is not used.
        schedules: Which.
        transfers: Whether devices wait for transfers between stages.
        recut: Whether the stage solver's cuts are tried, too.
        own: Whether orders beyond the published ones are sought.
        stop, seed: Of the stage solver and CP-SAT.

    Raises:
        InputError: the workload serves.
    """
    workload = _training(scenario)
    found: list[Candidate] = []
    missing: list[tuple[OrderName, str]] = []
    for name in schedules:
        cut_for = _cut_for(name)
        posed = _with_schedule(scenario, cut_for)
        problem = schedule_problem(posed.model, posed.workload, split.pp, split.microbatches)
        if problem:
            missing.append((name, problem))
            continue
        try:
            order = schedule_order(name, split.pp, split.microbatches, workload.chunks)
        except InputError as error:
            missing.append((name, str(error)))
            continue
        for cut, is_recut in _splits(posed, split, recut, stop):
            pipe = pipe_of(posed, _training(posed), cut)
            run = simulate(order, pipe, transfers)
            found.append(_candidate(name, posed, cut, is_recut, run))
    if own:
        found += _own(scenario, split, found, transfers, stop, seed)
    return ScheduleStudy(scenario, split, tuple(found), tuple(missing))


def _training(scenario: Scenario) -> TrainingWorkload:
    workload = scenario.workload
    if workload.kind != "training":
        raise InputError(
            scenario.name, "workload", f"{workload.name} is serving, which has no schedule of passes",
            "take a training scenario, such as dgx_a100_175b",
        )  # fmt: skip
    return workload


def _cut_for(name: OrderName) -> Schedule:
    """The schedule whose pieces an order runs on: ZB-V's lie as DualPipe-V's."""
    return "dualpipe_v" if name == "zb_v" else name


def _with_schedule(scenario: Scenario, schedule: Schedule) -> Scenario:
    return scenario.model_copy(update={"workload": _training(scenario).model_copy(update={"schedule": schedule})})


def _splits(posed: Scenario, split: Split, recut: bool, stop: Stop | None) -> list[tuple[Split, bool]]:
    """(Split, whether the stage solver cut it): even stages with one recompute mode for all, and the best cut."""
    workload, constants = _training(posed), efficiency_of(posed)
    plain = replace(split, cut=None, recompute=None)
    table = stage_table(posed.model, piece_count(workload, split.pp))
    local = LocalParameters.of(posed.model, plain)
    even, _ = fitting_mode(posed, workload, plain, constants, table, local)
    found = [(even, False)]
    chosen = best_cut(posed, even, constants, (stop or Stop()).scaled(0.1)) if recut else None
    if chosen is not None and chosen.split != even:
        found.append((chosen.split, True))
    return found


def _candidate(name: OrderName, posed: Scenario, split: Split, recut: bool, run: Run) -> Candidate:
    step = TrainingModel(posed, _training(posed), split, efficiency_of(posed)).step()
    other = step.step_s - step.pipeline.total_s
    schedule = _training(posed).schedule
    scored = step.pipeline.total_s if name == schedule else None
    return Candidate(name, schedule, split, recut, run, other, scored)


def _own(
    scenario: Scenario, split: Split, found: Sequence[Candidate], transfers: Transfers, stop: Stop | None, seed: int
) -> list[Candidate]:
    """Orders that are sought on the best cuts of one stage on a device, and of two."""
    made = []
    for homes in (side_by_side(split.pp), down_and_up(split.pp)):
        alike = [each for each in found if each.run.order.device_of_piece() == homes and not _twice(each)]
        pipes: dict[Pipe, list[Candidate]] = {}
        for each in alike:
            pipes.setdefault(each.run.pipe, []).append(each)
        if not alike:
            continue
        # The cut on which the published orders are fastest.
        pipe = min(pipes, key=lambda one: min((not c.run.fits, c.run.makespan_s) for c in pipes[one]))
        same = pipes[pipe]
        answer = best_order(
            ShopProblem(pipe, homes, split.microbatches, transfers), [each.run for each in same], stop, seed
        )
        if answer is not None and answer.source in ("list", "cpsat"):
            like = same[0]
            made.append(replace(like, name=answer.source, run=answer.run, scored_s=None, answer=answer))
    return made


def _twice(candidate: Candidate) -> bool:
    """Whether every stage lies on two devices."""
    return candidate.schedule == "dualpipe"
