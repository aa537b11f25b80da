"""Which GPUs of which machine every instance of a plan takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from placement.engines.launch.site import Site
from placement.errors import InputError
from placement.records.plan import Plan

#: The file that launch scripts look their seat up in, and its columns.
FILE = "instances.csv"
COLUMNS = ("role", "instance", "node", "host", "first_gpu", "gpus", "seat", "head", "head_seat")


@dataclass(frozen=True)
class Seat:
    """One OS node of an instance.

    Attributes:
        folder: Of its role. instance: Its number in the role. node: The OS node's number in the instance.
        host: The machine, as they are numbered from 0 on. domain: The fast-link domain that the machine is of.
        first_gpu, gpus: The GPUs that it takes there.
        seat: How many others take GPUs before these on the machine: ports are told apart by it.
        head, head_seat: `host` and `seat` of the instance's node 0.
    """

    folder: str
    instance: int
    node: int
    host: int
    domain: int
    first_gpu: int
    gpus: int
    seat: int
    head: int = 0
    head_seat: int = 0


@dataclass(frozen=True)
class _Piece:
    """What an instance takes of a fast-link domain; `whole`: all of it, as one that spans several does."""

    site: int
    gpus: int
    whole: bool


def seats(plan: Plan, sites: Sequence[Site]) -> tuple[Seat, ...]:
    """Where every instance lies, role after role; the machines in the order of the plan's nodes.

    Raises:
        InputError: Instances of unlike sizes do not fit the OS nodes of a fast-link domain.
    """
    free: dict[tuple[int, bool], list[Seat]] = {(i, whole): [] for i in range(len(sites)) for whole in (True, False)}
    hosts = 0
    for domain, pieces in enumerate(_domains(plan, sites)):
        room = sites[pieces[0].site].scenario.cluster.os_node_gpus
        used, held = Counter[int](), Counter[int]()
        for piece in sorted(pieces, key=lambda each: -sites[each.site].node_gpus):
            size = sites[piece.site].node_gpus
            machines = range(sites[piece.site].scenario.cluster.gpus_per_node // room)
            for _ in range(piece.gpus // size):
                at = next((machine for machine in machines if used[machine] + size <= room), None)
                if at is None:
                    raise InputError(
                        plan.scenario.name, "nodes", f"{size} GPUs of an instance fit no OS node of {room} GPUs beside "
                        "the others", "plan it with instances whose GPUs divide an OS node",
                    )  # fmt: skip
                seat = Seat("", 0, 0, hosts + at, domain, used[at], size, held[at])
                free[piece.site, piece.whole].append(seat)
                used[at] += size
                held[at] += 1
        hosts += len(used)
    return tuple(seat for i, site in enumerate(sites) for seat in _instances(site, free[i, True], free[i, False]))


def _instances(site: Site, whole: list[Seat], rest: list[Seat]) -> Iterator[Seat]:
    """The seats of a role, instance after instance: those of whole domains first."""
    room = site.scenario.cluster.gpus_per_node
    size = site.split.gpus_per_instance
    each = (size // room * room // site.node_gpus, size % room // site.node_gpus)
    for instance in range(site.split.instances):
        own = [*whole[instance * each[0] :][: each[0]], *rest[instance * each[1] :][: each[1]]]
        for node, seat in enumerate(own):
            yield replace(
                seat, folder=site.folder, instance=instance, node=node, head=own[0].host, head_seat=own[0].seat
            )


def _domains(plan: Plan, sites: Sequence[Site]) -> Iterator[list[_Piece]]:
    """What each fast-link domain holds that holds anything."""
    for group in plan.nodes:
        pieces = [
            _Piece(held.instance, held.gpus // held.count, held.gpus // held.count == _room(sites[held.instance]))
            for held in group.holds
            for _ in range(held.count)
        ]
        for _ in range(group.nodes):
            yield pieces
    if plan.nodes:
        return
    # Without a list of nodes instances fill them in order.
    for i, site in enumerate(sites):
        room, size, count = _room(site), site.split.gpus_per_instance, site.split.instances
        for _ in range(size // room * count):
            yield [_Piece(i, room, True)]
        if rest := size % room:
            for first in range(0, count, room // rest):
                yield [_Piece(i, rest, False)] * min(room // rest, count - first)


def _room(site: Site) -> int:
    return site.scenario.cluster.gpus_per_node


def seats_file(found: Sequence[Seat]) -> str:
    """The seats as CSV."""
    names = {"role": "folder"}
    rows = [[str(getattr(seat, names.get(name, name))) for name in COLUMNS] for seat in found]
    return "".join(f"{','.join(row)}\n" for row in [list(COLUMNS), *rows])


def seats_table(found: Sequence[Seat]) -> Iterator[str]:
    """A row for each machine, in Markdown."""
    yield "| host | fast-link domain | instances |"
    yield "|---|---|---|"
    for host in range(max(seat.host for seat in found) + 1):
        here = sorted((seat for seat in found if seat.host == host), key=lambda seat: seat.first_gpu)
        yield f"| {host} | {here[0].domain} | {'; '.join(_told(here))} |"


def _told(here: Sequence[Seat]) -> Iterator[str]:
    """Seats of a machine in words; instances of one node each that follow each other together."""
    i = 0
    while i < len(here):
        first = last = here[i]
        while i + 1 < len(here) and _follows(last, here[i + 1]):
            i += 1
            last = here[i]
        i += 1
        numbers = str(first.instance) if first is last else f"{first.instance} to {last.instance}"
        node = f" node {first.node}" if first.node or first.head != first.host else ""
        end = last.first_gpu + last.gpus - 1
        gpus = f"GPU {end}" if end == first.first_gpu else f"GPUs {first.first_gpu} to {end}"
        yield f"{first.folder} {numbers}{node} ({gpus})"


def _follows(seat: Seat, other: Seat) -> bool:
    alone = seat.node == other.node == 0
    return alone and (other.folder, other.instance) == (seat.folder, seat.instance + 1)
