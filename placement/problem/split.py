"""The split: how a model's instances are laid out over the GPUs of a cluster.

An instance has `pp` stages; a stage has `dp` attention data-parallel ranks of `tp` GPUs each. The experts of a stage's
MoE layers are spread over `ep` expert-parallel ranks of `etp = tp * dp / ep` GPUs each. Stages are packed one after the
other, and a stage divides a node or fills whole nodes, so none straddles a node's edge. Or it fills whole OS nodes of a
larger node (16 of the 72 GPUs of a rack): all of its instance then lies in one node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement.errors import InputError
from placement.problem.schedule import piece_count, schedule_problem
from specs.blocks.run import Block
from specs.cluster import Cluster
from specs.fields import DataType, bytes_of
from specs.model import Model
from specs.parameters import expert_type
from specs.scenario import Scenario
from specs.workload import Recompute

#: Bytes of an element that is not quantized.
WIDE_BYTES = 2


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        tp, ep, pp, dp: degrees within one instance; etp: GPUs that share one expert-parallel rank's experts.
        batch: sequences of one attention rank: concurrent ones in serving, those of one step in training.
        instances: copies of the instance that run side by side.
        redundant: physical experts of a layer beyond one copy each; where layers share them, what each has to share.
        slots_per_gpu: physical experts of a layer per expert-parallel rank, with `redundant` of them.
        microbatches: of an attention rank, in flight in decode (min(pp, batch)) or in a training step.
        cut: layers of each contiguous piece of the model (placement.problem.schedule); None cuts evenly.
        recompute: what each layer computes again in training; None takes the workload's for all ("auto": full).
        layer_redundant: [MoE layers] redundant experts of each; None: all have `redundant`.
    """

    tp: int
    ep: int
    pp: int
    dp: int
    batch: int
    instances: int
    redundant: int
    slots_per_gpu: int
    etp: int = 1
    microbatches: int = 1
    cut: tuple[int, ...] | None = None
    recompute: tuple[Recompute, ...] | None = None
    layer_redundant: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("tp", "ep", "pp", "dp", "batch", "instances", "slots_per_gpu", "etp", "microbatches"):
            if getattr(self, name) < 1:
                raise InputError("split", name, f"{getattr(self, name)} is not positive", "give at least 1")
        if self.redundant < 0:
            raise InputError("split", "redundant", f"{self.redundant} is negative", "give 0 or more")
        if self.ep * self.etp != self.tp * self.dp:
            raise InputError(
                "split", "ep", f"ep x etp = {self.ep} x {self.etp} is not tp x dp = {self.tp} x {self.dp}",
                "make both products alike",
            )  # fmt: skip
        if self.cut is not None and min(self.cut, default=0) < 1:
            raise InputError("split", "cut", "a piece has no layer", "give every piece at least 1")
        if any(extra < 0 or (extra - self.redundant) % self.ep for extra in self.layer_redundant or ()):
            raise InputError(
                "split", "layer_redundant", f"a layer's differ from {self.redundant} by no multiple of ep {self.ep}",
                "give every GPU as many slots of a layer as the others",
            )  # fmt: skip

    @property
    def gpus_per_stage(self) -> int:
        return self.tp * self.dp

    @property
    def gpus_per_instance(self) -> int:
        return self.tp * self.dp * self.pp

    @property
    def gpus(self) -> int:
        """GPUs that work; the rest of the cluster is left over."""
        return self.gpus_per_instance * self.instances

    @property
    def slots(self) -> int:
        """Physical experts of one MoE layer, the one with the most."""
        return self.ep * self.slots_per_gpu + max(self.layer_redundant or (self.redundant,)) - self.redundant

    def widths(self, model: Model) -> tuple[int, ...]:
        """[MoE layers] slots of an expert-parallel rank in each."""
        each = self.layer_redundant or (self.redundant,) * len(model.moes)
        return tuple(slots_of(moe.experts, extra, self.ep) for moe, extra in zip(model.moes, each, strict=True))

    def width_of(self, model: Model, block: Block) -> int:
        """Slots of a rank in layers of a kind that has experts: their mean, rounded up, where they differ."""
        if self.layer_redundant is None:
            return slots_of((model.moe_of(block) or model.moe).experts, self.redundant, self.ep)
        pairs = zip(model.moe_blocks, self.widths(model), strict=True)
        own = [width for i, width in pairs if model.layout[i] == block]
        return -(-sum(own) // len(own))


def degrees_text(tp: int, ep: int, pp: int, dp: int, cp: int = 1) -> str:
    """The degrees that are not 1, for people, such as "EP4 DP4"; "TP1" where all are."""
    named = (("TP", tp), ("EP", ep), ("PP", pp), ("DP", dp), ("CP", cp))
    return " ".join(f"{name}{degree}" for name, degree in named if degree > 1) or "TP1"


def sharing_degrees(cluster: Cluster, tp: int, dp: int) -> list[int]:
    """Numbers of attention ranks that can share a prompt: 1, and divisors of dp whose GPUs lie in one node."""
    return [cp for cp in range(1, dp + 1) if dp % cp == 0 and (cp == 1 or tp * cp <= cluster.gpus_per_node)]


def tp_problem(model: Model, tp: int) -> str:
    """Why attention or feed-forward blocks can't be split over `tp` GPUs; "" where they can."""
    for mixer in model.mixers.values():
        if problem := mixer.tp_problem(tp):
            return problem
    types = model.types
    for ffn in model.ffns.values():
        stored = types.dense if ffn.kind == "dense" or types.shared is None else types.shared
        stored = ffn.types.get("ffn" if ffn.kind == "dense" else "shared", stored)
        what = "a dense block" if ffn.kind == "dense" else "the shared experts"
        problem = ffn.tp_problem(tp) or block_problem(model, stored, f"tp {tp}", ffn.inner_width // tp, what)
        if problem:
            return problem
    return ""


def block_problem(model: Model, stored: DataType, degree: str, width: int, what: str) -> str:
    """Why no engine loads a GPU's share of a quantized width; "" where it does.

    Weights that are quantized in blocks have one scale a block, so that a share is whole blocks (vLLM 0.33,
    `validate_fp8_block_shape`; SGLang 0.5.23, `Fp8LinearMethod.create_weights`).
    """
    block = model.types.block
    if bytes_of(stored) >= WIDE_BYTES or width % block == 0:
        return ""
    return f"{degree} gives a GPU {width} columns of {what}, which no engine loads: scales are of {block}-wide blocks"


def tp_layout_problem(cluster: Cluster, tp: int) -> str:
    """Why a TP group can't lie on the nodes; "" where it can."""
    m = cluster.gpus_per_node
    if m % tp == 0 or tp % m == 0 or _fills_os_nodes(cluster, tp):
        return ""
    return f"tp {tp} neither divides a node of {m} GPUs nor fills whole nodes"


def stage_problem(cluster: Cluster, gpus_per_stage: int, pp: int = 1) -> str:
    """Why `pp` stages of that many GPUs can't lie on the nodes; "" where they can."""
    m = cluster.gpus_per_node
    if m % gpus_per_stage == 0 or gpus_per_stage % m == 0:
        return ""
    if not _fills_os_nodes(cluster, gpus_per_stage):
        return f"tp x dp = {gpus_per_stage} neither divides a node of {m} GPUs nor fills whole nodes"
    if gpus_per_stage * pp > m:
        return f"{pp} stages of tp x dp = {gpus_per_stage} GPUs, which don't divide a node of {m}, do not lie in one"
    return ""


def _fills_os_nodes(cluster: Cluster, gpus: int) -> bool:
    """Whether so many GPUs are whole OS nodes in a part of a node."""
    return gpus < cluster.gpus_per_node and gpus % cluster.os_node_gpus == 0


def gpus_filled(cluster: Cluster, gpus_per_stage: int, pp: int) -> int:
    """GPUs of a node that instances alike can fill: all, unless stages do not divide it."""
    m, size = cluster.gpus_per_node, gpus_per_stage * pp
    return m if m % gpus_per_stage == 0 or size > m else m // size * size


def ep_problem(model: Model, cluster: Cluster, gpus_per_stage: int, ep: int) -> str:
    """Why the experts of a stage can't be spread over `ep` ranks; "" where they can."""
    if gpus_per_stage % ep:
        return f"ep {ep} does not divide tp x dp = {gpus_per_stage}"
    etp = gpus_per_stage // ep
    for block in model.kinds:
        moe = model.moe_of(block)
        if moe is None:
            continue
        if moe.expert_width % etp:
            return f"etp = tp x dp / ep = {etp} does not divide expert_width {moe.expert_width}"
        degree, stored = f"etp = tp x dp / ep = {etp}", expert_type(model, block)
        if problem := block_problem(model, stored, degree, moe.expert_width // etp, "an expert"):
            return problem
    if gpus_per_stage > cluster.gpus_per_node:
        m, tray = cluster.gpus_per_node, cluster.gpus_per_tray
        if m % etp:
            return f"etp = tp x dp / ep = {etp} does not divide a node of {m} GPUs"
        if tray % etp and etp % tray:
            return f"etp = tp x dp / ep = {etp} does not fit trays of {tray} GPUs"
    return ""


def slots_of(experts: int, redundant: int, ep: int) -> int:
    """Slots of an expert-parallel rank in a layer of so many experts: its own, and its share of the redundant ones."""
    return -(-(experts + redundant) // ep)


def least_redundant(experts: int, ep: int) -> int:
    """The smallest number of redundant experts that spreads evenly over `ep` ranks."""
    return -experts % ep


def layer_redundant_problem(model: Model, ep: int, layer_redundant: Sequence[int] | None) -> str:
    """Why layers can't have these redundant experts on `ep` ranks; "" where they can, or all have the same."""
    if layer_redundant is None:
        return ""
    if len(layer_redundant) != len(model.moes):
        return f"layer_redundant is of {len(layer_redundant)} layers, the model has {len(model.moes)} MoE layers"
    problems = (redundant_problem(model, ep, extra) for extra in dict.fromkeys(layer_redundant))
    return next(filter(None, problems), "")


def redundant_problem(model: Model, ep: int, redundant: int) -> str:
    """Why that many redundant experts can't be placed on `ep` ranks; "" where they can."""
    experts = model.moe.experts
    if (experts + redundant) % ep:
        return f"{experts} experts + {redundant} redundant do not divide over ep {ep}"
    if redundant > _most_redundant(model, ep):
        return f"{redundant} redundant experts over ep {ep} put two copies of an expert on one GPU"
    return ""


def _most_redundant(model: Model, ep: int) -> int:
    """The most that give no rank two copies of an expert, in the layer of the fewest experts either."""
    most = min(moe.experts for moe in model.moe_kinds) * (ep - 1)
    return most - (model.moe.experts + most) % ep


def nearest_redundant(model: Model, ep: int, redundant: int) -> tuple[int, ...]:
    """The valid counts of redundant experts next to `redundant` on `ep` ranks, below and above, ascending."""
    experts = model.moe.experts
    least, most = least_redundant(experts, ep), _most_redundant(model, ep)
    below = min(redundant - (experts + redundant) % ep, most)
    return tuple(sorted({min(max(value, least), most) for value in (below, below + ep)}))


def instances_that_fit(cluster: Cluster, gpus_per_stage: int, pp: int) -> int:
    """How many instances fill the cluster; stages never straddle a node, so it is plain division."""
    return cluster.nodes * gpus_filled(cluster, gpus_per_stage, pp) // (gpus_per_stage * pp)


def cut_problem(
    scenario: Scenario, pp: int, cut: tuple[int, ...] | None, recompute: tuple[Recompute, ...] | None
) -> str:
    """Why a cut or recompute choice of `pp` ranks does not fit the model and the schedule; "" where it does."""
    layers, pieces = scenario.model.layers, piece_count(scenario.workload, pp)
    if cut is not None and len(cut) != pieces:
        return f"cut has {len(cut)} pieces, the schedule {pieces}"
    if cut is not None and sum(cut) != layers:
        return f"cut holds {sum(cut)} layers, the model has {layers}"
    each = scenario.model.blocks_per_layer
    if cut is not None and any(size % each for size in cut):
        return f"cut parts layers of {each} blocks"
    if recompute is not None and (scenario.workload.kind == "serving" or len(recompute) != layers):
        return f"recompute is given for {len(recompute)} layers; training has it for all {layers} or none"
    return ""


def make_split(
    scenario: Scenario,
    tp: int,
    ep: int,
    pp: int,
    dp: int,
    batch: int,
    redundant: int | None = None,
    instances: int | None = None,
) -> Split:
    """A split of checked degrees.

    Args:
        redundant: redundant experts; None takes the scenario's, and "auto" there the smallest count that divides.
        instances: copies of the instance; None fills the cluster.

    Raises:
        InputError: a degree that does not divide what it splits, or that the cluster has no room for.
    """
    model, cluster, workload = scenario.model, scenario.cluster, scenario.workload
    for field, problem in (
        ("tp", tp_problem(model, tp) or tp_layout_problem(cluster, tp)),
        ("dp", stage_problem(cluster, tp * dp, pp)),
        ("ep", ep_problem(model, cluster, tp * dp, ep)),
        ("pp", f"pp {pp} is more than the model's {model.whole_layers} layers" if pp > model.whole_layers else ""),
    ):
        if problem:
            raise InputError(scenario.name, field, problem, f"choose another {field}")
    if redundant is None:
        redundant = least_redundant(model.moe.experts, ep) if scenario.redundant == "auto" else scenario.redundant
    problem = redundant_problem(model, ep, redundant)
    if problem:
        near = " or ".join(map(str, nearest_redundant(model, ep, redundant)))
        raise InputError(scenario.name, "redundant", problem, f"use {near} redundant experts")
    room = instances_that_fit(cluster, tp * dp, pp)
    if instances is None:
        instances = room
    if instances > room or room < 1:
        need = tp * dp * pp * max(instances, 1)
        raise InputError(
            scenario.name, "pp", f"tp x dp x pp x instances needs {need} of {cluster.gpus} GPUs", "lower a degree"
        )
    microbatches = min(pp, batch) if workload.kind == "serving" else max(1, batch // workload.microbatch)
    problem = schedule_problem(model, workload, pp, microbatches)
    if problem:
        raise InputError(scenario.name, "schedule", problem, "choose another pp, batch or schedule")
    return Split(
        tp, ep, pp, dp, batch, instances, redundant, (model.moe.experts + redundant) // ep, tp * dp // ep, microbatches
    )
