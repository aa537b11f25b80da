"""A cluster of machines as the one that was read, and what had to be assumed for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath

from specs.cluster import Cluster, InnerLevel, Link
from specs.errors import InputError
from specs.topologies.gpus import LINK_GB_PER_S, MOST_LINKS, PCIE_GB_PER_S, PCIE_GEN5_GB_PER_S, reference_cluster
from specs.topologies.machine import Machine, PathKind
from specs.topologies.nics import nic_use
from specs.validation import validate

SWITCH: tuple[PathKind, ...] = ("NVL", "PIX", "PXB")
SOCKET: tuple[PathKind, ...] = (*SWITCH, "PHB", "NODE")


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

    @property
    def gpus(self) -> int:
        return len(self.machine.gpus)

    def group_size(self, *kinds: PathKind) -> int:
        """GPUs of each group that such paths join, where groups are alike and of consecutive GPUs; else 1."""
        groups = self.machine.groups(lambda path: path.kind in kinds)
        size = len(groups[0])
        return size if groups == _consecutive(self.gpus, size) else 1

    def nvlink(self) -> Link:
        """The link over NVLink of the GPU that has the fewest, among those that have any."""
        each = LINK_GB_PER_S.get(self.generation)
        count = min(links for i in range(self.gpus) if (links := self._links(i)))
        best = self.reference.inner[0] if self.reference.inner else self.reference.fast
        if each is None:
            self.assumed.append(f"NVLink's rate as in {self.reference.name}: {best.gb_per_s:g} GB/s")
        return Link(
            gb_per_s=best.gb_per_s if each is None else count * each,
            latency_us=best.latency_us,
            efficiency=best.efficiency,
            source=f"{count} links; share and latency of {self.reference.name}",
        )

    def _links(self, i: int) -> int:
        gpu, row = self.machine.gpus[i], self.machine.between[i]
        counts = [path.links for path in row if path is not None and path.kind == "NVL"]
        if gpu.links is not None or not counts:
            return gpu.links or 0
        return sum(counts) if sum(counts) <= MOST_LINKS.get(self.generation, 0) else max(counts)

    def pcie_gb_per_s(self) -> float:
        """The slowest PCIe link of a GPU."""
        seen = [gpu.pcie_gb_per_s for gpu in self.machine.gpus if gpu.pcie_gb_per_s is not None]
        if self.given.pcie_gb_per_s is not None or seen:
            return self.given.pcie_gb_per_s or min(seen)
        rate = PCIE_GB_PER_S.get(self.generation, PCIE_GEN5_GB_PER_S)
        self.assumed.append(f"a GPU's PCIe link: {rate:g} GB/s, x16 of its generation (or give `pcie_gb_per_s`)")
        return rate

    def levels(self) -> tuple[tuple[InnerLevel, ...], Link]:
        """(Levels inside the node, the link between their groups)."""
        if not self.machine.tells_nvlink:
            self.assumed.append(f"links between GPUs as in {self.reference.name}: the file says nothing of NVLink")
            return self.reference.inner if self.reference.gpus_per_node == self.gpus else (), self.reference.fast
        joined, switch, socket = self.group_size("NVL"), self.group_size(*SWITCH), self.group_size(*SOCKET)
        if joined == self.gpus:
            return (), self.nvlink() if self.gpus > 1 else self.reference.fast
        rate, levels = self.pcie_gb_per_s(), []
        # Copies inside a switch or a socket, and with all GPUs sending to all others.
        near = Link(
            gb_per_s=rate, latency_us=4.1, efficiency=0.86, source="share: voipmonitor/rtx6kpro (54 of 63 GB/s)"
        )
        wide = Link(
            gb_per_s=rate, latency_us=6.1, efficiency=0.375, source="share: lukealonso/p2pmark (23.6 of 63 GB/s)"
        )
        if joined > 1:
            levels.append(_level("nvlink", joined, self.nvlink()))
        name, size = ("pcie_switch", switch) if joined < switch < self.gpus else ("socket", socket)
        if joined < size < self.gpus:
            levels.append(_level(name, size, near))
        some = any(path is not None and path.kind == "NVL" for _, _, path in self.machine.pairs())
        if some and joined == 1:
            self.assumed.append("the whole node runs over PCIe, as what reaches its GPUs off NVLink does")
        return tuple(levels), wide if some or size < self.gpus else near

    def nics(self) -> tuple[int, Link]:
        """(GPUs that share their NICs, the link between nodes)."""
        groups, slow, given = nic_use(self.machine).groups, self.reference.slow, self.given.nic_gb_per_s
        size = max((len(group.gpus) for group in groups if group.shared), default=1)
        tray = size if [list(group.gpus) for group in groups] == _consecutive(self.gpus, size) else 1
        rates = [given or nic.gb_per_s for nic in self.machine.nics]
        each = [given] if not groups else [
            None if None in (mine := [rates[n] for n in group.nics]) else sum(filter(None, mine)) / len(group.gpus)
            for group in groups
        ]  # fmt: skip
        known = [rate for rate in each if rate is not None]
        if not groups and given is not None:
            self.assumed.append("each GPU has a NIC of its own: the file has none")
        if len(known) < len(each):
            lacks = "no NIC's rate" if groups else "no NIC"
            told = f"the file has {lacks} (give `nic_gb_per_s`): {slow.gb_per_s:g} GB/s a GPU"
            self.assumed.append(f"{told}, as in {self.reference.name}")
            return tray, slow
        source = f"{'given' if given else 'NICs of the file'}; share and latency of {self.reference.name}"
        return tray, slow.model_copy(update={"gb_per_s": min(known), "source": source})

    def cluster(self) -> Cluster:
        """The cluster."""
        machine, span, gpus = self.machine, self.given.machines_per_node, self.gpus
        hosts = len({gpu.host for gpu in machine.gpus})
        inner, fast = self.levels()
        tray, slow = self.nics()
        if span > 1 and machine.tells_nvlink and self.group_size("NVL") != gpus:
            told = f"{machine.source} does not have all GPUs on one NVLink"
            raise InputError("`machines_per_node`", "", told, "leave it out")
        if gpus % hosts:
            told = f"has {gpus} GPUs on {hosts} machines"
            raise InputError(machine.source, "", told, "dump machines of equally many GPUs")
        data = {
            "name": re.sub(r"\W+", "_", PurePath(machine.source).stem).strip("_")[:60] or "cluster",
            "summary": f"{self.given.nodes} x {gpus * span} {self.reference.gpu.name}, as read from a topology",
            "gpu": self.reference.gpu,
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


def _level(name: str, gpus: int, link: Link) -> InnerLevel:
    return InnerLevel(name=name, gpus=gpus, **link.model_dump())


def _consecutive(gpus: int, size: int) -> list[list[int]]:
    """All GPUs in groups of `size` that follow each other."""
    return [list(range(first, first + size)) for first in range(0, gpus, size)]


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
    reference, assumed = reference_cluster(machine, given.gpu)
    builder = _Builder(machine, given, reference, [assumed] if assumed else [])
    return Derived(builder.cluster(), tuple(builder.assumed))
