"""One cluster over two fabrics: experts by a hash on the first, solved on both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.lab.render import shown
from bench.lab.studies import best_names, missed, role_name, step_ms, throughput
from bench.lab.target import Figure, LabCase, Outcome, Table
from placement.records.plan import Plan
from specs.loading import load_cluster
from specs.scenario import Scenario

FABRICS = {"ib": "gb200_nvl72_ib", "ethernet": "gb200_nvl72_ethernet"}


def over(scenario: Scenario, fabric: str) -> Scenario:
    """The scenario with its nodes joined as the catalog's racks are over a fabric."""
    slow = load_cluster(FABRICS[fabric]).slow
    if scenario.cluster.slow == slow:
        return scenario
    return scenario.model_copy(update={"cluster": scenario.cluster.model_copy(update={"slow": slow})})


def hashed(case: LabCase[Any], fabric: str) -> Outcome:
    """The plan's instances with experts by a hash."""
    plan = case.plan(over(case.scenario, fabric))
    return _told(plan, ("hash",) * len(plan.roles), f"hash placement over {fabric}")


def solved(case: LabCase[Any], fabric: str) -> Outcome:
    """The plan, and the same over the other fabric."""
    plans = {name: case.plan(over(case.scenario, name)) for name in FABRICS}
    plan = plans[fabric]
    names = best_names(plan)
    made = _told(plan, names, f"{' + '.join(dict.fromkeys(names))} placement over {fabric}")
    rows = tuple(
        (
            name, shown(round(throughput(each, best_names(each)))),
            shown(each.predicted.ttft_ms.value if each.predicted.ttft_ms else None),
            shown(each.predicted.tpot_ms.value if each.predicted.tpot_ms else None),
            f"{each.scenario.spec.cluster.slow.bytes_per_s / 1e9:.0f}",
        )
        for name, each in plans.items()
    )  # fmt: skip
    table = Table("The cluster over each fabric", ("fabric", "tokens/s", "TTFT ms", "TPOT ms", "GB/s a GPU"), rows)
    notes = [*(f"over {name}: {_kinds(each)}" for name, each in plans.items()), *missed(plan)]
    if all(role.topology.gpus <= role.topology.gpus_per_node for each in plans.values() for role in each.roles):
        notes.append("No instance spans racks: between racks go the KV caches of prompts alone.")
    return replace(
        made, tables=(table,), notes=tuple(notes), tie=_tie(plan),
        production=(
            "cp docs/examples/custom_cluster.yaml mine.yaml      # and change what is not yours",
            "placement specs show mine.yaml && placement solve --spec mine.yaml --out plan.json",
            "placement export plan.json --to vllm --out deploy",
        ),
    )  # fmt: skip


def _tie(plan: Plan) -> str:
    stakes = [role.stake or 0.0 for role in plan.roles]
    return f"placement counts for little: at most {max(stakes):.0%} of the tokens/s hang on the MoE layers' time"


def _kinds(plan: Plan) -> str:
    return " + ".join(f"{role.split.instances} {role_name(role)}" for role in plan.roles)


def _told(plan: Plan, names: tuple[str, ...], label: str) -> Outcome:
    rate = throughput(plan, names)
    per_gpu = Figure("tokens/s a GPU", rate / plan.scenario.spec.cluster.gpus, "", "higher")
    return Outcome(label, step_ms(plan, names), rate, figures=(per_gpu,))
