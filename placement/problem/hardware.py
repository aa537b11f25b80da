"""What a layer runs on: GPUs, their slots and links, what work and bytes cost there, whose tokens start where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.problem.arrays import BoolArray, FloatArray, FrozenArrays, IntArray, frozen
from placement.problem.data import check_shares
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology


@dataclass(frozen=True)
class LayerHardware(FrozenArrays):
    """GPUs of one layer's expert-parallel group.

    Attributes:
        topology, slots_per_gpu: where slots are. A slot holds one copy of an expert; GPU = slot // slots_per_gpu.
        rates: what work and bytes cost.
        capacity: [gpus] slots that a GPU can use, 0 (a failed GPU) to slots_per_gpu, or None for all. Those beyond it
            hold EMPTY, behind the used ones; every usable slot holds an expert. A failed GPU carries no messages.
        speed: [gpus] rate of expert work relative to `rates`, positive, or None for 1. Objective "load", balancedness
            and `max_load` see GPU loads over `relative_speed`.
        home: [gpus] share of the tokens whose home is that GPU, or None: alike over GPUs with capacity. Sums to 1,
            0 at a failed GPU. All homes together always have tokens_per_gpu * gpus tokens.

    Raises:
        InputError: a field of the wrong shape or out of its range.
    """

    topology: Topology
    slots_per_gpu: int
    rates: LayerRates
    capacity: IntArray | None = None
    speed: FloatArray | None = None
    home: FloatArray | None = None

    def __post_init__(self) -> None:
        self._freeze("capacity", np.int64, "iu")
        self._freeze("speed", np.float64)
        self._freeze("home", np.float64)
        if self.slots_per_gpu < 1:
            raise InputError("layer", "slots_per_gpu", f"{self.slots_per_gpu} slots", "give at least 1")
        for name in ("capacity", "speed", "home"):
            value = getattr(self, name)
            if value is not None and value.shape != (self.topology.gpus,):
                told = f"shape {value.shape} for {self.topology.gpus} GPUs"
                raise InputError("layer", name, told, "give one entry a GPU")
        if self.capacity is not None:
            wrong = (self.capacity < 0) | (self.capacity > self.slots_per_gpu)
            self._refuse("capacity", wrong, f"of {self.slots_per_gpu} slots", f"give 0 to {self.slots_per_gpu}")
        if self.speed is not None:
            wrong = ~(np.isfinite(self.speed) & (self.speed > 0))
            self._refuse("speed", wrong, "", "speeds are positive; a failed GPU has capacity 0")
        if self.home is not None:
            check_shares("home", self.home, "the shares of tokens")
            self._refuse("home", (self.home > 0) & ~self.alive, "but no capacity", "a failed GPU is no home")

    def _refuse(self, field: str, wrong: BoolArray, told: str, mend: str) -> None:
        if wrong.any():
            gpu = int(np.flatnonzero(wrong)[0])
            value = f"GPU {gpu} has {field} {getattr(self, field)[gpu]:g} {told}".rstrip()
            raise InputError("layer", field, value, mend)

    @property
    def slots(self) -> int:
        """Length of a placement: gpus * slots_per_gpu, usable or not."""
        return self.topology.gpus * self.slots_per_gpu

    @cached_property
    def gpu_of_slot(self) -> IntArray:
        """[slots] GPU of each slot."""
        return self._kept(np.arange(self.slots) // self.slots_per_gpu, np.int64)

    @cached_property
    def capacities(self) -> IntArray:
        """[gpus] usable slots of each GPU."""
        return self._kept(self.slots_per_gpu if self.capacity is None else self.capacity, np.int64)

    @property
    def usable_slots(self) -> int:
        """Slots that hold an expert."""
        return int(self.capacities.sum())

    @cached_property
    def usable(self) -> BoolArray:
        """[slots] whether a slot holds an expert."""
        place = np.arange(self.slots_per_gpu)
        return frozen((place[None, :] < self.capacities[:, None]).reshape(-1), np.bool_)

    @cached_property
    def alive(self) -> BoolArray:
        """[gpus] whether a GPU has any capacity."""
        return self._kept(self.capacities > 0, np.bool_)

    @cached_property
    def entry_share(self) -> FloatArray:
        """[nodes, ranks, ranks] share of a home rank's tokens that enters a node at each GPU (a rule that forwards).

        All at the GPU of the same rank; where that GPU has failed, equal shares at the node's others.
        """
        alive = self.alive.reshape(self.topology.nodes, -1)
        shared = alive / np.maximum(alive.sum(axis=1, keepdims=True), 1)
        return frozen(np.where(alive[:, :, None], np.eye(alive.shape[1]), shared[:, None, :]), np.float64)

    @cached_property
    def speeds(self) -> FloatArray:
        """[gpus] rate of expert work relative to `rates`."""
        return self._kept(1.0 if self.speed is None else self.speed, np.float64)

    @cached_property
    def relative_speed(self) -> FloatArray:
        """[gpus] speed over the mean speed of GPUs with capacity: what GPU loads are divided by."""
        usable = self.speeds[self.alive]
        # Not speed / mean where all are equal: its rounding would tell equal GPUs from no speeds at all.
        return self._kept(1.0 if (usable == usable[0]).all() else self.speeds / usable.mean(), np.float64)

    @property
    def uniform_home(self) -> bool:
        """Whether every GPU is the home of as many tokens."""
        return bool(self.alive.all()) if self.home is None else bool((self.home == self.home[0]).all())

    @cached_property
    def homes(self) -> FloatArray:
        """[gpus] share of the tokens whose home is that GPU; sums to 1."""
        if self.uniform_home:
            return self._kept(1.0 / self.topology.gpus, np.float64)
        return self._kept(self.alive / self.alive.sum() if self.home is None else self.home, np.float64)

    @cached_property
    def home_tokens(self) -> FloatArray:
        """[gpus] tokens whose home is that GPU."""
        n = self.rates.tokens_per_gpu
        return self._kept(n if self.uniform_home else n * self.topology.gpus * self.homes, np.float64)

    def _kept(self, value: Any, dtype: Any) -> NDArray[Any]:
        """A frozen array of one entry a GPU; an array stays as long as it is."""
        array = np.asarray(value)
        return frozen(array if array.ndim else np.full(self.topology.gpus, array), dtype)
