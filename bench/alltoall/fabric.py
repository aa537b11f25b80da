"""A shaped fabric: what fabric.yaml says, and what the scorer takes its links to be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from placement.problem.rates import LayerRates
from specs.documents import parse_yaml, read_text, shown
from specs.fields import Positive, Spec, Text
from specs.validation import validate

#: Bytes of a frame that are no payload: Ethernet 14, IPv4 20, TCP with timestamps 32.
_ETHERNET, _HEADERS = 14, 52

Whole = Annotated[int, Field(strict=True)]


class Fabric(Spec):
    """Nodes on one machine, joined by uplinks of a limited rate. docs/alltoall.md tells the fields."""

    name: Text = "fabric"
    #: Rate of each node's uplink in each direction, frames and all.
    uplink_mbit_per_s: Positive
    #: What one rank moves to another one of its node, and what an exchange of nothing takes: for predictions alone.
    local_mb_per_s: Positive = 200.0
    latency_ms: Positive = 5.0
    mtu: Annotated[Whole, Field(ge=1280, le=65_000)] = 9000
    #: Token bucket, and the queue before it. The bucket bridges the shaper's late turns on busy cores. The queue is
    #: deep: a link waits rather than drops, as InfiniBand does.
    burst_kib: Annotated[Whole, Field(ge=2, le=65_536)] = 256
    queue_mib: Annotated[Whole, Field(ge=1, le=1_024)] = 64

    @property
    def uplink_bytes_per_s(self) -> float:
        """Payload bytes/s of a node's uplink in one direction."""
        return self.uplink_mbit_per_s * 1e6 / 8 * (self.mtu - _HEADERS) / (self.mtu + _ETHERNET)

    def rates(self, rates: LayerRates, gpus_per_node: int) -> LayerRates:
        """The scorer's prices with this fabric's links: a node's ranks share its uplink (its tray is the node)."""
        from dataclasses import replace

        latency = self.latency_ms * 1e-3
        return replace(
            rates,
            fast_bytes_per_s=self.local_mb_per_s * 1e6,
            slow_bytes_per_s=self.uplink_bytes_per_s / gpus_per_node,
            fast_latency_s=latency,
            slow_latency_s=latency,
        )


def read_fabric(path: str | Path) -> Fabric:
    """The fabric in a YAML file.

    Raises:
        InputError: it can't be read, or is no valid fabric.
    """
    source = shown(str(path), 200)
    fabric: Fabric = validate(Fabric, parse_yaml(read_text(Path(path), source), source), source)
    return fabric
