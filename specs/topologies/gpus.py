"""GPUs by the names that people and machines have for them, and what their links carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from specs.cluster import Cluster
from specs.errors import InputError
from specs.loading import list_catalog, load_cluster
from specs.topologies.machine import Machine
from specs.validation import suggestion

#: PCI vendor and device (pci-ids.ucw.cz) -> the catalog's GPU.
DEVICES: Mapping[str, str] = {
    "10de:20b0": "A100 SXM 40GB", "10de:20b2": "A100 SXM 80GB", "10de:20b5": "A100 PCIe 80GB",
    "10de:2321": "H100 NVL 94GB", "10de:2324": "H800 SXM 80GB", "10de:2329": "H20 SXM 96GB",
    "10de:2330": "H100 SXM 80GB", "10de:2335": "H200 SXM 141GB", "10de:26b9": "L40S 48GB",
    "10de:2901": "B200 SXM 180GB", "10de:2941": "GB200 186GB", "10de:2bb5": "RTX PRO 6000 Blackwell Server 96GB",
    "10de:3182": "B300 SXM 288GB", "10de:31c2": "GB300 288GB", "1002:74a1": "MI300X 192GB", "1002:75a3": "MI355X 288GB",
}  # fmt: skip

#: Generation of a compute capability (times 10).
GENERATIONS: Mapping[int, str] = {
    70: "volta", 80: "ampere", 89: "ada", 90: "hopper", 100: "blackwell", 103: "blackwell", 120: "blackwell_rtx",
}  # fmt: skip
#: GB/s per direction of one NVLink (NVLink 2 to 4: 25, NVLink 5: 50) or xGMI link, by generation.
LINK_GB_PER_S: Mapping[str, float] = {
    "volta": 25, "ampere": 25, "hopper": 25, "blackwell": 50, "cdna3": 64, "cdna4": 76.8,
}  # fmt: skip
#: Most NVLinks of a GPU. Where pairs add up to more they go over a switch, and each has all of them.
MOST_LINKS: Mapping[str, int] = {"volta": 6, "ampere": 12, "hopper": 18, "blackwell": 18, "cdna3": 7, "cdna4": 7}
#: GB/s per direction of the PCIe x16 link that a generation has.
PCIE_GB_PER_S: Mapping[str, float] = {"volta": 15.8, "ampere": 31.5, "ada": 31.5}
PCIE_GEN5_GB_PER_S = 63.0


def reference_cluster(machine: Machine, name: str | None) -> Cluster:
    """The catalog's cluster with a machine's GPUs: what the file does not say is taken from it.

    Args:
        machine: What the file tells.
        name: A GPU's name or words of it, or a cluster's name; None takes what the file's device ids say.

    Raises:
        InputError: The catalog has no such GPU, several, or the file names none.
    """
    clusters = _catalog()
    gpus = sorted({cluster.gpu.name for cluster in clusters})
    name = _named(machine, clusters) if name is None else name
    found = [cluster for cluster in clusters if cluster.name == name]
    if not found:
        words = name.lower().split()
        exact = [gpu for gpu in gpus if gpu.lower() == name.lower()]
        fits = exact or [gpu for gpu in gpus if words and set(words) <= set(gpu.lower().split())]
        if len(fits) != 1:
            told = f"{name[:60]!r} is {' or '.join(fits)}" if fits else f"the catalog has no GPU {name[:60]!r}"
            raise InputError("`gpu`", "", told, "name one in full" if fits else suggestion(name, gpus))
        found = [cluster for cluster in clusters if cluster.gpu.name == fits[0]]
    return max(found, key=lambda cluster: cluster.gpus_per_node == len(machine.gpus))


@cache
def _catalog() -> tuple[Cluster, ...]:
    """The catalog's clusters (immutable records, read once)."""
    return tuple(load_cluster(entry.name) for entry in list_catalog("cluster"))


def _named(machine: Machine, clusters: Sequence[Cluster]) -> str:
    """The GPU that the file's device ids name, or that is the catalog's only one of their compute capability."""
    devices = sorted({gpu.device for gpu in machine.gpus if gpu.device is not None})
    known = [DEVICES[device] for device in devices if device in DEVICES]
    if known:
        return known[0]
    generation = next((found for gpu in machine.gpus if (found := GENERATIONS.get(gpu.sm or 0))), None)
    fits = sorted({each.gpu.name for each in clusters if generation in (None, each.gpu.generation)})
    if len(fits) == 1:
        return fits[0]
    told = f"PCI device {devices[0]} is no GPU of the catalog" if devices else "does not say which GPU it has"
    raise InputError(machine.source, "", told, f"give `gpu`: one of {', '.join(fits)}")
