"""From a topology file to a cluster's YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from specs.cluster import Cluster
from specs.documents import read_text, shown
from specs.topologies.derive import Given, derive_cluster
from specs.topologies.findings import findings
from specs.topologies.machine import Machine
from specs.topologies.nccl import read_xml
from specs.topologies.smi import read_matrix


@dataclass(frozen=True)
class Reading:
    """A cluster from a topology file.

    Attributes:
        machine: What the file tells. cluster: of machines like it.
        warnings: What the machine shows that costs time. assumed: What the file did not say; one sentence each.
    """

    machine: Machine
    cluster: Cluster
    warnings: tuple[str, ...]
    assumed: tuple[str, ...]

    def yaml(self) -> str:
        """The cluster's file, with warnings and assumptions as comments."""
        told = [f"Read from {Path(self.machine.source).name}."]
        told += [f"Warning: {text}." for text in self.warnings] + [f"Assumed: {text}." for text in self.assumed]
        lines = [line for text in told for line in textwrap.wrap(text, 116, break_on_hyphens=False)]
        data = self.cluster.model_dump(mode="json")
        body = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
        return "".join(f"# {line}\n" for line in lines) + body


def read_machine(path: str | Path) -> Machine:
    """The machine in a file: the text of `nvidia-smi topo -m`, or an NCCL topology XML.

    Raises:
        InputError: the file can't be read, or is neither.
    """
    source = shown(str(path), 200)
    text = read_text(Path(path), source)
    return read_xml(text, source) if text.lstrip().startswith("<") else read_matrix(text, source)


def read_topology(
    path: str | Path, given: Given | None = None, on_warning: Callable[[str], None] | None = None
) -> Reading:
    """The cluster of machines like the one in a topology file.

    Args:
        path: The file.
        given: What the file does not say.
        on_warning: Hears each warning as soon as the file is read, whether or not a cluster comes of it.

    Raises:
        InputError: The file can't be read, its GPU is not known, or what is given does not fit it.
    """
    machine = read_machine(path)
    warnings = findings(machine)
    if on_warning is not None:
        for text in warnings:
            on_warning(text)
    derived = derive_cluster(machine, given or Given())
    return Reading(machine, derived.cluster, warnings, derived.assumed)
