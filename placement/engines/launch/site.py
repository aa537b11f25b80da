"""An instance as an engine is told it: degrees, limits and machines; and a role of a plan, all of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

from placement.cost.step.role_figures import at_batch
from placement.engines.expert_map import ExpertMap, ModelLayers
from placement.errors import InputError
from placement.problem.engine_rules import prefill_tokens, reserve_bytes
from placement.problem.split import Split
from placement.records.role import RolePlan
from specs.scenario import Scenario
from specs.speculation import Speculation
from specs.workload import ServingWorkload


class Instance(ABC):
    """What an engine is told of an instance, whoever says what its degrees are.

    Attributes:
        scenario: The scenario as the instance has it.
    """

    scenario: Scenario

    @property
    @abstractmethod
    def split(self) -> Split:
        """The split of an instance."""

    @property
    @abstractmethod
    def serves(self) -> str:
        """What it does: "aggregated", "prefill" or "decode"."""

    @property
    def drafts(self) -> Speculation | None:
        """What the engine is told to draft with; None: nothing. A look-up has nothing to do where prompts end."""
        told = self.workload.speculation
        return None if self.serves == "prefill" and told is not None and told.method == "ngram" else told

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Variables that name what is loaded."""
        return ("MODEL",) if self.drafts is None or self.drafts.parameters_b is None else ("MODEL", "DRAFT")

    @property
    def sharers(self) -> int:
        """Attention ranks that share a prompt (context parallelism)."""
        return 1

    @property
    def disaggregated(self) -> bool:
        """Whether other roles serve the other phase."""
        return self.serves in ("prefill", "decode")

    @property
    def workload(self) -> ServingWorkload:
        """The requests.

        Raises:
            InputError: The plan trains.
        """
        if self.scenario.workload.kind != "serving":
            raise InputError(
                self.scenario.name,
                "workload",
                "trains, and serving engines don't",
                "export a plan of a serving workload",
            )
        return self.scenario.workload

    @property
    def stage_gpus(self) -> int:
        """GPUs of a stage: SGLang's --tp-size and TensorRT-LLM's --tp_size."""
        return self.split.tp * self.split.dp

    @cached_property
    def nodes(self) -> int:
        """OS nodes of an instance: the fewest over which engines part stages and attention ranks evenly.

        Shares that fill an OS node, alone or several together, come first: others would leave GPUs over.
        """
        whole, most, pp = self.split.gpus_per_instance, self.scenario.cluster.os_node_gpus, self.split.pp

        def parts(nodes: int) -> bool:
            stages = pp % nodes == 0 or (nodes % pp == 0 and self.stage_gpus % (nodes // pp) == 0)
            rank, held = self.split.tp * pp, whole // nodes
            return stages and whole % nodes == 0 and (rank % held == 0 or held % rank == 0)

        fit = [nodes for nodes in range(-(-whole // most), whole + 1) if parts(nodes)]
        return next(nodes for nodes in fit if most % (whole // nodes) == 0)

    @property
    def node_gpus(self) -> int:
        """GPUs of an instance on each of its OS nodes."""
        return self.split.gpus_per_instance // self.nodes

    @property
    def memory_share(self) -> float:
        """Share of HBM that the engine may take: all but the reserve that was planned; to 3 digits, rounded down."""
        capacity = self.scenario.cluster.least_gpu.hbm_bytes
        return int((1 - reserve_bytes(self.scenario, self.split) / capacity) * 1000 + 1e-6) / 1000

    @property
    def context(self) -> int:
        """Longest sequence that was planned for."""
        return self.workload.isl + self.workload.osl

    @property
    def pass_tokens(self) -> int:
        """Most tokens of an attention rank in a pass: a prefill chunk, or a decode step where that has more."""
        step = self.split.batch * self.workload.step_tokens
        return max(int(prefill_tokens(self.scenario, self.workload, self.split.tp)), step)

    @property
    def spans_fast_nodes(self) -> bool:
        """Whether an instance's OS nodes share one fast-link domain, as the trays of an NVL72 rack do."""
        return self.nodes > 1 and self.scenario.cluster.os_node_gpus < self.scenario.cluster.gpus_per_node

    @property
    def rack_note(self) -> str:
        """What follows where a node of the engine and of NCCL is smaller than the fast-link domain; "" elsewhere."""
        if not self.spans_fast_nodes:
            return ""
        cluster = self.scenario.cluster
        return (
            f"A node of the engine and of NCCL is an OS node of {cluster.os_node_gpus} GPUs, not the NVLink domain of "
            f"{cluster.gpus_per_node}. NCCL finds NVLink between OS nodes by itself, if a working IMEX domain spans "
            "them and containers see `/dev/nvidia-caps-imex-channels`; otherwise it falls back to the network "
            "unnoticed. To make that an error, run nccl-tests once with `NCCL_MNNVL_ENABLE=1`, which NCCL's guide "
            "keeps for debugging."
        )

    @property
    def dispatch_buffer(self) -> int:
        """Tokens of a GPU that low-latency kernels must have room for in a decode step."""
        return -(-self.split.batch * self.workload.step_tokens // (self.split.tp * self.split.microbatches))


@dataclass(frozen=True)
class Site(Instance):
    """A role, ready to be launched.

    Attributes:
        role, scenario: The role, and the scenario as it has it.
        folder: Name of its folder. map_file: Name of its expert map there, "" where it has none.
        architecture: The model's class, "" where it is not known.
        prefill_stages: Most stages of instances that prefill, where other instances decode.
    """

    role: RolePlan
    scenario: Scenario
    folder: str
    map_file: str
    architecture: str = ""
    prefill_stages: int = 1

    @cached_property
    def split(self) -> Split:
        """The split of an instance, with the largest batch within the limits: arrivals vary, where few fill it."""
        split, largest = self.role.split.split(), self.role.largest_batch
        return split if largest is None else at_batch(split, largest)

    @property
    def serves(self) -> str:
        """See Instance."""
        return self.role.role

    @property
    def sharers(self) -> int:
        """See Instance."""
        return self.role.cp

    @property
    def redundant(self) -> int:
        """Redundant experts of a layer."""
        return self.role.slots_per_gpu * self.split.ep - self.scenario.model.moe.experts

    @property
    def map_path(self) -> str:
        """The map's path in a launch script."""
        return f"$HERE/{self.map_file}"

    @property
    def stage_layers(self) -> tuple[int, ...]:
        """Layers of each stage, as the model's own numbering counts them."""
        each = self.scenario.model.blocks_per_layer
        return tuple(stage.layers // each for stage in self.role.stages)


def map_of(role: RolePlan, scenario: Scenario) -> ExpertMap:
    """A role's expert placement as a map, whatever it serves."""
    rows = []
    for layer, width in zip(role.layers, role.widths(scenario), strict=True):
        held = layer.physical_to_logical
        rows.append(tuple(held[gpu * width : (gpu + 1) * width] for gpu in range(role.topology.gpus)))
    return ExpertMap(tuple(layer.layer for layer in role.layers), tuple(rows))


def layers_of(scenario: Scenario) -> ModelLayers:
    """How the scenario's model numbers its layers."""
    return ModelLayers.of(scenario.model)
