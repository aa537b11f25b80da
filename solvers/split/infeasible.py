"""Says why no split is feasible: the memory line and the smallest cluster that fits, or the objective missed."""

from __future__ import annotations

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.memory.hbm import MemoryModel, MemoryReport
from placement.errors import InfeasibleError
from placement.problem.split import Split
from solvers.split.build import first_split
from solvers.split.degrees import Degrees, list_candidates
from solvers.stages.choose import cut_fits
from specs.fields import MAX_GPUS
from specs.scenario import Pins, Scenario

#: The search for a larger cluster ends here.
MAX_NODES = 4096


def hbm_error(
    scenario: Scenario, pins: Pins, redundant: int | None, split: Split, report: MemoryReport, efficiency: Efficiency
) -> InfeasibleError:
    """The error for a scenario that fits no GPU; `split` and `report` are of the candidate that came closest."""
    line = report.largest
    need = smallest_nodes(scenario, pins, redundant, efficiency)
    gpu = scenario.cluster.least_gpu.name
    if scenario.degrees == "usual" and _fits(_with_any_degrees(scenario), pins, redundant, efficiency):
        hint = "a split of degrees that nobody runs fits: take degrees any"
    elif need is None:
        hint = f"no larger cluster of {gpu} fits it either" + (": unpin a degree" if _pinned(pins) else "")
    else:
        gpus = need * scenario.cluster.gpus_per_node
        hint = f"the smallest cluster of {gpu} that fits it has {gpus} GPUs ({need} x {scenario.cluster.gpus_per_node})"
    return InfeasibleError(
        f"{scenario.name}: HBM is exceeded by {_gb(-report.headroom_bytes)} GB per GPU at best (tp {split.tp}, "
        f"ep {split.ep}, pp {split.pp}, dp {split.dp}, batch {split.batch}: {_gb(report.total_bytes)} of "
        f"{_gb(report.capacity_bytes)} GB); the line that breaks it is {line.name}, {_gb(line.bytes)} GB; {hint}"
    )


def slo_error(
    scenario: Scenario, ttft_s: float, tpot_s: float, best_ttft_s: float, best_tpot_s: float, joint_s: float
) -> InfeasibleError:
    """The error for a scenario that fits HBM but meets no service-level objective.

    Args:
        ttft_s, tpot_s: the objectives; best_ttft_s, best_tpot_s: the best of any split that fits, each on its own.
        joint_s: the best TPOT of a split that meets the TTFT (infinite where there is none).
    """
    if best_ttft_s > ttft_s:
        name, limit, best = "TTFT", ttft_s, best_ttft_s
    elif best_tpot_s > tpot_s:
        name, limit, best = "TPOT", tpot_s, best_tpot_s
    else:
        name, limit, best = "TPOT (with TTFT met)", tpot_s, joint_s
    return InfeasibleError(
        f"{scenario.name}: no split meets {name} {limit * 1e3:.4g} ms; the best reachable is {best * 1e3:.4g} ms, "
        f"{_percent(best / limit - 1)} over, as priced before experts are placed"
    )


def smallest_nodes(scenario: Scenario, pins: Pins, redundant: int | None, efficiency: Efficiency) -> int | None:
    """The fewest nodes of the scenario's kind that fit one sequence (or one training step); None where none does.

    Exact up to the sizes where candidates are thinned (64 nodes); beyond, the fewest among the splits that are tried.
    """
    low = scenario.cluster.nodes
    most = min(MAX_NODES, MAX_GPUS // scenario.cluster.gpus_per_node)
    high = low
    while True:
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
        if _fits(_with_nodes(scenario, high), pins, redundant, efficiency):
            break
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(_with_nodes(scenario, middle), pins, redundant, efficiency):
            high = middle
        else:
            low = middle
    return high


def _with_any_degrees(scenario: Scenario) -> Scenario:
    return scenario.model_copy(update={"degrees": "any"})


def _with_nodes(scenario: Scenario, nodes: int) -> Scenario:
    return scenario.model_copy(update={"cluster": scenario.cluster.model_copy(update={"nodes": nodes})})


def _fits(scenario: Scenario, pins: Pins, redundant: int | None, efficiency: Efficiency) -> bool:
    """Whether some split fits. Of each stage size only the deepest pipelines are tried, which store least per GPU."""
    deepest: dict[tuple[int, int, int], Degrees] = {}
    for degrees in list_candidates(scenario, pins, redundant).degrees:
        key = (degrees.tp, degrees.dp, degrees.ep)
        if key not in deepest or deepest[key].pp < degrees.pp:
            deepest[key] = degrees
    return any(fits(scenario, degrees, pins.batch, efficiency) for degrees in deepest.values())


def fits(scenario: Scenario, degrees: Degrees, batch: int | None, efficiency: Efficiency) -> bool:
    """Whether some cut of a candidate fits HBM with that batch; None: one sequence of each attention rank."""
    split = first_split(scenario, degrees, batch)
    if split is None:
        return False
    return MemoryModel(scenario, split, efficiency).report().fits or cut_fits(scenario, split, efficiency)


def _pinned(pins: Pins) -> bool:
    return any(value is not None for value in pins.model_dump().values())


def _percent(share: float) -> str:
    """A share in percent to three digits, in plain figures."""
    percent = share * 100
    return f"{percent:,.0f}%" if percent >= 1000 else f"{percent:.3g}%"


def _gb(size: float) -> str:
    """GB to one decimal, or to three digits below 10."""
    gb = size / 1e9
    return f"{gb:.1f}" if gb >= 10 else f"{gb:.3g}"
