"""An instance that is served without a plan: degrees as asked for, the rest filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from placement.cost.memory.hbm import memory_of
from placement.cost.step.role_figures import predict_role
from placement.cost.step.throughput import Prediction
from placement.engines.launch.site import Instance
from placement.engines.presets.deepep import box_problem
from placement.engines.presets.fabric import fabrics, on_fabric
from placement.engines.settings.catalog import EngineName, Fabric
from placement.errors import InfeasibleError, InputError, ParameterError
from placement.problem.engine_rules import Layout, load_problem, most_sequences, usual_size
from placement.problem.split import (
    Split,
    ep_problem,
    instances_that_fit,
    least_redundant,
    redundant_problem,
    slots_of,
    stage_problem,
    tp_layout_problem,
    tp_problem,
)
from placement.records.role import RoleName, RolePlan
from specs.cluster import Cluster
from specs.loading import load_engine
from specs.scenario import Pins, Scenario

#: Names of devices with commas between them. None begins as an option does: they stand in commands.
_NAMES = re.compile(r"(?:\w[\w.:-]*)(?:,\w[\w.:-]*)*", re.ASCII)


@dataclass(frozen=True)
class Asked:
    """What is asked for; what is None is filled in.

    Attributes:
        model: What the engine loads; "" leaves it to a variable.
        tp, pp, ep, dp: Degrees.
        max_seqs: Sequences of an attention rank. max_len: Tokens of the longest sequence.
        gpu_util: Share of HBM that the engine may take.
        backend: The all-to-all backend; "" for the best.
        role: "aggregated", "prefill" or "decode".
        redundant: Redundant experts of a layer.
        hca: Names of the NICs of an OS node, with commas. interface: The network interface that all nodes share.
        service_level, traffic_class: What the network keeps for such traffic.
    """

    model: str = ""
    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    dp: int | None = None
    max_seqs: int | None = None
    max_len: int | None = None
    gpu_util: float | None = None
    backend: str = ""
    role: RoleName = "aggregated"
    redundant: int | None = None
    hca: str = ""
    interface: str = ""
    service_level: int | None = None
    traffic_class: int | None = None

    def __post_init__(self) -> None:
        for name in ("hca", "interface"):
            value = getattr(self, name)
            if value and not _NAMES.fullmatch(value):
                raise ParameterError(name, f"{value!r} is no list of names", "give names with commas between them")

    def of_role(self, role: RolePlan) -> Asked:
        """The degrees, batch and redundant experts of a plan's role, which must be none that trains."""
        split = role.split
        return replace(
            self, tp=split.tp, pp=split.pp, ep=split.ep, dp=split.dp, max_seqs=role.largest_batch or split.batch,
            role=role.role, redundant=split.redundant,
        )  # fmt: skip


@dataclass(frozen=True)
class Served(Instance):
    """An instance on a fabric.

    Attributes:
        scenario: With its engine, backend and cluster. degrees: Its split.
        engine: Its engine. fabric: Where the experts' messages go. asked: What was asked for.
    """

    scenario: Scenario
    degrees: Split
    engine: EngineName
    fabric: Fabric
    asked: Asked

    @property
    def split(self) -> Split:
        """See Instance."""
        return self.degrees

    @property
    def serves(self) -> str:
        """See Instance."""
        return self.asked.role

    @property
    def context(self) -> int:
        """Longest sequence that is served."""
        return self.asked.max_len or self.workload.isl + self.workload.osl

    @property
    def backend(self) -> str:
        """The all-to-all backend in use."""
        return self.scenario.engine.backend

    def predicted(self) -> Prediction:
        """Step and tokens/s of all instances that fill the cluster, experts balanced."""
        return predict_role(self.scenario, self.asked.role, self.degrees)

    def with_backend(self, backend: str) -> Served:
        """The same degrees and batch under another backend."""
        engine = self.scenario.engine.model_copy(update={"backend": backend})
        return replace(self, scenario=self.scenario.model_copy(update={"engine": engine}))


def serve(scenario: Scenario, engine: EngineName, fabric: Fabric, asked: Asked | None = None) -> Served:
    """The instance that is asked for, under the backend of the most tokens/s among those that run on the fabric.

    Without degrees it is the smallest that uses the fabric and fits: attention TP 1, one stage, experts over all GPUs.
    `nvlink` takes a whole OS node. A backend without CUDA graphs is chosen for prefill alone.

    Args:
        scenario: Model, cluster and workload.
        engine: Its engine.
        fabric: Where the experts' messages go.
        asked: What is fixed.

    Raises:
        ParameterError: A degree, batch or backend that can't be. InfeasibleError: Nothing of it fits in HBM.
        InputError: The workload trains, or GPUs are not NVIDIA's.
    """
    asked = asked or Asked()
    base = on_fabric(scenario, fabric)
    if base.cluster.gpu.generation in _OTHERS:
        raise InputError(
            base.cluster.name, "gpu", f"{base.cluster.gpu.name} is not NVIDIA's, whose libraries presets are about",
            "name a cluster of NVIDIA GPUs",
        )  # fmt: skip
    base = base.model_copy(
        update={
            "engine": load_engine(engine), "pins": Pins(), "prefill_pins": Pins(), "decode_pins": Pins(),
            "dispatch": None, "message_rule": None, "overlap": None, "redundant": "auto",
        }
    )  # fmt: skip
    if asked.gpu_util is not None:
        if not 0.1 <= asked.gpu_util <= 1:
            raise ParameterError("gpu_util", f"{asked.gpu_util:g} is no share of HBM", "give 0.1 to 1")
        least = base.cluster.least_gpu.hbm_gib
        base = base.model_copy(update={"reserve_gib": (1 - asked.gpu_util) * least})
    able = fabrics()[fabric].backends[engine]
    if asked.backend and asked.backend not in able:
        raise ParameterError("backend", f"{asked.backend!r} does not run on {fabric}", f"choose {', '.join(able)}")
    tried = [asked.backend] if asked.backend else [each for each in able if not graphless(each, asked.role)]
    # The first is the engine's default, which takes any degrees: the others serve the same instance.
    first = _fitting(Served(base, _ONE, engine, fabric, asked).with_backend(tried[0]))
    served = [first, *_others(first, tried[1:])]
    return max(served, key=lambda each: each.predicted().tokens_per_s)


#: Generations of GPUs that NCCL, NVSHMEM and DeepEP don't run on.
_OTHERS = ("ascend_910b", "ascend_910c", "cdna3", "cdna4", "gaudi3")
#: SGLang's dispatchers refuse larger buffers (token_dispatcher/deepep.py).
_SGLANG_TOKENS = 1024
#: Backends with which vLLM turns CUDA graphs off (config/compilation.py): they are chosen for prefill alone.
_GRAPHLESS = ("deepep_high_throughput",)
_ONE = Split(1, 1, 1, 1, batch=1, instances=1, redundant=0, slots_per_gpu=1)


def graphless(backend: str, role: str) -> bool:
    """Whether decode steps lose their CUDA graphs under a backend, which predictions leave out."""
    return role != "prefill" and backend in _GRAPHLESS


def default_backend(served: Served) -> Served:
    """The same instance under the engine's own default backend."""
    return served.with_backend(fabrics()[served.fabric].backends[served.engine][0])


def _others(first: Served, backends: list[str]) -> Iterator[Served]:
    """The same instance under other backends, where the engine loads it and its batch goes into their buffers."""
    for backend in backends:
        other = first.with_backend(backend)
        if not _problem(other) and memory_of(other.scenario, other.split).fits:
            yield other


def _problem(served: Served) -> str:
    """Why the engine does not run an instance; "" where it does."""
    scenario, split = served.scenario, served.split
    return (
        tp_problem(scenario.model, split.tp)
        or tp_layout_problem(scenario.cluster, split.tp)
        or _stage_problem(scenario.cluster, split.gpus_per_stage)
        or ep_problem(scenario.model, scenario.cluster, split.gpus_per_stage, split.ep)
        or redundant_problem(scenario.model, split.ep, split.redundant)
        or load_problem(scenario, Layout.of(scenario, split), served.serves)
        or ("" if served.fabric == "nvl72" else _box_problem(served))
        or _batch_problem(served)
    )


def _stage_problem(cluster: Cluster, gpus: int) -> str:
    """Why a stage can't lie on the nodes. Inside one any size can: what it leaves over is not used."""
    return "" if gpus <= cluster.gpus_per_node else stage_problem(cluster, gpus)


def _instances(cluster: Cluster, stage: int, pp: int) -> int:
    """Instances that fill the cluster, at least one."""
    if stage > cluster.gpus_per_node:
        return max(1, instances_that_fit(cluster, stage, pp))
    return max(1, cluster.nodes * (cluster.gpus_per_node // stage) // pp)


def _batch_problem(served: Served) -> str:
    """Why buffers don't take the batch. A batch that is asked for raises vLLM's, and SGLang's to 1024 tokens a GPU."""
    split, asked = served.split, served.asked.max_seqs
    most = most_sequences(served.scenario, split.tp, split.pp)
    if asked is None:
        return "" if most is None or split.batch <= most else f"batch {split.batch} is more than {most}"
    buffered = served.engine == "sglang" and served.scenario.engine.in_use.decode_tokens is not None
    if buffered and served.dispatch_buffer > _SGLANG_TOKENS:
        return f"max_seqs {split.batch} is {served.dispatch_buffer} tokens of a GPU, more than {_SGLANG_TOKENS}"
    return ""


def _box_problem(served: Served) -> str:
    return box_problem(served.backend, served.split.gpus_per_stage, served.scenario.cluster.os_node_gpus)


def _fitting(one: Served) -> Served:
    """The instance that is asked for, or the smallest that fits.

    Raises:
        ParameterError, InfeasibleError: See `serve`.
    """
    asked, shortest = one.asked, ""
    fixed = any(getattr(asked, name) is not None for name in ("tp", "pp", "ep", "dp"))
    for degrees in [_given(one)] if fixed else _growing(one):
        served = replace(one, degrees=degrees)
        if problem := _problem(served) or _crosses(served):
            if fixed:
                raise ParameterError("dp", problem, "choose other tp, pp, ep and dp, or leave them out")
            continue
        most = _largest_batch(served)
        if most is None:
            report = memory_of(served.scenario, served.split)
            short = f"{degrees.gpus_per_instance} GPUs lack {-report.headroom_bytes / 1e9:.1f} GB of HBM each"
            shortest = f"{short}; most is taken by {report.largest.name}"
            continue
        batch = asked.max_seqs or most
        if problem := _batch_problem(replace(served, degrees=_at(degrees, batch))):
            raise ParameterError("max_seqs", problem, "ask for fewer")
        if batch > most:
            raise InfeasibleError(f"{batch} sequences of an attention rank don't fit in HBM; at most {most} do")
        return replace(served, degrees=_at(degrees, batch))
    raise InfeasibleError(
        f"no instance of {one.scenario.model.name} fits on {one.fabric} of {one.scenario.cluster.name}: "
        + (shortest or "no degrees lie on its nodes")
    )


def _at(degrees: Split, batch: int) -> Split:
    return replace(degrees, batch=batch, microbatches=min(degrees.pp, batch))


def _largest_batch(served: Served) -> int | None:
    """Sequences of an attention rank: the workload's decode batch, or what of it HBM and the engine take."""
    scenario, split = served.scenario, served.split
    most = most_sequences(scenario, split.tp, split.pp) or 1024
    high = served.asked.max_seqs or served.workload.decode_tokens_per_gpu * split.tp
    low = 0
    high = min(high, most) if served.asked.max_seqs is None else high
    while low < high:
        middle = (low + high + 1) // 2
        if memory_of(scenario, _at(split, middle)).fits:
            low = middle
        else:
            high = middle - 1
    return low or None


def _crosses(served: Served) -> str:
    """Why an instance does not use the fabric; "" where it does."""
    cluster, gpus, fabric = served.scenario.cluster, served.split.gpus_per_instance, served.fabric
    if fabric == "nvlink" and gpus > cluster.os_node_gpus:
        return f"{gpus} GPUs are more than the {cluster.os_node_gpus} of an OS node, which nvlink reaches"
    if fabric == "nvl72" and gpus > cluster.gpus_per_node:
        return f"{gpus} GPUs are more than the {cluster.gpus_per_node} of an NVLink domain, which nvl72 reaches"
    return ""


def _split(one: Served, tp: int, pp: int, ep: int, dp: int) -> Split:
    experts, cluster = one.scenario.model.moe.experts, one.scenario.cluster
    redundant = least_redundant(experts, ep) if one.asked.redundant is None else one.asked.redundant
    return Split(
        tp, ep, pp, dp, batch=1, instances=_instances(cluster, tp * dp, pp), redundant=redundant,
        slots_per_gpu=slots_of(experts, redundant, ep), etp=tp * dp // ep,
    )  # fmt: skip


def _given(one: Served) -> Split:
    """The degrees that are asked for; those that are not follow: one stage, experts over all GPUs."""
    asked = one.asked
    for each in fields(asked):
        value = getattr(asked, each.name)
        if each.name in ("tp", "pp", "ep", "dp") and value is not None and value < 1:
            raise ParameterError(each.name, f"{value} is not positive", "give at least 1")
    tp, pp = asked.tp or 1, asked.pp or 1
    dp = asked.dp or max(1, (asked.ep or 1) // tp)
    ep = asked.ep or tp * dp
    if tp * dp % ep:
        raise ParameterError("ep", f"{ep} does not divide tp x dp = {tp * dp}", f"give 1 or {tp * dp}")
    if tp * pp * dp > one.scenario.cluster.gpus:
        held = one.scenario.cluster.gpus
        raise ParameterError("dp", f"tp x pp x dp = {tp * pp * dp} is more than {held} GPUs", "give less")
    if pp > one.scenario.model.whole_layers:
        raise ParameterError("pp", f"{pp} is more than the model's layers", "give less")
    return _split(one, tp, pp, ep, dp)


def _growing(one: Served) -> Iterator[Split]:
    """Instances that use the fabric, the smallest first; of `nvlink` a whole OS node first."""
    cluster = one.scenario.cluster
    node, domain = cluster.os_node_gpus, cluster.gpus_per_node
    least, most = {"nvlink": (node, node), "nvl72": (node + 1, domain)}.get(one.fabric, (domain + 1, cluster.gpus))
    for gpus in range(least, most + 1):
        if usual_size(gpus) and not _stage_problem(cluster, gpus):
            yield _split(one, 1, 1, gpus, gpus)
