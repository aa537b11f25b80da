"""What it takes to turn one placement into another: bytes of expert weights on every link, and the time of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.errors import InputError
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray, frozen
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology


@dataclass(frozen=True)
class Transfer:
    """Bytes that links carry to move experts. Transfers of layers on the same GPUs add up.

    Attributes:
        topology: the GPUs. fast_bytes_per_s, slow_bytes_per_s: rates of a GPU's links, per direction.
        moves: experts that come to a GPU that did not hold them. loaded: those of them that no GPU could send.
        fast_in, fast_out: [gpus] bytes into and out of each GPU on its fast link.
        slow_in, slow_out: [gpus] the same across nodes; what comes from a host or storage counts in slow_in.
    """

    topology: Topology
    fast_bytes_per_s: float
    slow_bytes_per_s: float
    moves: int
    loaded: int
    fast_in: FloatArray
    slow_in: FloatArray
    fast_out: FloatArray
    slow_out: FloatArray

    def __post_init__(self) -> None:
        for name in ("fast_in", "slow_in", "fast_out", "slow_out"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.float64))

    @property
    def seconds(self) -> float:
        """Seconds of the busiest link, one direction, when all transfers run at once; a tray's GPUs share its NICs."""
        fast = max(self.fast_in.max(), self.fast_out.max()) / self.fast_bytes_per_s
        trays = (-1, self.topology.gpus_per_tray)
        slow = max(part.reshape(trays).mean(axis=1).max() for part in (self.slow_in, self.slow_out))
        return float(max(fast, slow / self.slow_bytes_per_s))

    @property
    def bytes(self) -> float:
        """All bytes that arrive at a GPU."""
        return float(self.fast_in.sum() + self.slow_in.sum())

    def __add__(self, other: Transfer) -> Transfer:
        """Both transfers at once, as when several layers move together.

        Raises:
            InputError: they are of unlike GPUs or rates.
        """
        mine = (self.topology, self.fast_bytes_per_s, self.slow_bytes_per_s)
        if mine != (other.topology, other.fast_bytes_per_s, other.slow_bytes_per_s):
            raise InputError("transfer", "topology", "unlike GPUs or rates", "add transfers of one set of GPUs")
        return replace(
            self, moves=self.moves + other.moves, loaded=self.loaded + other.loaded,
            fast_in=self.fast_in + other.fast_in, slow_in=self.slow_in + other.slow_in,
            fast_out=self.fast_out + other.fast_out, slow_out=self.slow_out + other.slow_out,
        )  # fmt: skip


def transfer(
    topology: Topology,
    current: IntArray,
    slots: IntArray,
    slots_per_gpu: int,
    expert_bytes: float,
    rates: LayerRates,
    alive: BoolArray | None = None,
) -> Transfer:
    """The transfers from placement `current` to `slots`.

    An expert comes from a GPU that held it in `current`: one of the same node if there is one, over the fast link, else
    one of another node. Of several the one that has sent the least so far is taken (its tray, then itself, then the
    lower index), experts with the fewest holders first. An expert that no alive GPU held comes from a host or storage.

    Args:
        current, slots: [slots] logical expert of each slot, or EMPTY.
        expert_bytes: bytes of one expert's weights.
        alive: [gpus] GPUs that can send (LayerProblem.alive), or None for all.

    Raises:
        InputError: placements of other lengths, negative bytes, or `alive` of another length.
    """
    current, slots = np.asarray(current, dtype=np.int64), np.asarray(slots, dtype=np.int64)
    gpus, m, tray = topology.gpus, topology.gpus_per_node, topology.gpus_per_tray
    for name, array in (("current", current), ("slots", slots)):
        if array.shape != (gpus * slots_per_gpu,):
            raise InputError("transfer", name, f"shape {array.shape} is not ({gpus * slots_per_gpu},)", "one a slot")
    if not expert_bytes >= 0:
        raise InputError("transfer", "expert_bytes", f"{expert_bytes:g} bytes", "give the size of an expert's weights")
    sends = np.ones(gpus, dtype=bool) if alive is None else np.asarray(alive, dtype=bool)
    if sends.shape != (gpus,):
        raise InputError("transfer", "alive", f"shape {sends.shape} for {gpus} GPUs", "give one entry a GPU")

    experts = int(max(current.max(initial=0), slots.max(initial=0))) + 1
    gpu_of_slot = np.arange(len(slots)) // slots_per_gpu
    before, after = np.zeros((gpus, experts), dtype=bool), np.zeros((gpus, experts), dtype=bool)
    before[gpu_of_slot[current != EMPTY], current[current != EMPTY]] = True
    after[gpu_of_slot[slots != EMPTY], slots[slots != EMPTY]] = True
    holders = before & sends[:, None]
    to, what = np.nonzero(after & ~before)
    order = np.lexsort((to, what, holders[:, what].sum(axis=0)))
    fast_in, slow_in = np.zeros(gpus), np.zeros(gpus)
    fast_out, slow_out = np.zeros(gpus), np.zeros(gpus)
    loaded = 0
    for g, e in zip(to[order], what[order], strict=True):
        sources = np.flatnonzero(holders[:, e])
        near = sources[sources // m == g // m]
        if len(near):
            source = near[np.argmin(fast_out[near])]
            fast_out[source] += expert_bytes
            fast_in[g] += expert_bytes
            continue
        slow_in[g] += expert_bytes
        if not len(sources):
            loaded += 1
            continue
        by_tray = slow_out.reshape(-1, tray).sum(axis=1)[sources // tray]
        source = sources[np.lexsort((sources, slow_out[sources], by_tray))[0]]
        slow_out[source] += expert_bytes
    return Transfer(
        topology, rates.fast_bytes_per_s, rates.slow_bytes_per_s, len(to), loaded, fast_in, slow_in, fast_out, slow_out
    )
