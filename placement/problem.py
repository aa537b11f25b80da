"""The expert-placement problem of one MoE layer: immutable arrays, checked once on construction.

Words: an expert is a logical expert; a slot holds one copy of an expert; GPU = slot // slots_per_gpu;
node = gpu // gpus_per_node; NIC group (tray) = gpu // gpus_per_tray.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from specs.schema import Dispatch, MessageRule

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: "time": expected MoE-layer seconds; "load": largest expected GPU load over the mean (needs load counts alone).
Objective = Literal["time", "load"]


def frozen(array: Any, dtype: Any) -> Any:
    """A contiguous copy of `array` that can't be written to."""
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True)
class Topology:
    """GPUs of one expert-parallel group on their links."""

    gpus: int
    gpus_per_node: int
    gpus_per_tray: int = 1

    def __post_init__(self) -> None:
        if min(self.gpus, self.gpus_per_node, self.gpus_per_tray) < 1:
            raise InputError("topology", "gpus", "sizes must be positive", "give sizes of at least 1")
        if self.gpus % self.gpus_per_node:
            raise InputError(
                "topology", "gpus", f"{self.gpus} GPUs do not fill nodes of {self.gpus_per_node}", "use whole nodes"
            )
        if self.gpus_per_node % self.gpus_per_tray:
            raise InputError(
                "topology", "gpus_per_tray", f"{self.gpus_per_tray} does not divide a node", "use whole trays"
            )

    @property
    def nodes(self) -> int:
        return self.gpus // self.gpus_per_node

    @property
    def node_of_gpu(self) -> IntArray:
        return np.arange(self.gpus, dtype=np.int64) // self.gpus_per_node


@dataclass(frozen=True)
class LayerRates:
    """What work and bytes cost in one MoE layer, in SI units; built by placement.cost.rates from a scenario.

    A slot with n tokens takes max((1 - exp(-n)) * weight_s, n * token_s): reading its weights once if it is touched
    (the chance of it, for a Poisson count of mean n), or multiplying n tokens.
    """

    tokens_per_gpu: float
    weight_s: float
    token_s: float
    dispatch_bytes: float
    combine_bytes: float
    fast_bytes_per_s: float
    slow_bytes_per_s: float
    fast_latency_s: float
    slow_latency_s: float
    overlap: Literal["none", "two_batch"] = "none"


@dataclass(frozen=True)
class TokenSets:
    """The distinct k-sets of experts that tokens of a layer use.

    Attributes:
        ids: [sets, k] experts, ascending in each row.
        weight: [windows, sets] share of the window's tokens; each row sums to 1.
    """

    ids: NDArray[np.int32]
    weight: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", frozen(self.ids, np.int32))
        object.__setattr__(self, "weight", frozen(self.weight, np.float64))


@dataclass(frozen=True)
class LayerProblem:
    """One layer's placement problem.

    Attributes:
        load: [windows, experts] expected copies of a token that go to each expert (a row sums to k).
        window_weight: [windows] weight of each window in the mean; sums to 1.
        topology, slots_per_gpu: where slots are.
        rates: prices.
        sets: tokens as k-sets; None where only load counts are known (then messages are counted per expert).
        dispatch, rule, objective: what is optimized.
        group: [experts] group of each expert whose copies must all lie on one node, or None.
        current: [slots] placement to start from, or None; max_moves bounds the slots whose expert its GPU did not hold.
        max_load: largest allowed GPU load as a multiple of the mean GPU load, both of the loads averaged over the
            windows (LayerScore.pooled_imbalance), or None.
    """

    load: FloatArray
    topology: Topology
    slots_per_gpu: int
    rates: LayerRates
    sets: TokenSets | None = None
    window_weight: FloatArray = field(default_factory=lambda: np.ones(1))
    dispatch: Dispatch = "even"
    rule: MessageRule = "per_node"
    objective: Objective = "time"
    group: IntArray | None = None
    current: IntArray | None = None
    max_moves: int | None = None
    max_load: float | None = None

    def __post_init__(self) -> None:
        load = frozen(np.atleast_2d(self.load), np.float64)
        object.__setattr__(self, "load", load)
        weight = self.window_weight
        if len(weight) != len(load):
            weight = np.full(len(load), 1.0 / len(load))
        object.__setattr__(self, "window_weight", frozen(weight, np.float64))
        for name in ("group", "current"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, frozen(value, np.int64))
        self._check()

    def _check(self) -> None:
        if not np.isfinite(self.load).all() or (self.load < 0).any():
            raise InputError("loads", "load", "loads must be finite and not negative", "mend the counts")
        if (self.load.sum(axis=1) <= 0).any():
            raise InputError("loads", "load", "a window has no load at all", "leave empty windows out")
        if self.slots < self.experts:
            raise InputError(
                "layer", "slots", f"{self.slots} slots cannot hold {self.experts} experts",
                f"give at least {-(-self.experts // self.topology.gpus)} slots per GPU",
            )  # fmt: skip
        if self.slots_per_gpu > self.experts:
            raise InputError(
                "layer", "slots_per_gpu", f"{self.slots_per_gpu} slots per GPU but {self.experts} experts",
                "no two copies of an expert may share a GPU; use fewer redundant experts",
            )  # fmt: skip
        if self.sets is not None and self.sets.weight.shape[0] != self.windows:
            raise InputError(
                "trace", "windows", "token sets and loads have unlike windows", "build both from one trace"
            )
        if self.group is not None and len(self.group) != self.experts:
            raise InputError("layer", "group", "needs one entry an expert", "give the group of every expert")
        if self.current is not None and len(self.current) != self.slots:
            raise InputError("layer", "current", "needs one entry a slot", "use a placement of the same slots")
        if self.max_moves is not None and self.current is None:
            raise InputError("layer", "max_moves", "needs a current placement", "give the placement to start from")

    @property
    def experts(self) -> int:
        return int(self.load.shape[1])

    @property
    def windows(self) -> int:
        return int(self.load.shape[0])

    @property
    def slots(self) -> int:
        return self.topology.gpus * self.slots_per_gpu

    @property
    def gpu_of_slot(self) -> IntArray:
        return np.arange(self.slots, dtype=np.int64) // self.slots_per_gpu

    @property
    def mean_load(self) -> FloatArray:
        """[experts] load, averaged over the windows."""
        return np.asarray(self.window_weight @ self.load)
