"""A fabric built of Linux network namespaces: one a node, and one that holds the bridge between them.

    node 0: uplink -- tbf --> port 0 |        | port 1 <-- tbf -- uplink :node 1
                      <-- tbf --     | bridge |     -- tbf -->

Every address, route and queue lies inside these namespaces; the machine's own network is not touched. Their names hold
the process that made them, so that the next start can tell and remove what a killed one left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.alltoall.fabric import Fabric
from bench.alltoall.process import Place
from placement.errors import MissingExtraError

PREFIX = "plfab"
FOLDER = Path("/run/netns")
#: The uplink's name inside a node.
UPLINK = "uplink"
_NEEDS = "a shaped fabric needs root and iproute2"
_MEND = "run as root where 'ip netns add' works (apt-get install iproute2), or leave --fabric out"


@contextmanager
def shaped(fabric: Fabric, nodes: int) -> Iterator[tuple[Place, ...]]:
    """The places of a fabric's nodes while it stands; it is taken down whatever happens, short of kill -9.

    Raises:
        MissingExtraError: no root, no iproute2, or a kernel that does not let them.
    """
    if os.geteuid() != 0:
        raise MissingExtraError(f"{_NEEDS}: this is user {os.geteuid()}; {_MEND}")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise MissingExtraError(f"{_NEEDS}: there is no '{tool}'; {_MEND}")
    remove_leftovers()
    own = f"{PREFIX}-{os.getpid()}-{_started(os.getpid())}"
    with _terminated_as_exit():
        try:
            yield _build(fabric, nodes, own)
        finally:
            _remove(own)


def leftovers() -> list[str]:
    """Namespaces of this kind whose maker is no longer there."""
    return [name for name in _names(PREFIX + "-") if not _alive(name)]


def remove_leftovers() -> None:
    """Removes the namespaces that killed runs have left, with the ranks that are still in them."""
    for name in leftovers():
        for pid in _run("ip", "netns", "pids", name, check=False).split():
            os.kill(int(pid), signal.SIGKILL)
        _run("ip", "netns", "del", name, check=False)


def _build(fabric: Fabric, nodes: int, own: str) -> tuple[Place, ...]:
    bridge = f"{own}-bridge"
    shape = (
        "tbf", "rate", f"{round(fabric.uplink_mbit_per_s * 1e6)}bit", "burst", f"{fabric.burst_kib}k",
        "limit", f"{fabric.queue_mib * 2**20}",
    )  # fmt: skip
    _run("ip", "netns", "add", bridge)
    _run("ip", "-n", bridge, "link", "add", "br0", "mtu", str(fabric.mtu), "type", "bridge")
    _run("ip", "-n", bridge, "link", "set", "br0", "up")
    places = []
    for node in range(nodes):
        name, port = f"{own}-node{node}", f"port{node}"
        _run("ip", "netns", "add", name)
        _run("ip", "-n", bridge, "link", "add", port, "type", "veth", "peer", "name", UPLINK, "netns", name)
        for where, link in ((bridge, port), (name, UPLINK)):
            _run("ip", "-n", where, "link", "set", link, "mtu", str(fabric.mtu))
        _run("ip", "-n", bridge, "link", "set", port, "master", "br0")
        _run("ip", "-n", name, "addr", "add", f"10.77.{node // 250}.{node % 250 + 1}/16", "dev", UPLINK)
        for where, link in ((bridge, port), (name, UPLINK), (name, "lo")):
            _run("ip", "-n", where, "link", "set", link, "up")
        # Nothing is lost in so deep a queue, and no slow start after a pause: the bucket decides, not the transport.
        _run("ip", "-n", name, "route", "change", "10.77.0.0/16", "dev", UPLINK, "initcwnd", "64", "congctl", "reno")
        _run("tc", "-n", name, "qdisc", "add", "dev", UPLINK, "root", *shape)
        _run("tc", "-n", bridge, "qdisc", "add", "dev", port, "root", *shape)
        places.append(Place(str(FOLDER / name), UPLINK))
    return tuple(places)


def _remove(own: str) -> None:
    for name in _names(own + "-"):
        _run("ip", "netns", "del", name, check=False)


def _names(prefix: str) -> list[str]:
    return sorted(path.name for path in FOLDER.glob(f"{prefix}*")) if FOLDER.is_dir() else []


def _alive(name: str) -> bool:
    """Whether the process that a namespace is named after is still the one that made it."""
    _, pid, started, *_ = [*name.split("-"), "", ""]
    return pid.isdigit() and started != "" and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        told = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise MissingExtraError(f"{_NEEDS}: '{' '.join(command[:6])}' says: {told}; {_MEND}")
    return done.stdout


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """SIGTERM and SIGHUP as an exit that cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
