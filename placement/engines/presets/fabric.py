"""Fabrics, and a scenario on one of them."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from pydantic import Field, TypeAdapter

from placement.engines.settings.catalog import FABRICS, EngineName, Fabric
from placement.errors import ParameterError
from specs.cluster import Cluster
from specs.documents import shipped_yaml
from specs.fields import Degree, Name, Spec, Text
from specs.loading import load_cluster
from specs.scenario import Scenario


class FabricRecord(Spec):
    """What a fabric is."""

    summary: Text
    """In a line."""
    clusters: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    """Clusters of the catalog that have it; the first stands for those that don't."""
    rails: Degree | None = None
    """NICs of a tray; unset: one."""
    backends: dict[EngineName, Annotated[tuple[Name, ...], Field(min_length=1, max_length=16)]]
    """All-to-all backends that run on it, by engine; the first is the engine's default."""


@lru_cache(maxsize=1)
def fabrics() -> dict[Fabric, FabricRecord]:
    """The fabrics by name."""
    return TypeAdapter(dict[Fabric, FabricRecord]).validate_python(shipped_yaml(__package__, "fabrics.yaml"))


def fabric_of(name: str) -> Fabric:
    """The fabric of a name.

    Raises:
        ParameterError: There is none; the message names those that there are.
    """
    found = next((each for each in FABRICS if each == name), None)
    if found is None:
        raise ParameterError("fabric", f"{name!r} is no fabric", f"choose {', '.join(FABRICS)}")
    return found


def natural_fabric(cluster: Cluster) -> Fabric:
    """The fabric inside a cluster's NVLink domains."""
    return "nvl72" if cluster.os_node_gpus < cluster.gpus_per_node else "nvlink"


def network_of(cluster: Cluster) -> Fabric:
    """The network between a cluster's NVLink domains; of one that the catalog does not know, InfiniBand."""
    networks: tuple[Fabric, ...] = ("ib", "efa", "ethernet")
    return next((fabric for fabric in networks if cluster.name in fabrics()[fabric].clusters), "ib")


def on_fabric(scenario: Scenario, fabric: Fabric) -> Scenario:
    """The scenario on a cluster that has the fabric: its own, or the first of the catalog's that has such GPUs.

    A cluster that the catalog does not know is taken to have the network that is asked for.

    Args:
        scenario: What is served.
        fabric: Where the experts' messages go.
    """
    known = {name for record in fabrics().values() for name in record.clusters}
    own, cluster = fabrics()[fabric].clusters, scenario.cluster
    has = natural_fabric(cluster) == fabric if fabric in ("nvlink", "nvl72") else cluster.name not in known
    if fabric == "nvlink" or has or cluster.name in own:
        return scenario
    others = [load_cluster(name) for name in own]
    alike = [each for each in others if each.gpu.generation == cluster.gpu.generation]
    return scenario.model_copy(update={"cluster": (alike or others)[0]})


def rails_of(cluster: Cluster, fabric: Fabric) -> int:
    """NICs of an OS node."""
    trays = max(1, cluster.os_node_gpus // cluster.gpus_per_tray)
    rails = fabrics()["nvl72"].rails if natural_fabric(cluster) == "nvl72" else fabrics()[fabric].rails
    return trays * (rails or 1)
