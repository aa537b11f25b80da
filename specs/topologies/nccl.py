"""NCCL's topology XML: what it dumps (NCCL_TOPO_DUMP_FILE), or is given (NCCL_TOPO_FILE). RCCL writes the same.

A `cpu` is a NUMA node, a `pci` a bridge or a device; `gpu`, `nic` and `net` stand inside their device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from specs.documents import MAX_DEPTH, shown
from specs.errors import InputError
from specs.topologies.machine import Machine, Path, SeenGpu, SeenNic, check_count

MAX_ELEMENTS = 20_000
#: GB/s of a PCIe lane and direction by GT/s. Slower links are idle ones, or a virtual machine's.
LANE: Mapping[float, float] = {8.0: 0.985, 16.0: 1.969, 32.0: 3.938, 64.0: 7.563}
#: More NVLinks than any GPU has.
MAX_LINKS = 1_000


@dataclass
class _Element:
    tag: str
    attributes: Mapping[str, str]
    children: list[_Element] = field(default_factory=list)

    def get(self, name: str) -> str:
        return self.attributes.get(name, "")

    def number(self, name: str) -> int | None:
        """A whole number, or None."""
        text = self.get(name)
        return int(text) if re.fullmatch(r"\d{1,9}", text) else None

    def inside(self, tag: str) -> Iterator[_Element]:
        return (child for child in self.children if child.tag == tag)


@dataclass(frozen=True)
class _Place:
    """Where a device hangs: operating system, NUMA node, and the bridges above it, outermost first."""

    host: str
    cpu: int
    bridges: tuple[int, ...]
    element: _Element
    affinity: str
    numa: str

    def path(self, other: _Place) -> Path:
        if self.cpu != other.cpu:
            return Path("SYS")
        common = len([a for a, b in zip(self.bridges, other.bridges, strict=False) if a == b])
        if common == 0:
            return Path("PHB")
        return Path("PIX" if self.bridges == other.bridges else "PXB")


def read_xml(text: str, source: str) -> Machine:
    """The machine that a topology XML describes; of a dump of several machines on one NVLink domain, all of them.

    Raises:
        InputError: it is no such XML, or holds no GPU.
    """
    root = _parse(text, source)
    if root.tag != "system":
        raise InputError(source, "", f"its top element is {shown(root.tag)}, not system", "give an NCCL topology XML")
    gpus, ports = _devices(root)
    if not gpus:
        raise InputError(source, "", "has no GPU", "dump it with NCCL_TOPO_DUMP_FILE in a job that uses the GPUs")
    check_count(source, "GPUs", len(gpus))
    check_count(source, "NICs", len(ports))
    links = [_links(place, gpus) for place in gpus]
    several = len({place.host for place in gpus}) > 1
    between = []
    for i, mine in enumerate(gpus):
        row: list[Path | None] = []
        for j, other in enumerate(gpus):
            joined = links[i].direct.get(j, 0) or min(links[i].switched, links[j].switched)
            row.append(None if i == j else Path("NVL", joined) if joined else mine.path(other))
        between.append(tuple(row))
    return Machine(
        source=source,
        gpus=tuple(_gpu(i, place, links[i].switched, several) for i, place in enumerate(gpus)),
        nics=tuple(nic for nic, _ in ports),
        between=tuple(between),
        to_nic=tuple(tuple(mine.path(place) for _, place in ports) for mine in gpus),
        tells_nvlink=any(True for place in gpus for _ in place.element.inside("gpu")),
    )


def _parse(text: str, source: str) -> _Element:
    """The tree. No document type is taken, so no entity is ever expanded."""
    parser = expat.ParserCreate("utf-8")
    stack: list[_Element] = [_Element("", {})]
    count = 0

    def refuse(*_: object) -> None:
        raise InputError(source, "", "has a document type (DOCTYPE)", "remove it: no topology needs one")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(stack) > MAX_DEPTH or count > MAX_ELEMENTS:
            told = f"nested over {MAX_DEPTH} deep" if len(stack) > MAX_DEPTH else f"over {MAX_ELEMENTS} elements"
            raise InputError(source, "", told, "give an NCCL topology XML")
        stack[-1].children.append(_Element(tag, attributes))
        stack.append(stack[-1].children[-1])

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        told = "ends too early" if error.code in _CUT else shown(expat.ErrorString(error.code), 80)
        raise InputError(source, "", f"line {error.lineno}: not valid XML: {told}", "give the whole file") from None
    return stack[0].children[0]


_CUT = tuple(
    expat.errors.codes[name] for name in (expat.errors.XML_ERROR_NO_ELEMENTS, expat.errors.XML_ERROR_UNCLOSED_TOKEN)
)


def _devices(root: _Element) -> tuple[list[_Place], list[tuple[SeenNic, _Place]]]:
    """GPUs and NIC ports, each in the order of their machine, and there of device numbers or bus addresses."""
    gpus: list[_Place] = []
    ports: list[tuple[SeenNic, _Place]] = []
    stations = 0

    def visit(element: _Element, place: _Place) -> None:
        nonlocal stations
        for child in element.children:
            here = _Place(place.host, place.cpu, place.bridges, child, place.affinity, place.numa)
            if child.tag == "nic":
                ports.extend((_port(net), here) for net in child.inside("net"))
            if child.tag != "pci":
                continue
            kind = child.get("class")
            if kind.startswith("0x03") or any(True for _ in child.inside("gpu")):
                gpus.append(here)
            elif any(True for _ in child.inside("nic")):
                ports.extend((_port(net), here) for nic in child.inside("nic") for net in nic.inside("net"))
            elif kind.startswith("0x02"):
                ports.append((SeenNic(shown(child.get("busid"), 40)), here))
            else:
                stations += 1
                visit(
                    child, _Place(place.host, place.cpu, (*place.bridges, stations), child, place.affinity, place.numa)
                )

    for number, cpu in enumerate(root.inside("cpu")):
        visit(cpu, _Place(cpu.get("host_hash"), number, (), cpu, cpu.get("affinity"), cpu.get("numaid")))
    order = {host: i for i, host in enumerate(dict.fromkeys(place.host for place in gpus))}
    gpus.sort(key=lambda place: (order[place.host], place.element.get("busid")))
    # A socket's NIC may be listed under every CPU.
    once = {(place.host, nic.name): (nic, place) for nic, place in reversed(ports)}
    rest = len(order)
    ports = sorted(once.values(), key=lambda port: (order.get(port[1].host, rest), *_net_order(port)))
    return gpus, ports


def _net_order(port: tuple[SeenNic, _Place]) -> tuple[int, str]:
    """NCCL's number of a port, where it has given one; else its bus address."""
    element = port[1].element
    nets = [net for nic in (element, *element.inside("nic")) for net in nic.inside("net")]
    numbers = [net.number("dev") for net in nets if shown(net.get("name"), 40) == port[0].name]
    return (numbers[0] if numbers and numbers[0] is not None else MAX_ELEMENTS, element.get("busid"))


def _port(net: _Element) -> SeenNic:
    mbit = net.number("speed")
    return SeenNic(shown(net.get("name"), 40) or "a NIC", mbit / 8_000 if mbit else None)


def _gpu(number: int, place: _Place, links: int, several: bool) -> SeenGpu:
    element = place.element
    vendor, device = (re.fullmatch(r"0x([0-9a-f]{4})", element.get(name)) for name in ("vendor", "device"))
    return SeenGpu(
        name=f"GPU{number}",
        host=place.host if several else "",
        device=f"{vendor[1]}:{device[1]}" if vendor and device else None,
        sm=next((gpu.number("sm") for gpu in element.inside("gpu")), None),
        links=links or None,
        pcie_gb_per_s=_pcie(element),
        cpus=shown(place.affinity, 80) or None,
        numa=shown(place.numa, 20) or None,
    )


def _pcie(element: _Element) -> float | None:
    speed, width = re.match(r"(\d{1,3}(?:\.\d)?) ?GT/s", element.get("link_speed")), element.number("link_width")
    lane = LANE.get(float(speed[1])) if speed else None
    return lane * width if lane and width and width <= 32 else None


@dataclass(frozen=True)
class _Links:
    """A GPU's NVLinks: to other GPUs by their number, and to switches, which may be out of sight."""

    direct: Mapping[int, int]
    switched: int


def _links(place: _Place, gpus: list[_Place]) -> _Links:
    by_bus = {other.element.get("busid"): j for j, other in enumerate(gpus) if other.host == place.host}
    direct: dict[int, int] = {}
    switched = 0
    for link in (
        link for gpu in place.element.inside("gpu") for link in gpu.children if link.tag in ("nvlink", "xgmi")
    ):
        j, count = by_bus.get(link.get("target")), min(link.number("count") or 0, MAX_LINKS)
        if j is None:
            switched += count
        else:
            direct[j] = direct.get(j, 0) + count
    return _Links(direct, switched)
