"""Another planner's answers beside ours, on its own cases: aiconfigurator 0.12."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement.cost.step.roles import Role, aggregated_point, kv_bytes_per_request
from placement.cost.step.throughput import ServingModel
from placement.problem.split import degrees_text, make_split
from solvers.deploy.columns import list_columns, pool_of
from solvers.deploy.problem import Column, MasterProblem
from solvers.deploy.solve import solve_master
from specs.fields import DataType
from specs.loading import load_cluster, load_model
from specs.model import Model
from specs.scenario import Scenario
from specs.workload import ServingWorkload


@dataclass(frozen=True)
class Case:
    """One case with the rival's answer.

    Attributes:
        dp, ep, batch: of its instances, per attention rank. per_gpu: its tokens/s per GPU. seconds: it took.
    """

    name: str
    model: str
    cluster: str
    gpus: int
    dp: int
    ep: int
    batch: int
    per_gpu: float
    seconds: float | None
    types: tuple[tuple[str, DataType], ...] = ()


#: ISL 4,000, OSL 1,000, TTFT 2 s, TPOT 30 ms.
CASES = (
    Case(
        "gpt-oss-120b on 32 GB200", "gpt_oss_120b", "gb200_nvl72_ib", 32, 2, 2, 320, 11_222.0, 23.0,
        (("compute", "fp8"), ("kv_cache", "fp8")),
    ),
    Case("DeepSeek-R1 on 32 H200", "deepseek_r1", "h200_hgx_ib", 32, 16, 16, 9, 280.0, None, (("kv_cache", "fp8"),)),
)  # fmt: skip


@dataclass(frozen=True)
class Ours:
    """Our answer: columns in use with their counts."""

    name: str
    tokens_per_s: float
    kinds: tuple[tuple[Column, int], ...]


@dataclass(frozen=True)
class Compared:
    """A case: the rival's claim, its split in our cost model, and our answers with their tokens/s per GPU."""

    case: Case
    its_split_here: float
    its_tpot_ms: float
    its_ttft_ms: float
    ours: tuple[Ours, ...]


def scenario_of(case: Case) -> Scenario:
    """The case as a scenario: whole nodes, or the part of a rack that it names."""
    cluster = load_cluster(case.cluster)
    nodes, rest = divmod(case.gpus, cluster.gpus_per_node)
    if rest:
        cluster = cluster.model_copy(update={"nodes": 1, "gpus_per_node": case.gpus, "gpus_per_os_node": None})
    else:
        cluster = cluster.model_copy(update={"nodes": nodes})
    model: Model = load_model(case.model)
    model = model.model_copy(update={"types": model.types.model_copy(update=dict(case.types))})
    workload = ServingWorkload(kind="serving", name="4000_1000", isl=4000, osl=1000, ttft_ms=2000.0, tpot_ms=30.0)
    return Scenario(name=case.name, model=model, cluster=cluster, workload=workload)


def compare(case: Case) -> Compared:
    """Our cost model's view of the rival's answer, and our own answers."""
    scenario = scenario_of(case)
    workload = scenario.workload
    if workload.kind != "serving":
        raise TypeError("the cases serve")
    split = make_split(scenario, 1, case.ep, 1, case.dp, case.batch, instances=1)
    point = aggregated_point(ServingModel(scenario, workload, split), case.batch)
    ours = (
        _solved(scenario, "aggregated", ("aggregated",)),
        _solved(scenario, "mixed", ("aggregated", "prefill", "decode")),
    )
    return Compared(
        case, point.requests_per_s * workload.osl / case.dp, (point.tpot_s or 0.0) * 1e3, (point.ttft_s or 0.0) * 1e3,
        ours,
    )  # fmt: skip


def _solved(scenario: Scenario, name: str, roles: Sequence[Role]) -> Ours:
    """The best deployment over all columns of some roles, experts taken as balanced."""
    columns = list_columns([scenario], roles, scenario.pins, None).columns
    found = solve_master(MasterProblem((pool_of(scenario),), columns, kv_bytes_per_request(scenario)))
    kinds = tuple((c, n) for c, n in zip(columns, found.counts, strict=True) if n)
    osl = scenario.workload.osl if scenario.workload.kind == "serving" else 0
    return Ours(name, found.requests_per_s * osl, kinds)


def told(kinds: Sequence[tuple[Column, int]]) -> str:
    """Columns in words."""
    words = []
    for column, count in kinds:
        s = column.split
        degrees = degrees_text(s.tp, s.ep, s.pp, s.dp)
        batch = "" if column.role == "prefill" else f" batch {s.batch}"
        words.append(f"{count} {column.role} {degrees}{batch}")
    return "; ".join(words)
