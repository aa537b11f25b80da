"""The path between two GPUs of a cluster: its kind, hops, bandwidth and latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from specs.cluster import Cluster, Link
from specs.topologies.machine import Machine, PathKind

SAME, RAIL, SPINE = "same GPU", "rail", "spine"
#: GB/s per direction from which on what joins a node's GPUs is NVLink or xGMI; PCIe Gen5 x16 has 63.
FABRIC = 100.0
#: Links that a message takes, one after the other. rail: GPU, NIC, leaf switch, NIC, GPU; spine: two switches more.
HOPS: Mapping[str, int] = {
    SAME: 0, "NVLink": 1, "NVSwitch": 2, "nvlink_pair": 1, "nvlink": 1, "pcie_switch": 2, "PCIe switch": 2,
    "PCIe switches": 3, "host bridge": 3, "socket": 3, "NUMA node": 4, "other socket": 5, "PCIe": 4, RAIL: 4, SPINE: 6,
}  # fmt: skip
#: What `nvidia-smi topo -m` calls a path, in words.
SEEN: Mapping[PathKind, str] = {
    "NVL": "NVLink", "PIX": "PCIe switch", "PXB": "PCIe switches", "PHB": "host bridge", "NODE": "NUMA node",
    "SYS": "other socket",
}  # fmt: skip


@dataclass(frozen=True)
class PairPath:
    """How one GPU reaches another; rates are achieved ones, per direction and GPU."""

    kind: str
    hops: int
    gb_per_s: float
    latency_us: float


@dataclass(frozen=True)
class Paths:
    """The paths of a cluster; `machine`: what a topology file says of one of its machines, or None."""

    cluster: Cluster
    machine: Machine | None = None

    def between(self, i: int, j: int) -> PairPath:
        """The path from GPU i to GPU j, counted over all nodes."""
        kind, link = self._kind(i, j)
        rate = self.cluster.least_gpu.hbm_gb_per_s if kind == SAME else link.bytes_per_s / 1e9
        return PairPath(kind, HOPS.get(kind, 2), rate, 0.0 if kind == SAME else link.latency_us)

    def _kind(self, i: int, j: int) -> tuple[str, Link]:
        cluster, size = self.cluster, self.cluster.gpus_per_node
        if i == j:
            return SAME, cluster.fast
        if i // size != j // size:
            return (RAIL if i % size == j % size else SPINE), cluster.slow
        level = next((each for each in cluster.inner if i // each.gpus == j // each.gpus), None)
        link: Link = level or cluster.fast
        seen = self._seen(i % size, j % size)
        if seen:
            return seen, link
        if level is not None:
            return level.name, link
        return ("NVSwitch" if cluster.fast.gb_per_s >= FABRIC else "PCIe"), link

    def _seen(self, i: int, j: int) -> str:
        """As the machine's file names the path; "" where it does not say."""
        if self.machine is None or not self.machine.tells_nvlink or max(i, j) >= len(self.machine.gpus):
            return ""
        path = self.machine.between[i][j]
        return "" if path is None else SEEN[path.kind]

    def kinds(self, gpus: int) -> dict[str, tuple[PairPath, int]]:
        """By kind a path and how many ordered pairs of the first `gpus` GPUs have it, nearest first."""
        found: dict[str, tuple[PairPath, int]] = {}
        for i in range(gpus):
            for j in range(gpus):
                path = self.between(i, j)
                found[path.kind] = (path, found.get(path.kind, (path, 0))[1] + 1)
        return dict(sorted(found.items(), key=lambda each: (each[1][0].hops, each[0])))


def matrix_text(paths: Paths, gpus: int) -> str:
    """The paths between the first `gpus` GPUs, a letter a pair."""
    kinds = list(paths.kinds(gpus))
    letters = dict(zip(kinds, ".abcdefghi", strict=False))
    width = len(str(gpus - 1))
    rows = [f"{i:{width}} " + "".join(letters[paths.between(i, j).kind] for j in range(gpus)) for i in range(gpus)]
    key = "   ".join(f"{letter} {kind}" for kind, letter in letters.items())
    return "\n".join([*rows, f"{'':{width}} {key}"])


#: Shades from near to far that a colour-blind reader tells apart.
SHADES = ("#f0f0f0", "#c7e9b4", "#7fcdbb", "#41b6c4", "#1d91c0", "#225ea8", "#0c2c84", "#081d58")


def matrix_svg(paths: Paths, gpus: int) -> str:
    """The same as a picture."""
    cell, kinds = max(3, 480 // gpus), list(paths.kinds(gpus))
    shade = {kind: SHADES[min(i, len(SHADES) - 1)] for i, kind in enumerate(kinds)}
    side, parts = cell * gpus, []
    for i in range(gpus):
        first = 0
        for j in range(1, gpus + 1):
            kind = paths.between(i, first).kind
            if j == gpus or paths.between(i, j).kind != kind:
                size = f'x="{first * cell}" y="{i * cell}" width="{(j - first) * cell}" height="{cell}"'
                parts.append(f'<rect {size} fill="{shade[kind]}"><title>{kind}</title></rect>')
                first = j
    for row, kind in enumerate(kinds):
        y = 16 + 22 * row
        parts.append(f'<rect x="{side + 16}" y="{y}" width="14" height="14" fill="{shade[kind]}" stroke="#888"/>')
        parts.append(f'<text x="{side + 38}" y="{y + 12}" font-family="sans-serif" font-size="13">{kind}</text>')
    size = f'width="{side + 160}" height="{max(side, 22 * len(kinds) + 24)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(parts)}</svg>\n'
