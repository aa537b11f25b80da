"""Small topology files, made up: texts of nvidia-smi, and XMLs of NCCL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


def matrix(
    gpus: int, nics: int, between: Callable[[int, int], str], to_nic: Callable[[int, int], str], style: str = ""
) -> str:
    """The text of `nvidia-smi topo -m`, by the cells of its pairs."""
    names = [f"GPU{i}" for i in range(gpus)] + [f"NIC{i}" for i in range(nics)]
    lines = ["\t" + "\t".join(f"{style}{name}" for name in names) + "\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID"]
    for i in range(gpus):
        cells = [" X " if i == j else between(i, j) for j in range(gpus)] + [to_nic(i, j) for j in range(nics)]
        half = 2 * i // gpus
        lines.append("\t".join((f"GPU{i}", *cells, f"{half * 8}-{half * 8 + 7}", str(half), "N/A")))
    return "\n".join(lines) + "\n\nLegend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n"


def rails(gpus: int = 8, links: str = "NV18") -> str:
    """A machine as it should be: all GPUs on a switch, one NIC each on its PCIe switch."""
    return matrix(gpus, gpus, lambda i, j: links, lambda i, j: "PIX" if i == j else "SYS")


@dataclass(frozen=True)
class Slot:
    """A PCIe switch of the XML: GPUs and NICs on it."""

    gpus: Sequence[str]
    nics: Sequence[str] = ()
    cpu: int = 0


def xml(
    slots: Sequence[Slot], links: Mapping[str, Mapping[str, int]] | None = None, device: str = "0x2330",
    speed: int | None = 400_000, width: str = "16", host: str = "", known: bool = True,
) -> str:  # fmt: skip
    """A topology as NCCL dumps it.

    Args:
        slots: PCIe switches. links: NVLinks of a GPU by target, a bus address or "switch".
        known: whether `gpu` elements are there, as in a dump.
    """
    lines = ['<system version="1">']
    for cpu in sorted({slot.cpu for slot in slots}):
        told = f'host_hash="{host}" ' if host else ""
        lines.append(
            f'<cpu {told}numaid="{cpu}" affinity="ff" arch="x86_64" vendor="AuthenticAMD" familyid="25" modelid="1">'
        )
        for slot in (slot for slot in slots if slot.cpu == cpu):
            bus = f"ff:{slot.gpus[0] if slot.gpus else slot.nics[0]}"
            lines.append(f'<pci busid="{bus}" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">')
            for gpu in slot.gpus:
                lines.append(
                    f'<pci busid="{gpu}" class="0x030200" vendor="0x10de" device="{device}" '
                    f'link_speed="32.0 GT/s PCIe" link_width="{width}">'
                )
                if known:
                    lines.append(f'<gpu dev="{int(gpu, 16)}" sm="90" rank="0" gdr="1">')
                    for target, count in (links or {}).get(gpu, {}).items():
                        where = ("fffffff:ff:ff.0", "0x068000") if target == "switch" else (target, "0x030200")
                        lines.append(f'<nvlink target="{where[0]}" count="{count}" tclass="{where[1]}"/>')
                    lines.append("</gpu>")
                lines.append("</pci>")
            for nic in slot.nics:
                lines.append(f'<pci busid="{nic}" class="0x020700" link_speed="32.0 GT/s PCIe" link_width="16">')
                if speed is not None:
                    lines.append(
                        f'<nic><net name="mlx5_{int(nic, 16)}" dev="{int(nic, 16)}" speed="{speed}" port="1"/></nic>'
                    )
                lines.append("</pci>")
            lines.append("</pci>")
        lines.append("</cpu>")
    return "\n".join((*lines, "</system>"))


def hgx(**changes: object) -> str:
    """Eight H100 on an NVSwitch out of sight, each on a PCIe switch with a NIC of its own."""
    slots = [Slot([f"{i:02x}"], [f"{i + 64:02x}"], i // 4) for i in range(8)]
    links = {f"{i:02x}": {"switch": 18} for i in range(8)}
    return xml(slots, links, **changes)  # type: ignore[arg-type]
