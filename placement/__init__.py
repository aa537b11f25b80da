"""Plans how a mixture-of-experts model is laid out on GPUs, and certifies how good the plan is.

    from placement import load_scenario, plan_scenario
    plan = plan_scenario(load_scenario("deepseek_v2_lite_h100_ib"))

Names are loaded when they are first used: importing the package takes milliseconds. docs/api.md describes them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from placement.kernel_cache import find_kernel_cache

if TYPE_CHECKING:
    from placement.check.plan import Check, verify_plan
    from placement.errors import (
        CheckFailedError,
        InfeasibleError,
        InputError,
        MissingExtraError,
        NothingFoundError,
        ParameterError,
        PlacementError,
    )
    from placement.planning.case import load_scenario
    from placement.planning.compare import compare_strategies
    from placement.planning.demand import plan_for_demand
    from placement.planning.deploy import plan_deployment, plan_front
    from placement.planning.effort import Budget
    from placement.planning.evaluate import evaluate_plan
    from placement.planning.export import Exported, check_export, export_plan
    from placement.planning.migrate import migrate_plan
    from placement.planning.progress import Progress
    from placement.planning.report import Report, compare_plans, report_plan
    from placement.planning.solve import plan_scenario
    from placement.planning.trace import convert_recording, trace_statistics
    from placement.records.evaluation import Evaluation
    from placement.records.front import Front
    from placement.records.migration import Migration
    from placement.records.plan import Plan, load_plan
    from placement.report.comparison import Comparison
    from placement.routing.holdout import load_trace
    from placement.routing.reader import example_trace
    from placement.routing.trace import LoadCounts, Trace
    from solvers.params import SearchParams
    from specs.loading import load_cluster, load_engine, load_model, load_workload
    from specs.scenario import Scenario

__version__ = "0.1.0"

# Before numba compiles anything.
find_kernel_cache()

_WHERE = {
    "placement.check.plan": ("Check", "verify_plan"),
    "placement.errors": (
        "CheckFailedError", "InfeasibleError", "InputError", "MissingExtraError", "NothingFoundError", "ParameterError",
        "PlacementError",
    ),
    "placement.planning.case": ("load_scenario",),
    "placement.planning.compare": ("compare_strategies",),
    "placement.planning.demand": ("plan_for_demand",),
    "placement.planning.deploy": ("plan_deployment", "plan_front"),
    "placement.planning.effort": ("Budget",),
    "placement.planning.evaluate": ("evaluate_plan",),
    "placement.planning.export": ("Exported", "check_export", "export_plan"),
    "placement.planning.migrate": ("migrate_plan",),
    "placement.planning.progress": ("Progress",),
    "placement.planning.report": ("Report", "compare_plans", "report_plan"),
    "placement.planning.solve": ("plan_scenario",),
    "placement.planning.trace": ("convert_recording", "trace_statistics"),
    "placement.records.evaluation": ("Evaluation",),
    "placement.records.front": ("Front",),
    "placement.records.migration": ("Migration",),
    "placement.records.plan": ("Plan", "load_plan"),
    "placement.report.comparison": ("Comparison",),
    "placement.routing.holdout": ("load_trace",),
    "placement.routing.reader": ("example_trace",),
    "placement.routing.trace": ("LoadCounts", "Trace"),
    "solvers.params": ("SearchParams",),
    "specs.loading": ("load_cluster", "load_engine", "load_model", "load_workload"),
    "specs.scenario": ("Scenario",),
}  # fmt: skip
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Budget", "Check", "CheckFailedError", "Comparison", "Evaluation", "Exported", "Front", "InfeasibleError",
    "InputError", "LoadCounts", "Migration", "MissingExtraError", "NothingFoundError", "ParameterError",
    "PlacementError", "Plan", "Progress", "Report", "Scenario", "SearchParams", "Trace", "check_export",
    "compare_plans", "compare_strategies", "convert_recording", "evaluate_plan", "example_trace", "export_plan",
    "load_cluster", "load_engine", "load_model", "load_plan", "load_scenario", "load_trace", "load_workload",
    "migrate_plan", "plan_deployment", "plan_for_demand", "plan_front", "plan_scenario", "report_plan",
    "trace_statistics", "verify_plan",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'placement' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
