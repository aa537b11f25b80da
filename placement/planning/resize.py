"""A running plan on another number of expert-parallel ranks: GPUs join empty, or leave with what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from placement.cost.layer.scenario_rates import topology_of
from placement.cost.layer.transfer import Transfer, transfer
from placement.cost.memory.hbm import memory_of
from placement.cost.step.role_figures import at_batch, predict_role
from placement.errors import InfeasibleError, ParameterError
from placement.planning.other_engine import as_run
from placement.problem.arrays import EMPTY, IntArray
from placement.problem.rates import LayerRates
from placement.problem.split import Split, make_split, stage_problem, tp_layout_problem
from placement.problem.topology import Topology
from placement.records.convert import own_placement, stage_records, topology_record
from placement.records.layout import HeldRecord, NodesRecord, SplitRecord
from placement.records.plan import Plan
from placement.records.role import RolePlan
from solvers.deploy.layout import pack
from solvers.deploy.problem import Pool
from specs.cluster import Cluster
from specs.scenario import Pins, Scenario

_ROLE_PINS = {"prefill": "prefill_pins", "decode": "decode_pins"}


@dataclass(frozen=True)
class Resized:
    """A plan the moment after its number of GPUs has changed, before any expert has moved.

    Attributes:
        plan, role: With the new split. GPUs that join hold nothing, and what was only on GPUs that left is nowhere. A
            number that fills no nodes leaves GPUs of the last node out: they stand in `failed_gpus`.
        topology: The old GPUs or the new, whichever are more. before: [layers][slots of it] what GPUs hold as it runs.
    """

    plan: Plan
    role: RolePlan
    topology: Topology
    before: tuple[IntArray, ...]

    def transfer(self, layer: int, slots: IntArray, width: int, expert_bytes: float, rates: LayerRates) -> Transfer:
        """What it takes to come to a placement [new slots] of a layer; GPUs that leave can still send."""
        wide = len(self.before[layer]) // self.topology.gpus
        after = _laid_out(slots, width, self.topology.gpus, wide)
        return transfer(self.topology, self.before[layer], after, wide, expert_bytes, rates)


def resize(plan: Plan, role: RolePlan, gpus: int) -> Resized:
    """The plan on another number of expert-parallel ranks: the first ones stay, and as many slots a GPU as before.

    Fewer GPUs get as many slots as the experts need. The batch of an attention rank becomes smaller where HBM or the
    objectives need it. The number of instances and all other degrees stay; the cluster gets more nodes where they are
    needed.

    Args:
        gpus: Expert-parallel ranks ("GPUs" of a layer) to be.

    Raises:
        ParameterError: The plan can't be that large. InputError: its engine does not load that.
        InfeasibleError: HBM has no room, or TTFT or TPOT are missed, at any batch.
    """
    old, running = role.split.split(), own_placement(role)
    if role.failed_gpus:
        raise ParameterError("to_gpus", "the plan has failed GPUs", "migrate it without them first")
    if gpus == old.ep or gpus < 1:
        raise ParameterError("to_gpus", f"{gpus} is no other number than the plan's {old.ep}", "give another number")
    scenario = plan.scenario_of(role)
    ranks = _ranks(scenario, old, gpus)
    experts = scenario.model.moe.experts
    extras, least = old.layer_redundant or (old.redundant,) * len(role.layers), -(-experts // gpus)
    each = tuple(max((experts + extra) // old.ep, least) for extra in extras)
    width = max(role.slots_per_gpu, least, *_means(each, role.stages_of_layers))
    dp, redundant = ranks * old.etp // old.tp, ranks * width - experts
    uneven = None if set(each) == {width} else tuple(ranks * own - experts for own in each)
    cluster = _with_room(plan, role, ranks * old.etp * old.pp)
    spec = _changed(plan, role, ranks, dp, redundant, cluster)
    moved = plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"spec": spec})})
    own_cluster = None if role.cluster is None else cluster
    after = spec.of_role(role.role, own_cluster)
    made = make_split(after, old.tp, ranks, old.pp, dp, old.batch, redundant, old.instances)
    split = _fitted(after, role, replace(made, cut=old.cut, recompute=old.recompute, layer_redundant=uneven))
    wide = role.model_copy(
        update={
            "split": SplitRecord.of(split),
            "posed_batch": min(role.posed_batch, split.batch),
            "binds": (),
            "largest_batch": None,
            "cluster": own_cluster,
            "slots_per_gpu": width,
        }
    )
    before, now = role.widths(scenario), wide.widths(after)
    rows = [_laid_out(slots, w, ranks, n) for slots, w, n in zip(running.slots, before, now, strict=True)]
    grown = as_run(
        wide.model_copy(
            update={
                "stages": stage_records(after, split),
                "topology": topology_record(after, split),
                "failed_gpus": tuple(range(gpus, ranks)),
                "layers": tuple(
                    layer.model_copy(update={"physical_to_logical": tuple(row.tolist()), "dispatch_fractions": None})
                    for layer, row in zip(role.layers, rows, strict=True)
                ),
            }
        ),
        after,
        plan.scenario.name,
    )
    larger = max(topology_of(scenario, old), topology_of(after, split), key=lambda each: each.gpus)
    held = tuple(
        _laid_out(slots, w, larger.gpus, max(w, n)) for slots, w, n in zip(running.slots, before, now, strict=True)
    )
    pool = {"cluster": own_cluster}
    roles = tuple(
        grown if each is role else each.model_copy(update=pool) if each.cluster == role.cluster else each
        for each in plan.roles
    )
    nodes = _nodes(moved, [each.gpus // each.split.instances for each in roles]) or ()
    return Resized(moved.model_copy(update={"roles": roles, "nodes": nodes}), grown, larger, held)


def _means(widths: Sequence[int], stages: Sequence[int]) -> tuple[int, ...]:
    """The mean of each stage's widths, rounded up."""
    of = [[width for width, its in zip(widths, stages, strict=True) if its == stage] for stage in sorted(set(stages))]
    return tuple(-(-sum(own) // len(own)) for own in of)


def _laid_out(slots: IntArray, width: int, gpus: int, wide: int) -> IntArray:
    """[gpus x wide] a placement of `width` slots a GPU on more or fewer GPUs, each with `wide` slots."""
    out = np.full((gpus, wide), EMPTY, dtype=np.int64)
    rows = np.asarray(slots).reshape(-1, width)[:gpus]
    out[: len(rows), :width] = rows
    return out.reshape(-1)


def _fitted(scenario: Scenario, role: RolePlan, split: Split) -> Split:
    """The split with the largest batch that fits HBM and, with balanced routing, the objectives."""
    free = scenario.pins.batch is None and scenario.workload.kind == "serving"
    least = 1 if free else split.batch
    problem = _misfit(scenario, role, at_batch(split, least) if free else split)
    if problem:
        raise InfeasibleError(f"on {split.ep} GPUs, with {least} sequences per attention rank, {problem}")
    if not free:
        return split
    low, high = least, split.batch + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _misfit(scenario, role, at_batch(split, middle)) else (middle, high)
    return at_batch(split, low)


def _misfit(scenario: Scenario, role: RolePlan, split: Split) -> str:
    """Why a split can't serve; "" where it can."""
    memory, workload = memory_of(scenario, split), scenario.workload
    if not memory.fits:
        return f"{-memory.headroom_bytes / 1e9:.3g} GB of HBM are lacking"
    if workload.kind != "serving":
        return ""
    made = predict_role(scenario, role.role, split, cp=role.cp)
    for name, seconds, limit_ms in (("TTFT", made.ttft_s, workload.ttft_ms), ("TPOT", made.tpot_s, workload.tpot_ms)):
        if seconds is not None and seconds * 1e3 > limit_ms:
            return f"{name} is {seconds * 1e3:.4g} ms, over {limit_ms:g} ms"
    return ""


def _ranks(scenario: Scenario, old: Split, gpus: int) -> int:
    """The least number of ranks, at least `gpus`, that attention and the nodes can be split over."""
    node = max(scenario.cluster.gpus_per_node, old.tp)
    for ranks in range(gpus, gpus + node + 1):
        stage = ranks * old.etp
        if stage % old.tp == 0 and not stage_problem(scenario.cluster, stage, old.pp):
            return ranks
    problem = tp_layout_problem(scenario.cluster, old.tp) or f"tp {old.tp} and the nodes take no {gpus} ranks or more"
    raise ParameterError("to_gpus", problem, "plan it anew")


def _with_room(plan: Plan, role: RolePlan, gpus: int) -> Cluster:
    """The role's cluster, with more nodes if it has too few for all instances on it, the role's of `gpus` GPUs each."""
    cluster = plan.scenario_of(role).cluster
    sizes = [gpus if each is role else each.gpus // each.split.instances for each in plan.roles]
    mine = [(size, each) for size, each in zip(sizes, plan.roles, strict=True) if each.cluster == role.cluster]
    least = -(-sum(size * each.split.instances for size, each in mine) // cluster.gpus_per_node)
    nodes = max(cluster.nodes, least)
    if len(plan.roles) > 1:
        while _nodes(plan, sizes, {cluster.name: nodes}) is None:
            nodes += 1
    return cluster.model_copy(update={"nodes": nodes})


def _nodes(plan: Plan, sizes: Sequence[int], nodes: Mapping[str, int] | None = None) -> tuple[NodesRecord, ...] | None:
    """What nodes hold of instances of these sizes; None where they hold not all. Of one kind they lie in order.

    Args:
        sizes: [roles] GPUs of an instance.
        nodes: Of a cluster, by its name, where they are not those of the plan.
    """
    if len(plan.roles) == 1:
        return ()
    clusters = {
        each.name: each for each in (plan.scenario.spec.cluster, *(plan.scenario_of(r).cluster for r in plan.roles))
    }
    names = list(clusters)
    pools = [Pool(name, (nodes or {}).get(name, c.nodes), c.gpus_per_node, 0.0) for name, c in clusters.items()]
    kinds = [
        (names.index(plan.scenario_of(role).cluster.name), size, role.split.instances)
        for role, size in zip(plan.roles, sizes, strict=True)
    ]
    packed = pack(pools, kinds)
    if packed is None:
        return None
    return tuple(
        NodesRecord(
            pool=names[group.pool], nodes=group.nodes,
            holds=tuple(HeldRecord(instance=i, gpus=gpus, count=n) for i, gpus, n in group.held),
        )
        for group in packed
    )  # fmt: skip


def _changed(plan: Plan, role: RolePlan, ranks: int, dp: int, redundant: int, cluster: Cluster) -> Scenario:
    """The plan's scenario, with what it pins changed to the new numbers."""
    spec = plan.scenario.spec
    field = _ROLE_PINS.get(role.role, "pins")
    pinned: Pins = spec.of_role(role.role).pins
    changed = {name: to for name, to in (("ep", ranks), ("dp", dp)) if getattr(pinned, name) is not None}
    update: dict[str, object] = {field: getattr(spec, field).model_copy(update=changed)}
    if spec.redundant != "auto":
        update["redundant"] = redundant if len(plan.roles) == 1 else "auto"
    if role.cluster is None:
        update["cluster"] = cluster
    return spec.model_copy(update=update)
