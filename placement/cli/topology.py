"""`placement topology read`: what a machine's tools tell of its links, as a cluster's file."""

from __future__ import annotations

import click

from placement.cli.command import Command
from placement.cli.options import positive
from placement.cli.running import emit, note, run


@click.group("topology")
def topology() -> None:
    """Clusters from what machines tell of themselves."""


@topology.command("read", cls=Command, short_help="Turn a topology file into a cluster.")
@click.argument("file")
@click.option("--gpu", metavar="NAME", help="The GPU, by its name in the catalog's clusters, or one of these clusters.")
@click.option(
    "--nodes", type=click.IntRange(1, 65_536), default=1, show_default=True, metavar="N", help="Nodes of the cluster."
)
@click.option(
    "--machines-per-node",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    metavar="N",
    help="Machines of one NVLink domain, each as in FILE (18 trays of an NVL72 rack).",
)
@click.option("--nic-gb-per-s", type=positive, metavar="RATE", help="Rate of one NIC, per direction.")
@click.option("--pcie-gb-per-s", type=positive, metavar="RATE", help="Rate of a GPU's PCIe link, per direction.")
@click.option("--out", metavar="FILE", help="Write the cluster there instead of to stdout.")
def read_command(file: str, out: str | None, **given: float | str | None) -> None:
    """Turn FILE into a cluster, and warn of what it shows.

    FILE is the text of 'nvidia-smi topo -m', or an NCCL topology XML (NCCL_TOPO_DUMP_FILE). What it does not say is
    taken from the catalog's cluster with the same GPU, and named in the result's comments.
    """
    from placement.records.files import write_text
    from specs.topologies.derive import Given
    from specs.topologies.reading import read_topology

    command = click.get_current_context().command
    reading = read_topology(file, Given(**given), lambda text: note(f"warning: {text}"))  # type: ignore[arg-type]
    for text in reading.assumed:
        note(f"assumed: {command.with_options(text) if isinstance(command, Command) else text}")
    if out is None:
        emit(reading.yaml())
    else:
        write_text(out, reading.yaml(), "`out`")


def main() -> None:
    """Entry point of `python -m placement.topology`."""
    run(topology, "placement.topology")


if __name__ == "__main__":
    main()
