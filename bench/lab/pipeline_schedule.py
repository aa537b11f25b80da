"""Both sides of the lab's study of pipeline schedules."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from bench.lab.target import Attachment, Drawing, Figure, Finding, LabCase, Outcome, Table
from placement.cost.training.schedule.causes import causes_of, critical_path
from placement.cost.training.schedule.orders import ORDERS, OrderName
from placement.cost.training.schedule.simulate import Run, Transfers, simulate
from placement.engines.torch_schedule import order_csv
from placement.errors import InfeasibleError, MissingExtraError, ParameterError
from placement.planning.schedule import Candidate, ScheduleStudy, study_schedules, training_split
from placement.problem.split import Split, degrees_text
from placement.records.files import check_writable, write_text
from placement.report.schedule.chrome import chrome_trace
from placement.report.schedule.drawing import gantt_svg
from placement.report.schedule.gantt import gantt_text
from solvers.stop import Stop
from specs.scenario import Scenario

if TYPE_CHECKING:
    from bench.lab.targets.pipeline_schedule import Options

#: The baseline where no schedule is named, and what stands for it where it can't run or does not fit.
BASELINE: OrderName = "1f1b"
#: Most microbatches times stages: so many take one core 54 s for one schedule and 151 s for all, and 0.6 GB.
MOST_PASSES = 2**14
#: Work of CP-SAT over its default, by profile.
WORK = {"minimal": 0.5, "full": 4.0}
#: Steps within this share of each other are a tie.
TIE = 1e-4
#: Relative difference that sums of the same seconds in another order may have.
ROUNDING = 1e-9
#: How far the closed form of GPipe and 1F1B may be above a simulation: it is exact with equal ranks, and counts a
#: microbatch's whole way where a slow rank in the middle hides part of it.
CLOSED_FORM = 0.02


def baseline_outcome(case: LabCase[Options]) -> Outcome:
    """The schedule, or 1F1B, on even stages.

    Raises:
        InfeasibleError: it does not fit, nor does any other on even stages.
    """
    study = _study(case, search=False)
    chosen = _baseline(study, case.options.schedule)
    return _outcome(study, chosen, f"{_title(chosen)}, even stages", case)


def optimized_outcome(case: LabCase[Options]) -> Outcome:
    """The best schedule and cut of all, and what binds it; writes the files that were asked for.

    Raises:
        InfeasibleError: none fits. InputError: a file can't be written, or torch has no form for the order.
    """
    study = _study(case, search=True)
    best, base = study.best(), _baseline(study, case.options.schedule)
    stages = "stages cut for it" if best.recut else "even stages"
    outcome = _outcome(study, best, f"{_title(best)}, {stages}", case)
    making = {"csv": lambda: order_csv(best.run.order), "chrome_trace": lambda: chrome_trace(best.run)}
    # All are made before the first is written: not every order has a form in torch.
    texts = {name: (path, making[name]()) for name, path in _asked_files(case.options).items()}
    for name, (path, text) in texts.items():
        write_text(path, text, f"`{name}`")
    return Outcome(
        outcome.label,
        step_ms=outcome.step_ms,
        throughput=outcome.throughput,
        figures=outcome.figures,
        tables=(_candidates(study, best), *outcome.tables),
        drawings=outcome.drawings,
        notes=(*outcome.notes, *_gains(study, best)),
        attachments=(*outcome.attachments, *_files(best)),
        findings=outcome.findings,
        tie=_tie(study, base, best),
        production=_production(best),
    )


def _study(case: LabCase[Options], search: bool) -> ScheduleStudy:
    """The schedules of the scenario; with `search` also better cuts and orders."""
    options = case.options
    _check_files(options)
    posed, split = training_split(case.scenario, options.pp, options.microbatches)
    if split.pp * split.microbatches > MOST_PASSES:
        raise ParameterError(
            "microbatches", f"{split.microbatches} over {split.pp} stages are more passes than are simulated",
            f"give at most {MOST_PASSES // split.pp}",
        )  # fmt: skip
    return study_schedules(
        posed,
        split,
        ORDERS if options.schedule is None else (options.schedule,),
        _transfers(options),
        recut=search,
        own=search and options.schedule is None,
        stop=Stop(WORK[case.profile]),
        seed=case.planner.seed,
    )


def _asked_files(options: Options) -> dict[str, str]:
    """The files to write, by their options."""
    both = {"csv": options.csv, "chrome_trace": options.chrome_trace}
    return {name: path for name, path in both.items() if path is not None}


def _check_files(options: Options) -> None:
    """Finds out before long work whether the files can be written.

    Raises:
        ParameterError: one can't, or two are the same.
    """
    files = _asked_files(options)
    for name, path in files.items():
        check_writable(path, f"`{name}`")
    if len(files) > len({os.path.realpath(path) for path in files.values()}):
        raise ParameterError("csv", f"{options.csv} is the file of --chrome-trace, too", "name two files")


def _transfers(options: Options) -> Transfers:
    return "overlapped" if options.overlap else "blocking"


def _baseline(study: ScheduleStudy, schedule: OrderName | None) -> Candidate:
    """Even stages under the schedule; where it exceeds HBM, the next published one that fits."""
    first = study.even(schedule or BASELINE)
    if first is not None and first.run.fits:
        return first
    even = [each for each in study.candidates if not each.recut and each.answer is None and each.run.fits]
    if not even:
        study.best()
        raise InfeasibleError(f"{study.scenario.name}: no schedule fits HBM on even stages; name one with --schedule")
    return even[0]


def _title(candidate: Candidate) -> str:
    names = {"list": "list scheduling", "cpsat": "CP-SAT's order"}
    made = names.get(candidate.name, candidate.name)
    if candidate.answer is None:
        return made
    two = candidate.run.order.pieces > candidate.run.order.devices
    return f"{made} on {'two stages' if two else 'one stage'} a device"


def _outcome(study: ScheduleStudy, chosen: Candidate, label: str, case: LabCase[Options]) -> Outcome:
    run, workload = chosen.run, study.scenario.workload
    if workload.kind != "training":
        raise ValueError("schedules are of training")
    tokens = workload.global_batch * workload.sequence
    return Outcome(
        label,
        step_ms=chosen.step_s * 1e3,
        throughput=tokens / chosen.step_s,
        throughput_unit="trained tokens/s",
        figures=(
            Figure("pipeline", run.makespan_s, "s", "lower"),
            Figure("bubble", run.bubble_share * 100, "%", "lower"),
            Figure("peak memory", max(run.peak_bytes) / 1e9, "GB"),
        ),
        tables=(_devices(chosen), _causes(run)),
        drawings=(Drawing(f"{_title(chosen)} on {run.order.devices} devices", gantt_text(run)),),
        notes=(_setting(study, chosen, case), _bottleneck(study, chosen)),
        findings=tuple(_findings(chosen, case)),
    )


def _setting(study: ScheduleStudy, chosen: Candidate, case: LabCase[Options]) -> str:
    split = study.split
    way = "run beside the computation" if case.options.overlap else "block their devices, as the planner counts them"
    return (
        f"{degrees_text(split.tp, split.ep, split.pp, split.dp)}, {split.instances} instances, {split.microbatches} "
        f"microbatches, recompute {_recompute(chosen.split, study.scenario)}. Transfers between stages {way}."
    )


def _recompute(split: Split, scenario: Scenario) -> str:
    workload = scenario.workload
    if split.recompute is None:
        return workload.recompute if workload.kind == "training" else "none"
    counts = {mode: split.recompute.count(mode) for mode in ("none", "selective", "full")}
    return ", ".join(f"{mode} in {count} layers" for mode, count in counts.items() if count)


def _bottleneck(study: ScheduleStudy, chosen: Candidate) -> str:
    """What binds: memory, the slowest device, transfers, or filling and draining."""
    run = chosen.run
    over = [each for each in study.candidates if not each.run.fits and each.step_s < chosen.step_s * (1 - TIE)]
    if over:
        fastest = min(over, key=lambda each: each.step_s)
        device = max(range(run.order.devices), key=lambda d: fastest.run.peak_bytes[d])
        less = 1 - fastest.step_s / chosen.step_s
        return (
            f"Memory binds: {_title(fastest)} would take {fastest.step_s:.2f} s, {less:.1%} less, but "
            f"device {device} lacks {fastest.run.over_bytes / 1e9:.1f} GB."
        )
    causes, path = causes_of(run), critical_path(run)
    lost = {"filling": causes.filling_s, "uneven": causes.uneven_s, "transfers": causes.transfers_s}
    worst = max(lost, key=lambda name: lost[name])
    share = lost[worst] / run.makespan_s
    where = f"Device {path.device} has {path.device_s[path.device] / run.makespan_s:.0%} of the critical path."
    if share < TIE:
        return f"Nothing but the passes themselves binds. {where}"
    what = {
        "filling": "Filling and draining bind: the busiest device waits for other microbatches",
        "uneven": f"Uneven stages bind: device {_slowest(run)} works longest",
        "transfers": "Transfers between stages bind",
    }[worst]
    return f"{what} ({lost[worst]:.2f} s, {share:.1%} of the pipeline). {where}"


def _slowest(run: Run) -> int:
    return max(range(run.order.devices), key=lambda device: run.busy_s[device])


def _devices(chosen: Candidate) -> Table:
    """Busy time, bubble and memory by device."""
    run = chosen.run
    rows = []
    for device in range(run.order.devices):
        first = next(event.start_s for event in run.events[device])
        last = run.makespan_s - run.events[device][-1].end_s
        inside = run.idle_s[device] - first - last
        rows.append(
            (
                str(device), f"{run.busy_s[device]:.3f}", f"{first:.3f}", f"{inside:.3f}", f"{last:.3f}",
                f"{run.peak_bytes[device] / 1e9:.1f}",
            )
        )  # fmt: skip
    header = ("device", "busy, s", "idle before, s", "between, s", "after, s", "peak memory, GB")
    return Table(f"Devices of {_title(chosen)} (HBM {run.pipe.capacity_bytes / 1e9:.1f} GB)", header, tuple(rows))


def _causes(run: Run) -> Table:
    causes = causes_of(run)
    parts = (
        ("passes of the mean device", causes.work_s),
        ("uneven stages: the busiest device", causes.uneven_s),
        ("filling, draining and other waits", causes.filling_s),
        ("transfers between stages", causes.transfers_s),
        ("pipeline", run.makespan_s),
    )
    rows = tuple((name, f"{seconds:.3f}", f"{seconds / run.makespan_s:.1%}") for name, seconds in parts)
    return Table("Where the pipeline's time goes", ("part", "s", "of the pipeline"), rows)


def _candidates(study: ScheduleStudy, best: Candidate) -> Table:
    rows = []
    for each in study.candidates:
        over = each.run.over_bytes
        rows.append(
            (
                f"{_title(each)}{', recut' if each.recut else ''}", f"{each.step_s:.3f}",
                f"{each.run.makespan_s:.3f}", "-" if each.scored_s is None else f"{each.scored_s:.3f}",
                f"{each.run.bubble_share:.1%}", f"{max(each.run.peak_bytes) / 1e9:.1f}",
                "yes" if each.run.fits else f"lacks {over / 1e9:.1f} GB",
            )
        )  # fmt: skip
    header = ("schedule", "step, s", "pipeline, s", "closed form, s", "bubble", "peak, GB", "fits")
    marked = next(i for i, each in enumerate(study.candidates) if each is best)
    return Table("Schedules that were simulated", header, tuple(rows), marked)


def _gains(study: ScheduleStudy, best: Candidate) -> tuple[str, ...]:
    """What a better cut, transfers beside the computation and the missing schedules mean."""
    notes = []
    cuts = [
        (1 - recut.step_s / even.step_s, even.name)
        for recut in study.candidates
        if recut.recut and recut.answer is None
        for even in study.candidates
        if even.name == recut.name and not even.recut and recut.run.fits and even.run.fits
    ]
    gain, name = max(cuts, default=(0.0, ""))
    if gain > TIE:
        notes.append(f"A better cut into stages gains {gain:.1%} under {name}.")
    else:
        notes.append(
            "A better cut into stages gains nothing: the solver's cut of no schedule beats even stages that fit."
        )
    if best.run.transfers == "blocking":
        beside = simulate(best.run.order, best.run.pipe, "overlapped")
        less = 1 - beside.makespan_s / best.run.makespan_s
        if less > TIE:
            notes.append(f"Transfers beside the computation would make the pipeline {less:.1%} shorter (--overlap).")
        else:
            notes.append("Transfers beside the computation gain nothing: pairs hide them, or they bind nowhere.")
    if best.answer is not None:
        least = best.answer.bound_s
        said = (
            "CP-SAT calls the order optimal" if best.answer.optimal else f"no order there takes less than {least:.2f} s"
        )
        tried = "" if best.answer.tried else "; too many passes for CP-SAT"
        notes.append(f"On these stages {said} ({best.run.makespan_s:.2f} s{tried}).")
    notes += [f"{name} was not run: {problem}." for name, problem in study.missing]
    return tuple(notes)


def _tie(study: ScheduleStudy, base: Candidate, best: Candidate) -> str:
    if best.step_s < base.step_s * (1 - TIE):
        return ""
    faster = [each for each in study.candidates if each.step_s < base.step_s * (1 - TIE)]
    if faster:
        names = ", ".join(sorted({each.name for each in faster}))
        return f"Faster orders exceed HBM: {names}."
    return f"No order and no cut of those tried beats {base.name} on even stages."


def _findings(chosen: Candidate, case: LabCase[Options]) -> list[Finding]:
    """Checks of the simulation by what it does not use."""
    run = chosen.run
    if not run.order.pairs:
        least = sum(each.forward_s + each.input_s for each in run.pipe.passes)
    else:
        least = 0.0
    floor = max(least, max(run.busy_s))
    findings = [
        Finding(
            "makespan is at least the busiest device and one microbatch's way",
            run.makespan_s >= floor * (1 - ROUNDING), f"{run.makespan_s:.4f} s against {floor:.4f} s",
        ),
        Finding(
            "the fullest device is within HBM", run.fits,
            f"{max(run.peak_bytes) / 1e9:.2f} of {run.pipe.capacity_bytes / 1e9:.2f} GB",
        ),
    ]  # fmt: skip
    if chosen.scored_s is not None and chosen.name in ("gpipe", "1f1b") and not case.options.overlap:
        findings.append(
            Finding(
                f"the closed form is as long, or up to {CLOSED_FORM:.0%} longer",
                -ROUNDING <= chosen.scored_s / run.makespan_s - 1 <= CLOSED_FORM,
                f"{run.makespan_s:.6f} s simulated, {chosen.scored_s:.6f} s by the planner's formula",
            )
        )  # fmt: skip
    return findings


def _files(best: Candidate) -> tuple[Attachment, ...]:
    files = [Attachment("trace.json", "Trace for chrome://tracing or Perfetto", chrome_trace(best.run))]
    if best.schedule != "dualpipe":
        files.append(Attachment("order.csv", "The order as torch's CSV", order_csv(best.run.order)))
    # Without matplotlib the chart in text says the same.
    with suppress(MissingExtraError):
        files.append(Attachment("gantt.svg", "Gantt chart", gantt_svg(best.run)))
    return tuple(files)


def _production(best: Candidate) -> tuple[str, ...]:
    steps = []
    if best.schedule != "dualpipe":
        steps.append(
            "torchtitan: set pipeline_parallel_schedule_csv to order.csv (--csv FILE); torch adds the messages itself."
        )
    cut = best.split.cut
    if cut is not None:
        steps.append(f"Give the stages these layers, in the model's order: {', '.join(map(str, cut))}.")
    steps.append(
        "Record one step with torch.profiler and lay it beside trace.json: the first gap that differs is where to look."
    )
    steps.append("Change one knob and run again: --microbatches N, --pp N, --schedule NAME, --overlap.")
    return tuple(steps)
