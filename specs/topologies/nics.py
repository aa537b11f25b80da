"""Which NICs carry a machine's traffic, and which GPUs share them."""

from __future__ import annotations

from dataclasses import dataclass

from specs.topologies.machine import KINDS, Machine, components

#: Ranks (Path.rank): the farthest that is still on a PCIe switch with the GPU, and beyond all that is known.
LOCAL, FAR = KINDS.index("PXB"), len(KINDS)


@dataclass(frozen=True)
class NicGroup:
    """GPUs and the NICs nearest to them, by index, ascending."""

    gpus: tuple[int, ...]
    nics: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether GPUs share a NIC."""
        return len(self.gpus) > len(self.nics)


@dataclass(frozen=True)
class NicUse:
    """How a machine's NICs are used.

    Attributes:
        groups: GPUs that share NICs, or have one alone; GPUs without a known NIC are in none.
        far: NICs that are not on a PCIe switch with any GPU, while others are.
        nearest: [nics] the nearest GPU of each NIC that is used, None of the others.
    """

    groups: tuple[NicGroup, ...]
    far: tuple[int, ...]
    nearest: tuple[int | None, ...]


def nic_use(machine: Machine) -> NicUse:
    """Each GPU uses the NICs nearest to it; if any NIC is on a PCIe switch with a GPU, those that are not stay out."""
    gpus, nics = range(len(machine.gpus)), range(len(machine.nics))
    rank = [[FAR if path is None else path.rank for path in row] for row in machine.to_nic]
    best = [min(rank[g][n] for g in gpus) for n in nics]
    local = [n for n in nics if best[n] <= LOCAL]
    used = local or [n for n in nics if best[n] < FAR]
    nearest_of = [min((rank[g][n] for n in used), default=FAR) for g in gpus]
    edges = ((g, len(gpus) + n) for g in gpus for n in used if rank[g][n] == nearest_of[g] < FAR)
    parts = [
        NicGroup(tuple(i for i in part if i < len(gpus)), tuple(i - len(gpus) for i in part if i >= len(gpus)))
        for part in components(len(gpus) + len(nics), edges)
    ]
    # In a file that is cut off a NIC may be near a GPU whose row is lost.
    unseen = any(FAR in row for row in rank)
    return NicUse(
        groups=tuple(part for part in parts if part.gpus and part.nics),
        far=tuple(n for n in nics if local and not unseen and n not in local),
        nearest=tuple(next(g for g in gpus if rank[g][n] == best[n]) if n in used else None for n in nics),
    )
