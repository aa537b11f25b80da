"""A machine as a tool sees it: GPUs, NICs, and how each reaches the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from specs.errors import InputError

#: Nearest first: NVLink (or xGMI), one PCIe bridge, several, the CPU's host bridge, several of them, another socket.
PathKind = Literal["NVL", "PIX", "PXB", "PHB", "NODE", "SYS"]
KINDS: tuple[PathKind, ...] = ("NVL", "PIX", "PXB", "PHB", "NODE", "SYS")
#: More devices of a kind are a damaged file, and keep the tables small.
MAX_DEVICES = 1024


@dataclass(frozen=True)
class Path:
    """How one device reaches another; `links`: NVLinks that two GPUs are joined by."""

    kind: PathKind
    links: int = 0

    @property
    def rank(self) -> int:
        return KINDS.index(self.kind)

    def __str__(self) -> str:
        return f"NV{self.links}" if self.kind == "NVL" else self.kind


@dataclass(frozen=True)
class SeenGpu:
    """A GPU.

    Attributes:
        name: what the file calls it. host: the operating system that it belongs to, "" where the file has one alone.
        device: PCI vendor and device, such as 10de:2330. sm: compute capability times 10.
        links: its NVLinks to switches, seen or not. pcie_gb_per_s: of its PCIe link, per direction.
        cpus, numa: those near it, as the file has them. Each None where the file does not say.
    """

    name: str
    host: str = ""
    device: str | None = None
    sm: int | None = None
    links: int | None = None
    pcie_gb_per_s: float | None = None
    cpus: str | None = None
    numa: str | None = None


@dataclass(frozen=True)
class SeenNic:
    """A NIC's port, and its rate per direction where the file has it."""

    name: str
    gb_per_s: float | None = None


@dataclass(frozen=True)
class Machine:
    """What a file tells.

    Attributes:
        source: The file, as messages name it.
        between: [gpus][gpus] path from one GPU to another; None on the diagonal, and where the file does not say.
        to_nic: [gpus][nics] path from a GPU to a NIC; None where the file does not say.
        tells_nvlink: Whether a pair without NVLink is known to have none.
        missing: What the file lacks of what its head announces, or "".
    """

    source: str
    gpus: tuple[SeenGpu, ...]
    nics: tuple[SeenNic, ...]
    between: tuple[tuple[Path | None, ...], ...]
    to_nic: tuple[tuple[Path | None, ...], ...]
    tells_nvlink: bool = True
    missing: str = ""

    def pairs(self) -> Iterator[tuple[int, int, Path | None]]:
        """Each ordered pair of GPUs and its path."""
        for i, row in enumerate(self.between):
            yield from ((i, j, path) for j, path in enumerate(row) if i != j)

    def groups(self, joined: Callable[[Path], bool]) -> list[list[int]]:
        """GPUs that are joined to each other, directly or over others; each group and the groups ascending."""
        return components(len(self.gpus), ((i, j) for i, j, path in self.pairs() if path is not None and joined(path)))


def components(count: int, edges: Iterator[tuple[int, int]]) -> list[list[int]]:
    """The connected parts of a graph of `count` nodes, each ascending, in the order of their first nodes."""
    root = list(range(count))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    for i, j in edges:
        first, second = sorted((find(i), find(j)))
        root[second] = first
    parts: dict[int, list[int]] = {}
    for i in range(count):
        parts.setdefault(find(i), []).append(i)
    return list(parts.values())


def check_count(source: str, what: str, count: int) -> None:
    """Refuses more devices than any machine has.

    Raises:
        InputError: they are too many.
    """
    if count > MAX_DEVICES:
        raise InputError(source, "", f"names {count} {what}; at most {MAX_DEVICES} are read", "give one machine's file")
