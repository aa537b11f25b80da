"""What launching an engine takes: one class an engine says all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from placement.engines.launch.site import Instance, Site
from placement.engines.launch.switches import Option, Switches, Variable
from placement.errors import InputError
from specs.fields import DataType


class Launcher(Protocol):
    """How an engine is launched.

    Attributes:
        name: Of the engine. switches: What it takes.
        accelerator: What Kubernetes and Docker call its devices. devices: The variable that picks some of a machine's.
        model_word: Whether the model is a word of the command rather than an option.
        no_prefix_cache: What switches off the prefix cache, which is on by default.
    """

    name: str
    switches: Switches
    accelerator: str
    devices: str
    model_word: bool
    no_prefix_cache: str

    def program(self, site: Site) -> tuple[str, ...]:
        """The words that start the engine."""
        ...

    def scripts(self, site: Site) -> int:
        """Launch scripts of an instance: one for each OS node, or one for all."""
        ...

    def start(self, site: Site) -> Iterator[str]:
        """What a user runs for an instance, one line a script."""
        ...

    def options(self, site: Site, node: int) -> Iterator[Option]:
        """The options of an instance's node."""
        ...

    def variables(self, site: Site, node: int) -> Iterator[Variable]:
        """The environment of an instance's node."""
        ...

    def files(self, site: Site) -> dict[str, str]:
        """Further files beside the launch scripts, by name."""
        ...

    def router(self, sites: Sequence[Site]) -> str:
        """The end of a bash script that sends requests to all instances, told by `servers ROLE`; "" for none."""
        ...

    def notes(self, site: Site) -> Iterator[str]:
        """What the engine does otherwise than planned or ignores in silence, one sentence each."""
        ...

    def taken(self, site: Site) -> Iterator[str]:
        """How to check that the map was taken, one step each, in Markdown."""
        ...


def start_nodes(site: Site) -> Iterator[str]:
    """The scripts of an instance, each run on its OS node."""
    for node in range(site.nodes):
        gpus = "1 GPU" if site.node_gpus == 1 else f"{site.node_gpus} GPUs"
        yield f"bash {site.folder}/node-{node}.sh    # {site.folder}, OS node {node}: {gpus}"


class NodeLauncher:
    """What launchers share whose instances run one script on each OS node."""

    switches: Switches

    def program(self, site: Site) -> tuple[str, ...]:
        """See Launcher."""
        return self.switches.program

    def scripts(self, site: Site) -> int:
        """See Launcher."""
        return site.nodes

    def start(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        return start_nodes(site)


def kv_option(switches: Switches, site: Instance, names: dict[DataType, str]) -> Iterator[Option]:
    """The KV cache's type where it is not the model's own; `names`: what the engine calls it."""
    stored = site.scenario.model.types.kv_cache
    if stored in names:
        yield switches.option("--kv-cache-dtype", names[stored], reason=f"the plan stores the KV cache in {stored}")


def refuse_instances(site: Site, engine: str, problem: str, mend: str) -> InputError:
    """The error of a role that the engine does not run."""
    return InputError(engine, f"{site.role.role} instances", problem, mend)


def stage_text(site: Site) -> str:
    """Layers of each stage, as engines' variables take them."""
    return ",".join(map(str, site.stage_layers))
