"""A cluster of machines as the one that was read, and what had to be assumed for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from specs.cluster import Cluster
from specs.errors import InputError
from specs.topologies.gpus import LINK_GB_PER_S, MOST_LINKS, PCIE_GB_PER_S, PCIE_GEN5_GB_PER_S, reference_cluster
from specs.topologies.machine import Machine
from specs.topologies.nics import nic_use
from specs.validation import validate

NVLINK = "NVL"
SWITCH = ("NVL", "PIX", "PXB")
SOCKET = (*SWITCH, "PHB", "NODE")
#: Achieved share of a PCIe link, and latency: inside a switch or a socket, and with all GPUs sending to all others.
NEAR: dict[str, Any] = {"efficiency": 0.86, "latency_us": 4.1, "source": "share: voipmonitor/rtx6kpro (54 of 63 GB/s)"}
WIDE: dict[str, Any] = {"efficiency": 0.375, "latency_us": 6.1, "source": "share: lukealonso/p2pmark (23.6 of 63 GB/s)"}


@dataclass(frozen=True)
class Given:
    """What the user says of the cluster; None: as the file or the catalog has it.

    Attributes:
        gpu: The GPU's name in the catalog, or a cluster's there that has it.
        nodes: Nodes of the cluster.
        machines_per_node: Machines (operating systems) that one NVLink domain spans.
        nic_gb_per_s, pcie_gb_per_s: Rates per direction of a NIC, and of a GPU's PCIe link.
    """

    gpu: str | None = None
    nodes: int = 1
    machines_per_node: int = 1
    nic_gb_per_s: float | None = None
    pcie_gb_per_s: float | None = None


@dataclass
class _Builder:
    machine: Machine
    given: Given
    reference: Cluster
    assumed: list[str] = field(default_factory=list)

    @property
    def generation(self) -> str:
        return self.reference.gpu.generation or ""

    def group_size(self, kinds: tuple[str, ...] | str) -> int:
        """GPUs of each group that such paths join, where groups are alike and of consecutive GPUs; else 1."""
        groups = self.machine.groups(lambda path: path.kind in kinds)
        size = len(groups[0])
        return size if groups == [list(range(i, i + size)) for i in range(0, len(self.machine.gpus), size)] else 1

    def nvlink(self) -> dict[str, Any]:
        """The link over NVLink of the GPU that has the fewest, among those that have any."""
        each = LINK_GB_PER_S.get(self.generation)
        count = min(links for i in range(len(self.machine.gpus)) if (links := self._links(i)))
        best = self.reference.inner[0] if self.reference.inner else self.reference.fast
        if each is None:
            self.assumed.append(f"NVLink's rate as in {self.reference.name}: {best.gb_per_s:g} GB/s")
        rate = best.gb_per_s if each is None else count * each
        told = f"{count} links; share and latency of {self.reference.name}"
        return {"gb_per_s": rate, "latency_us": best.latency_us, "efficiency": best.efficiency, "source": told}

    def _links(self, i: int) -> int:
        gpu, row = self.machine.gpus[i], self.machine.between[i]
        counts = [path.links for path in row if path is not None and path.kind == NVLINK]
        if gpu.links is not None or not counts:
            return gpu.links or 0
        return sum(counts) if sum(counts) <= MOST_LINKS.get(self.generation, 0) else max(counts)

    def pcie_gb_per_s(self) -> float:
        seen = [gpu.pcie_gb_per_s for gpu in self.machine.gpus if gpu.pcie_gb_per_s is not None]
        if self.given.pcie_gb_per_s is not None:
            return self.given.pcie_gb_per_s
        if seen:
            return min(seen)
        rate = PCIE_GB_PER_S.get(self.generation, PCIE_GEN5_GB_PER_S)
        self.assumed.append(f"a GPU's PCIe link: {rate:g} GB/s, x16 of its generation (or give `pcie_gb_per_s`)")
        return rate

    def levels(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(Levels inside the node, the link between their groups)."""
        gpus = len(self.machine.gpus)
        if not self.machine.tells_nvlink:
            self.assumed.append(f"links between GPUs as in {self.reference.name}: the file says nothing of NVLink")
            inner = self.reference.inner if self.reference.gpus_per_node == gpus else ()
            return [level.model_dump() for level in inner], self.reference.fast.model_dump()
        joined = self.group_size(NVLINK)
        if gpus == 1 or joined == gpus:
            return [], self.nvlink() if gpus > 1 else self.reference.fast.model_dump()
        rate, levels = {"gb_per_s": self.pcie_gb_per_s()}, []
        if joined > 1:
            levels.append({"name": "nvlink", "gpus": joined, **self.nvlink()})
        switch, socket = self.group_size(SWITCH), self.group_size(SOCKET)
        name, size = ("pcie_switch", switch) if joined < switch < gpus else ("socket", socket)
        if joined < size < gpus:
            levels.append({"name": name, "gpus": size, **rate, **NEAR})
        if not levels and joined == 1 and any(path and path.kind == NVLINK for _, _, path in self.machine.pairs()):
            self.assumed.append("the whole node runs over PCIe, as what reaches its GPUs off NVLink does")
        near = size == gpus and all(path is None or path.kind != NVLINK for _, _, path in self.machine.pairs())
        return levels, rate | (NEAR if near else WIDE)

    def nics(self) -> tuple[int, dict[str, Any]]:
        """(GPUs that share their NICs, the link between nodes)."""
        machine, use, slow = self.machine, nic_use(self.machine), self.reference.slow.model_dump()
        sizes = {len(group.gpus) for group in use.groups if group.shared}
        whole = [list(group.gpus) for group in use.groups] == [
            list(range(i, i + max(sizes, default=1))) for i in range(0, len(machine.gpus), max(sizes, default=1))
        ]
        tray = max(sizes) if sizes and whole else 1
        if not use.groups:
            self.assumed.append(f"NICs as in {self.reference.name}: {slow['gb_per_s']:g} GB/s a GPU; the file has none")
            return tray, slow
        rates = [self.given.nic_gb_per_s or nic.gb_per_s for nic in machine.nics]
        used = [[rates[n] for n in group.nics] for group in use.groups]
        if any(rate is None for group in used for rate in group):
            told = f"the file has no NIC's rate (give `nic_gb_per_s`): {slow['gb_per_s']:g} GB/s a GPU"
            self.assumed.append(f"{told}, as in {self.reference.name}")
            return tray, slow
        each = [sum(filter(None, mine)) / len(group.gpus) for mine, group in zip(used, use.groups, strict=True)]
        return tray, slow | {
            "gb_per_s": min(each),
            "source": f"NICs of the file; share and latency of {self.reference.name}",
        }

    def cluster(self) -> Cluster:
        machine, span = self.machine, self.given.machines_per_node
        gpus, hosts = len(machine.gpus), len({gpu.host for gpu in machine.gpus})
        inner, fast = self.levels()
        tray, slow = self.nics()
        if span > 1 and (inner or not any(path and path.kind == NVLINK for _, _, path in machine.pairs())):
            told = f"{machine.source} does not have all GPUs on one NVLink"
            raise InputError("`machines_per_node`", "", told, "leave it out")
        if gpus % hosts:
            raise InputError(
                machine.source, "", f"{gpus} GPUs on {hosts} machines", "dump machines of equally many GPUs"
            )
        data = {
            "name": re.sub(r"\W+", "_", PurePath(machine.source).stem).strip("_")[:60] or "cluster",
            "summary": f"{self.given.nodes} x {gpus * span} {self.reference.gpu.name}, as read from a topology",
            "gpu": self.reference.gpu.model_dump(),
            "nodes": self.given.nodes,
            "gpus_per_node": gpus * span,
            "gpus_per_os_node": gpus // hosts if hosts * span > 1 else None,
            "gpus_per_tray": tray,
            "inner": inner,
            "fast": fast,
            "slow": slow,
        }
        made: Cluster = validate(Cluster, data, machine.source)
        return made


@dataclass(frozen=True)
class Derived:
    """A cluster, and what had to be assumed for it, one sentence each."""

    cluster: Cluster
    assumed: tuple[str, ...]


def derive_cluster(machine: Machine, given: Given) -> Derived:
    """The cluster of machines like the one that was read.

    Raises:
        InputError: the GPU is not known, or what is given does not fit the file.
    """
    builder = _Builder(machine, given, reference_cluster(machine, given.gpu))
    cluster = builder.cluster()
    return Derived(cluster, tuple(builder.assumed))
