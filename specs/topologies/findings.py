"""What a machine's topology shows that costs time, in sentences for its owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from specs.topologies.machine import Machine
from specs.topologies.nics import FAR, LOCAL, NicUse, nic_use


def findings(machine: Machine) -> tuple[str, ...]:
    """One sentence for each thing that is wrong or worth knowing; none for a machine as it should be."""
    use = nic_use(machine)
    return (*_gaps(machine), *_nvlink(machine), *_shared(machine, use), *_far(machine, use), *_order(machine, use))


def _gaps(machine: Machine) -> Iterator[str]:
    if machine.missing:
        yield f"the file is cut short: {machine.missing}; what other rows say of them is used, the rest is not known"
    unknown = [gpu.name for gpu, row in zip(machine.gpus, machine.to_nic, strict=True) if row and not any(row)]
    if unknown:
        yield f"the NICs of {_listed(unknown)} are not known"
    kinds = sorted({gpu.device for gpu in machine.gpus if gpu.device is not None})
    if len(kinds) > 1:
        yield f"GPUs of {len(kinds)} kinds (PCI {', '.join(kinds)}); all are taken for one"


def _nvlink(machine: Machine) -> Iterator[str]:
    """GPUs off NVLink, and pairs or GPUs with fewer links than the others."""
    joined: dict[int, set[int]] = {i: set() for i in range(len(machine.gpus))}
    for i, _, path in machine.pairs():
        if path is not None and path.kind == "NVL":
            joined[i].add(path.links)
    if not machine.tells_nvlink or not any(joined.values()):
        return
    names = [gpu.name for gpu in machine.gpus]
    off = [names[i] for i, links in joined.items() if not links]
    if off:
        yield (
            f"{_listed(off)} {_is(off)} off NVLink, while the others are on it: see 'nvidia-smi nvlink -s', and the "
            "fabric manager's log"
        )
    uneven = [
        f"{names[i]} {path}, {names[j]} {machine.between[j][i]}"
        for i, j, path in machine.pairs()
        if i < j and path is not None and path != machine.between[j][i] and "NVL" in (path.kind, _kind(machine, j, i))
    ]
    if uneven:
        yield f"asymmetric NVLink: one end of a pair sees another path than the other ({'; '.join(uneven[:4])})"
    counts = {i: max(links) for i, links in joined.items() if links}
    usual = Counter(counts.values()).most_common(1)[0][0]
    fewer = [f"{names[i]} ({count})" for i, count in counts.items() if count < usual]
    if fewer:
        yield f"{_listed(fewer)} {_have(fewer)} fewer NVLinks than the {usual} of most GPUs"


def _kind(machine: Machine, i: int, j: int) -> str | None:
    path = machine.between[i][j]
    return None if path is None else path.kind


def _shared(machine: Machine, use: NicUse) -> Iterator[str]:
    told = []
    for group in use.groups:
        if group.shared:
            gpus, nics = [machine.gpus[i].name for i in group.gpus], [machine.nics[i].name for i in group.nics]
            told.append(f"{_listed(gpus)} {_listed(nics)} ({len(nics)}/{len(gpus)} of a NIC each)")
    if told:
        yield f"GPUs share NICs: {'; '.join(told[:8])}{f' and {len(told) - 8} groups more' if len(told) > 8 else ''}"


def _far(machine: Machine, use: NicUse) -> Iterator[str]:
    if use.far:
        far = [machine.nics[i].name for i in use.far]
        yield (
            f"{_listed(far)} {_is(far)} far from every GPU (no PCIe switch in common): taken for storage or "
            "management, not for traffic of experts"
        )

    ranks = [min((path.rank for path in row if path is not None), default=FAR) for row in machine.to_nic]
    apart = [gpu.name for gpu, rank in zip(machine.gpus, ranks, strict=True) if LOCAL < rank < FAR]
    if apart and min(ranks) <= LOCAL:
        yield f"{_listed(apart)} {_have(apart)} no NIC on a PCIe switch in common, while other GPUs have"


def _order(machine: Machine, use: NicUse) -> Iterator[str]:
    """NICs that are not numbered as their GPUs: software that gives GPU i the i-th NIC crosses the CPU."""
    order = [gpu for gpu in use.nearest if gpu is not None]
    if order != sorted(order):
        pairs = sorted((gpu, machine.nics[n].name) for n, gpu in enumerate(use.nearest) if gpu is not None)
        told = ", ".join(f"{machine.gpus[gpu].name} {nic}" for gpu, nic in pairs)
        yield (
            "NICs are listed in another order than their nearest GPUs; where software takes the i-th NIC for GPU i, "
            f"map them: {told}"
        )


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:8], f"{len(names) - 8} more"] if len(names) > 9 else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"
