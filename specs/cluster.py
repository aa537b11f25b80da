"""A cluster: GPUs on trays and nodes, the levels inside a node, and their links.

GB is 1e9 bytes and GiB is 2**30 bytes; bandwidths are per direction. Properties without a unit suffix in the file
give SI units: bytes, bytes/s, FLOP/s, seconds.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from specs.fields import (
    MAX_GPUS,
    DataType,
    Degree,
    Name,
    Positive,
    Share,
    Spec,
    Text,
)


class Gpu(Spec):
    """One accelerator: capacity, and dense (not sparse) peak rates."""

    name: Name
    """What it is called on screens."""
    generation: Name | None = None
    """Architecture, such as hopper; tells which measurements calibrate the cost model."""
    hbm_gib: Positive
    """Memory that can be allocated."""
    hbm_gb_per_s: Positive
    """Nominal bandwidth of the memory."""
    peak_tflops: dict[DataType, Positive]
    """Dense peak rate by data type; bf16 or fp16 is needed."""
    source: Text = ""
    """Where the figures are from."""

    @property
    def hbm_bytes(self) -> float:
        return self.hbm_gib * 2**30

    @property
    def hbm_bytes_per_s(self) -> float:
        return self.hbm_gb_per_s * 1e9

    def peak_flops(self, data_type: DataType) -> float:
        """Dense FLOP/s in `data_type`; a type the chip has no unit for runs in the next wider one it has."""
        wider: dict[DataType, tuple[DataType, ...]] = {
            "mxfp4": ("mxfp4", "nvfp4", "fp8", "bf16"),
            "nvfp4": ("nvfp4", "mxfp4", "fp8", "bf16"),
            "int4": ("int4", "int8", "bf16"),
            "int4_g32": ("int4", "int8", "bf16"),
            "int4_g128": ("int4", "int8", "bf16"),
            "mxfp8": ("fp8", "bf16"),
            "fp8": ("fp8", "bf16"),
            "int8": ("int8", "bf16"),
            "fp16": ("fp16", "bf16"),
            "bf16": ("bf16", "fp16"),
            "fp32": ("fp32",),
        }
        for candidate in wider[data_type]:
            if candidate in self.peak_tflops:
                return self.peak_tflops[candidate] * 1e12
        raise ValueError(f"{self.name} states no peak rate for {data_type} or a wider type")

    @model_validator(mode="after")
    def _has_a_wide_type(self) -> Gpu:
        if not {"bf16", "fp16"} & set(self.peak_tflops):
            raise ValueError("peak_tflops needs bf16 or fp16; add one")
        return self


class Link(Spec):
    """One level's links, as one GPU sees them in one direction."""

    gb_per_s: Positive
    """Nominal bandwidth of one GPU in one direction."""
    latency_us: Positive
    """Time of a small message."""
    efficiency: Share = 1.0
    """Achieved share of the nominal bandwidth for large messages."""
    source: Text = ""
    """Where the figures are from."""

    @property
    def bytes_per_s(self) -> float:
        """Achieved bytes/s per GPU and direction."""
        return self.gb_per_s * 1e9 * self.efficiency

    @property
    def latency_s(self) -> float:
        return self.latency_us * 1e-6


class InnerLevel(Link):
    """GPUs of a node that reach each other faster than the rest of it: an NVLink pair, a PCIe switch, a CPU socket."""

    name: Name
    """What it is called."""
    gpus: Degree
    """Consecutive GPUs of one such group; the node consists of whole groups."""


class OtherNodes(Spec):
    """Nodes with GPUs of another kind than the cluster's first."""

    nodes: Degree
    """How many."""
    gpu: Gpu
    """Their accelerator."""


class Cluster(Spec):
    """GPU -> (inner levels) -> node (one fast-link domain) -> cluster; a tray is GPUs that share NICs."""

    name: Name
    """What it is called on screens and in plans."""
    summary: Text = ""
    """One line about it."""
    gpu: Gpu
    """Its accelerator."""
    nodes: Degree
    """Fast-link domains (HGX boxes, or NVL72 racks), those of other_nodes counted in."""
    gpus_per_node: Degree
    """GPUs of a fast-link domain."""
    gpus_per_os_node: Degree | None = None
    """GPUs that one operating system sees, where that is less than a node (4 of the 72 in an NVL72 rack)."""
    gpus_per_tray: Degree = 1
    """GPUs that share their NICs: a NIC group carries gpus_per_tray times the per-GPU rate of `slow`."""
    inner: Annotated[tuple[InnerLevel, ...], Field(max_length=8)] = ()
    """Levels inside a node, innermost first, each at least as fast as the next; `fast` links the outermost's groups."""
    other_nodes: Annotated[tuple[OtherNodes, ...], Field(max_length=64)] = ()
    """The last nodes, where their GPUs are not `gpu`, in their order."""
    fast: Link
    """Links inside a node, such as NVLink."""
    slow: Link
    """Links between nodes, such as InfiniBand."""

    @model_validator(mode="after")
    def _sizes_divide(self) -> Cluster:
        for name, size in (("gpus_per_tray", self.gpus_per_tray), ("gpus_per_os_node", self.os_node_gpus)):
            if self.gpus_per_node % size:
                raise ValueError(
                    f"gpus_per_node {self.gpus_per_node} is not a multiple of {name} {size}; change one of them"
                )
        if self.gpus > MAX_GPUS:
            raise ValueError(f"nodes x gpus_per_node is {self.gpus} GPUs; at most {MAX_GPUS} are planned")
        others = sum(each.nodes for each in self.other_nodes)
        if others >= self.nodes:
            raise ValueError(f"other_nodes are {others} of {self.nodes} nodes; at least the first node has `gpu`")
        return self

    @model_validator(mode="after")
    def _levels_nest(self) -> Cluster:
        outer: tuple[tuple[str, int, Link], ...] = (
            *((f"inner level {level.name}", level.gpus, level) for level in self.inner),
            ("the node", self.gpus_per_node, self.fast),
        )
        for (name, size, link), (wider, whole, beyond) in pairwise(outer):
            if size == whole or whole % size:
                raise ValueError(f"{name} has {size} GPUs, which is no part of {wider}'s {whole}; change one of them")
            if link.bytes_per_s < beyond.bytes_per_s:
                raise ValueError(
                    f"{name} reaches {link.bytes_per_s / 1e9:g} GB/s, less than the {beyond.bytes_per_s / 1e9:g} of "
                    f"{wider}; leave the level out"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Levels, OS nodes and other nodes only where there are any: most clusters, and older plans, have none."""
        data: dict[str, Any] = handler(self)
        for name in ("gpus_per_os_node", "inner", "other_nodes"):
            if not data.get(name):
                data.pop(name, None)
        return data

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def os_node_gpus(self) -> int:
        """GPUs that one operating system sees."""
        return self.gpus_per_os_node or self.gpus_per_node

    def inside(self, gpus: int) -> Link:
        """The narrowest link that any group of `gpus` consecutive GPUs crosses, such a group lying in one node."""
        return next((level for level in self.inner if level.gpus % gpus == 0), self.fast)

    def kind_of_node(self, node: int) -> Gpu:
        """The GPUs of a node."""
        left = self.nodes
        for each in reversed(self.other_nodes):
            left -= each.nodes
            if node >= left:
                return each.gpu
        return self.gpu

    @property
    def least_gpu(self) -> Gpu:
        """What every GPU of the cluster has at least: `gpu` where all are alike."""
        kinds = [self.gpu]
        kinds += [other.gpu for other in self.other_nodes if other.gpu != self.gpu]
        if len(kinds) == 1:
            return self.gpu
        generations = {kind.generation for kind in kinds}
        types: set[DataType] = set.intersection(*(set(kind.peak_tflops) for kind in kinds)) | {"bf16"}
        return Gpu(
            name=" + ".join(dict.fromkeys(kind.name for kind in kinds))[:200],
            generation=generations.pop() if len(generations) == 1 else None,
            hbm_gib=min(kind.hbm_gib for kind in kinds),
            hbm_gb_per_s=min(kind.hbm_gb_per_s for kind in kinds),
            peak_tflops={name: min(kind.peak_flops(name) for kind in kinds) / 1e12 for name in sorted(types)},
        )
