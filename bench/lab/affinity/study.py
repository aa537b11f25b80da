"""Which paths expert traffic takes under a placement that does not know the network, and under one that does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from bench.lab.affinity.paths import RAIL, SAME, SPINE, Paths, matrix_svg, matrix_text
from bench.lab.grouping.study import WAYS, Grouped, Study, study
from bench.lab.render import shown
from bench.lab.target import Attachment, Drawing, Figure, LabCase, Outcome, Table
from placement.arithmetic import weighted_sum
from placement.cost.layer.dispatch import dispatch_shares
from placement.cost.layer.links import messages_per_token
from placement.cost.layer.messages import effective_rule
from placement.cost.layer.touch import touch
from placement.cost.pose import layer_problems
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from specs.overrides import overridden
from specs.topologies.derive import Given
from specs.topologies.reading import read_topology

#: GPUs of the picture at most, and of the picture of a plan that has all experts on one GPU.
MOST_DRAWN, LEAST_DRAWN = 72, 16
#: Windows that the groupings' tails are told over.
WINDOWS = 8


@dataclass(frozen=True)
class Affinity:
    """A case on its network: the groupings, the paths, and the notes of a topology file."""

    groupings: Study
    paths: Paths
    notes: tuple[str, ...]


def affinity(case: LabCase[object], topology: str, nodes: int) -> Affinity:
    """The study, on the machines of a topology file where one is given.

    Raises:
        InputError: The file can't be read. InfeasibleError: the model does not fit such machines.
    """
    paths, notes = Paths(case.scenario.cluster), ()
    if topology:
        reading = read_topology(topology, Given(nodes=nodes))
        scenario = overridden(case.scenario, set={"cluster": reading.cluster.model_dump(mode="json")})
        case = replace(case, scenario=scenario)
        notes = (*(f"Warning: {w}." for w in reading.warnings), *(f"Assumed: {a}." for a in reading.assumed))
        paths = Paths(reading.cluster, reading.machine)
    return Affinity(study(case, WINDOWS), paths, notes)


def gpu_bytes(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None) -> FloatArray:
    """[gpus, gpus] expected bytes that a GPU sends another in dispatch, and gets back in combine, of the mean pass.

    A rule that forwards sends a token once to each node, to the GPU of the sender's rank, which passes it on.
    """
    topology, rates = problem.topology, problem.hardware.rates
    shares = dispatch_shares(problem, np.asarray(slots, dtype=np.int64), fractions)
    to_gpu, to_node = messages_per_token(problem, touch(problem, shares))
    weight, tokens = problem.data.window_weight, problem.hardware.home_tokens[:, None]
    sent = tokens * weighted_sum(weight, to_gpu.transpose(1, 0, 2))[shares.class_of_gpu]
    if effective_rule(problem).forwards:
        nodes = tokens * weighted_sum(weight, to_node.transpose(1, 0, 2))[shares.class_of_gpu]
        sent = _forwarded(sent, nodes, topology.gpus_per_node)
    return np.asarray(sent * (rates.dispatch_bytes + rates.combine_bytes))


def _forwarded(sent: FloatArray, nodes: FloatArray, size: int) -> FloatArray:
    gpus = len(sent)
    made = np.zeros_like(sent)
    for g, d in product(range(gpus), range(gpus)):
        entry = d // size * size + g % size
        if g // size == d // size:
            made[g, d] += sent[g, d]
        elif entry != d:
            made[entry, d] += sent[g, d]
    for g, node in product(range(gpus), range(nodes.shape[1])):
        if node != g // size:
            made[g, node * size + g % size] += nodes[g, node]
    return made


def by_kind(case: LabCase[object], found: Affinity, way: Grouped) -> Mapping[str, float]:
    """Bytes a token and MoE layer on each kind of path, on the routing held out."""
    role, plan = found.groupings.role, found.groupings.plan
    scenario, split = plan.scenario_of(role), role.split.split()
    routing = case.planner.routing(plan.scenario.spec)
    problems = layer_problems(scenario, split, role.phase, routing.judged_on)
    total = sum(
        gpu_bytes(problem, slots, fractions)
        for problem, slots, fractions in zip(problems, way.placement.slots, way.placement.fractions, strict=True)
    )
    tokens = sum(float(problem.hardware.home_tokens.sum()) for problem in problems)
    mean = np.asarray(total) / tokens
    told: dict[str, float] = {}
    for i, j in product(range(len(mean)), range(len(mean))):
        kind = found.paths.between(i * split.etp, j * split.etp).kind
        told[kind] = told.get(kind, 0.0) + float(mean[i, j])
    return told


def outcome(case: LabCase[object], topology: str, nodes: int, aware: bool) -> Outcome:
    """One side: the hash, or the grouping that serves most."""
    found = affinity(case, topology, nodes)
    blind, best = found.groupings.ways[0], found.groupings.winner
    way = best if aware else blind
    taken = by_kind(case, found, way)
    figures = [Figure(f"bytes a token, {kind}", value, "B", _better(kind)) for kind, value in taken.items() if value]
    label = f"{'affinity-aware' if aware else 'affinity-blind'}: {WAYS[way.name]}"
    made = Outcome(label, way.step_ms, way.throughput, figures=tuple(figures))
    if not aware:
        return made
    role = found.groupings.role
    gpus = role.topology.gpus * role.split.etp
    drawn = min(MOST_DRAWN, found.paths.cluster.gpus, max(gpus, LEAST_DRAWN))
    table = _table(found, max(gpus, drawn), by_kind(case, found, blind), taken)
    told = found.groupings.best()
    file = f"placement topology read {topology} --nodes {nodes} > cluster.yaml" if topology else ""
    return replace(
        made, tables=(table,), notes=(*found.notes, *_live(found, taken)), tie=told.tie,
        drawings=(Drawing(f"Paths between GPUs 0 to {drawn - 1}", matrix_text(found.paths, drawn)),),
        attachments=(Attachment("paths.svg", "Paths between GPUs", matrix_svg(found.paths, drawn)),),
        production=(
            "nvidia-smi topo -m > topo.txt          # on one machine of yours",
            file or "placement topology read topo.txt --nodes 4 > cluster.yaml",
            f"placement solve --spec {case.scenario.name} --cluster cluster.yaml --out plan.json",
        ),
    )  # fmt: skip


def _better(kind: str) -> Literal["lower", ""]:
    return "lower" if kind in (RAIL, SPINE) else ""


def _table(found: Affinity, gpus: int, blind: Mapping[str, float], aware: Mapping[str, float]) -> Table:
    rows = []
    for kind, (path, pairs) in found.paths.kinds(min(gpus, MOST_DRAWN)).items():
        latency = "-" if kind == SAME else f"{path.latency_us:g}"
        cells = (f"{path.gb_per_s:,.0f}", latency, f"{pairs:,}")
        rows.append((kind, str(path.hops), *cells, *(shown(round(side.get(kind, 0.0))) for side in (blind, aware))))
    header = ("path", "hops", "GB/s", "latency us", "pairs", "B a token blind", "aware")
    return Table("Paths, and the bytes of an MoE layer on each", header, tuple(rows))


def _live(found: Affinity, taken: Mapping[str, float]) -> Iterator[str]:
    """Where experts should live, in sentences."""
    cluster, role = found.paths.cluster, found.groupings.role
    inside, across = cluster.fast.bytes_per_s, cluster.slow.bytes_per_s
    yield (
        f"A byte between nodes costs {inside / across:.0f} times one inside a node ({across / 1e9:.0f} against "
        f"{inside / 1e9:.0f} GB/s a GPU): experts that serve the same tokens belong on one node."
    )
    if cluster.gpus_per_tray > 1:
        yield f"{cluster.gpus_per_tray} GPUs of a tray share its NICs: what one does not send, another can."
    for level in cluster.inner:
        yield f"Inside a node, a {level.name} of {level.gpus} GPUs reaches {level.bytes_per_s / 1e9:.0f} GB/s."
    if role.topology.gpus <= role.topology.gpus_per_node:
        yield "The plan keeps every instance's experts inside one node: no expert traffic takes a NIC."
    elif taken.get(SPINE, 0) > taken.get(RAIL, 0):
        yield "Messages go from any GPU to any: a rule that forwards over the rail would spare the spine."
