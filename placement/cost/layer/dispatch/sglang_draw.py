"""The copies that SGLang's `static` dispatch draws for good, number by number as its ranks draw them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from placement.problem.arrays import EMPTY, IntArray
from placement.problem.topology import Topology

#: Of `compute_logical_to_rank_dispatch_physical_map` (sglang 0.5.23, eplb/expert_location.py).
SEED = 42


def drawn_copies(layers: Sequence[IntArray], topology: Topology) -> list[IntArray]:
    """Each layer's [gpus, experts] slot that serves a home's tokens.

    Every rank draws by itself, over the layers of a map in order, and where it lists several copies for all GPUs that
    have none near. A layer's draws hang on those before it.

    Args:
        layers: [slots] logical experts of each row of the map, dense layers' rows included.
    """
    gpus, near = topology.gpus, topology.os_gpus
    found = [np.full((gpus, int(slots.max()) + 1), EMPTY, dtype=np.int64) for slots in layers]
    # Ranks of an OS node with the same copies of their own would draw alike; few do.
    for rank in range(gpus):
        numbers = random.Random(SEED)
        for slots, served in zip(layers, found, strict=True):
            width = len(slots) // gpus
            for expert in range(served.shape[1]):
                copies = np.flatnonzero(slots == expert).tolist()
                own = _near(copies, rank, width, near)
                if own == EMPTY:
                    far = [gpu for gpu in range(gpus) if _near(copies, gpu, width, near) == EMPTY]
                    own = dict(zip(far, _fair(copies, len(far), numbers), strict=True))[rank]
                served[rank, expert] = own
    return found


def _near(copies: list[int], gpu: int, width: int, os_gpus: int) -> int:
    """The only copy, the GPU's own, or the first of its OS node where not all are there; else EMPTY."""
    if len(copies) == 1:
        return copies[0]
    for slot in copies:
        if slot // width == gpu:
            return slot
    near = [slot for slot in copies if slot // width // os_gpus == gpu // os_gpus]
    return near[0] if 0 < len(near) < len(copies) else EMPTY


def _fair(copies: list[int], count: int, numbers: random.Random) -> list[int]:
    """`count` copies, each as often as any other but for the rest, in random order."""
    times, rest = divmod(count, len(copies))
    drawn = copies * times + numbers.sample(copies, k=rest)
    numbers.shuffle(drawn)
    return drawn
