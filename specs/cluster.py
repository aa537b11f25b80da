"""A cluster: GPUs on trays, nodes and their links.

GB is 1e9 bytes and GiB is 2**30 bytes; bandwidths are per direction. Properties without a unit suffix in the file
give SI units: bytes, bytes/s, FLOP/s, seconds.
"""

from __future__ import annotations

from pydantic import model_validator

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
    #: Architecture, such as hopper; tells which measurements calibrate the cost model.
    generation: Name | None = None
    hbm_gib: Positive
    hbm_gb_per_s: Positive
    peak_tflops: dict[DataType, Positive]
    source: Text = ""

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
    latency_us: Positive
    #: Achieved share of the nominal bandwidth for large messages.
    efficiency: Share = 1.0
    source: Text = ""

    @property
    def bytes_per_s(self) -> float:
        """Achieved bytes/s per GPU and direction."""
        return self.gb_per_s * 1e9 * self.efficiency

    @property
    def latency_s(self) -> float:
        return self.latency_us * 1e-6


class Cluster(Spec):
    """GPU -> tray (GPUs that share NICs) -> node (one fast-link domain) -> cluster."""

    name: Name
    summary: Text = ""
    gpu: Gpu
    nodes: Degree
    gpus_per_node: Degree
    #: GPUs that one operating system sees, where that is less than a node (4 of the 72 in an NVL72 rack).
    gpus_per_os_node: Degree | None = None
    #: GPUs that share their NICs: a NIC group carries gpus_per_tray times the per-GPU rate of `slow`.
    gpus_per_tray: Degree = 1
    fast: Link
    slow: Link

    @model_validator(mode="after")
    def _sizes_divide(self) -> Cluster:
        if self.gpus_per_node % self.gpus_per_tray:
            raise ValueError(
                f"gpus_per_node {self.gpus_per_node} is not a multiple of gpus_per_tray {self.gpus_per_tray}; "
                "change one of them"
            )
        if self.gpus > MAX_GPUS:
            raise ValueError(f"nodes x gpus_per_node is {self.gpus} GPUs; at most {MAX_GPUS} are planned")
        return self

    @property
    def os_node_gpus(self) -> int:
        """GPUs that one operating system sees."""
        return self.gpus_per_os_node or self.gpus_per_node

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node
