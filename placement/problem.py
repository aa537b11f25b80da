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
from placement.prices import ALIKE as ALIKE
from placement.prices import LayerRates as LayerRates
from placement.prices import PassKind as PassKind
from specs.schema import Dispatch, MessageRule

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

#: A slot that holds no expert: one beyond its GPU's capacity.
EMPTY = -1

#: "time": expected MoE-layer seconds; "load": largest expected GPU load over the mean (needs load counts alone);
#: "traffic": bytes that cross nodes for one token, dispatch and combine together.
Objective = Literal["time", "load", "traffic"]


def frozen(array: Any, dtype: Any) -> Any:
    """A contiguous copy of `array` that can't be written to."""
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


class FrozenArrays:
    """Base of records whose arrays can't be written to, also after a trip through another process.

    Compiled kernels are made for read-only arrays or for writable ones; an unpickled record must not ask for new ones.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        self.__dict__.update(state)


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
class TokenSets(FrozenArrays):
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
class LayerProblem(FrozenArrays):
    """One layer's placement problem.

    Attributes:
        load: [windows, experts] expected copies of a token that go to each expert (a row sums to k).
        window_weight: [windows] weight of each window in the mean; sums to 1.
        topology, slots_per_gpu: where slots are.
        rates: prices.
        sets: tokens as k-sets; None where only load counts are known (then messages are counted per expert).
        dispatch, rule, objective: what is optimized.
        tail: the objective is the mean of the worst `tail` share of the windows' weight (conditional value at risk,
            Rockafellar and Uryasev 2000): 1 the mean over windows, 0 the worst window.
        group: [experts] group of each expert whose copies must all lie on one node, or None.
        capacity: [gpus] slots that a GPU can use, 0 (a failed GPU) to slots_per_gpu, or None for all. Those beyond it
            hold EMPTY, behind the used ones; every usable slot holds an expert. A failed GPU carries no messages.
        speed: [gpus] rate of expert work relative to `rates`, positive, or None for 1. Objective "load", balancedness
            and `max_load` see GPU loads over `relative_speed`.
        home: [gpus] share of the tokens whose home is that GPU, or None: alike over GPUs with capacity. Sums to 1,
            0 at a failed GPU. All homes together always have tokens_per_gpu * gpus tokens.
        current: [slots] placement to start from, or None; may hold EMPTY, and experts where no slot is usable now.
        max_moves: bound on the moves from `current` (see `moves_between`), or None.
        fixed: [slots] True where the expert of `current` must stay on its GPU, or None; means nothing where EMPTY.
        drift: [experts, experts] covariance of the loads between short stretches of routing, or None. No score sees it:
            it tells a solver which experts will grow busy together (placement.routing.statistics).
        max_load: largest allowed GPU load as a multiple of the mean GPU load, both of the loads averaged over the
            windows (LayerScore.pooled_imbalance), or None.

    Raises:
        InputError: a field of the wrong shape or out of its range, too few usable slots, or fixed experts that do not
            leave a slot for every expert. What is left has a placement, unless groups or max_moves forbid it.
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
    tail: float = 1.0
    capacity: IntArray | None = None
    speed: FloatArray | None = None
    home: FloatArray | None = None
    fixed: BoolArray | None = None
    drift: FloatArray | None = None

    def __post_init__(self) -> None:
        load = frozen(np.atleast_2d(self.load), np.float64)
        object.__setattr__(self, "load", load)
        weight = self.window_weight
        if len(weight) != len(load):
            weight = np.full(len(load), 1.0 / len(load))
        object.__setattr__(self, "window_weight", frozen(weight, np.float64))
        for name, kinds, dtype in (
            ("group", "iuf", np.int64), ("current", "iuf", np.int64), ("capacity", "iu", np.int64),
            ("speed", "iuf", np.float64), ("home", "iuf", np.float64), ("fixed", "b", np.bool_),
            ("drift", "iuf", np.float64),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None:
                if np.asarray(value).dtype.kind not in kinds:
                    words = {"iu": "whole numbers", "b": "True and False"}.get(kinds, "numbers")
                    raise InputError("layer", name, f"must be {words}", "mend the list")
                object.__setattr__(self, name, frozen(value, dtype))
        self._check()
        self._check_gpus()
        self._check_current()

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
        if self.drift is not None:
            if self.drift.shape != (self.experts, self.experts):
                raise InputError("layer", "drift", f"{self.drift.shape} for {self.experts} experts", "give a square")
            if not np.isfinite(self.drift).all():
                raise InputError("layer", "drift", "covariances must be finite", "mend the counts")
        if self.objective == "traffic" and self.topology.nodes == 1:
            raise InputError(
                "layer", "objective", "'traffic' counts bytes between nodes, but all GPUs are on one", "use 'time'"
            )
        if not 0.0 <= self.tail <= 1.0:
            raise InputError("layer", "tail", f"{self.tail:g} is no share", "give a number from 0 (worst) to 1 (mean)")

    def _check_gpus(self) -> None:
        """Capacities, speeds and homes."""
        for name in ("capacity", "speed", "home"):
            value = getattr(self, name)
            if value is not None and value.shape != (self.topology.gpus,):
                raise InputError(
                    "layer", name, f"shape {value.shape} for {self.topology.gpus} GPUs", "give one entry a GPU"
                )
        if self.capacity is not None and (self.capacity.min() < 0 or self.capacity.max() > self.slots_per_gpu):
            gpu = int(np.flatnonzero((self.capacity < 0) | (self.capacity > self.slots_per_gpu))[0])
            raise InputError(
                "layer", "capacity", f"GPU {gpu} has {self.capacity[gpu]} of {self.slots_per_gpu} slots",
                f"give 0 to {self.slots_per_gpu}",
            )  # fmt: skip
        if self.usable_slots < self.experts:
            raise InputError(
                "layer", "capacity",
                f"{self.usable_slots} usable slots cannot hold {self.experts} experts, "
                f"{self.experts - self.usable_slots} too few", "give more capacity or more GPUs",
            )  # fmt: skip
        if self.speed is not None and not (np.isfinite(self.speed) & (self.speed > 0)).all():
            gpu = int(np.flatnonzero(~(np.isfinite(self.speed) & (self.speed > 0)))[0])
            raise InputError(
                "layer", "speed", f"GPU {gpu} has speed {self.speed[gpu]:g}",
                "speeds are positive; a failed GPU has capacity 0",
            )  # fmt: skip
        if self.home is None:
            return
        if not np.isfinite(self.home).all() or (self.home < 0).any():
            raise InputError("layer", "home", "shares must be finite and not negative", "mend the shares")
        if abs(float(self.home.sum()) - 1.0) > 1e-6:
            raise InputError("layer", "home", f"shares sum to {self.home.sum():g}", "shares of the tokens sum to 1")
        if (self.home[~self.alive] > 0).any():
            gpu = int(np.flatnonzero((self.home > 0) & ~self.alive)[0])
            raise InputError("layer", "home", f"GPU {gpu} has tokens but no capacity", "a failed GPU is no home")

    def _check_current(self) -> None:
        """The placement to start from, and what is fixed in it."""
        if self.current is None:
            for name in ("max_moves", "fixed"):
                if getattr(self, name) is not None:
                    raise InputError("layer", name, "needs a current placement", "give the placement to start from")
            return
        if self.current.shape != (self.slots,):
            raise InputError("layer", "current", "needs one entry a slot", "use a placement of the same slots")
        if self.current.min() < EMPTY or self.current.max() >= self.experts:
            raise InputError(
                "layer", "current", f"holds an expert beyond 0 to {self.experts - 1}", "use experts, and -1 for none"
            )
        if self.fixed is None:
            return
        if self.fixed.shape != (self.slots,):
            raise InputError("layer", "fixed", "needs one entry a slot", "say of every slot whether it is fixed")
        gpu, expert = self.fixed_pairs
        over = np.bincount(gpu, minlength=self.topology.gpus) - self.capacities
        if over.max() > 0:
            worst = int(over.argmax())
            raise InputError(
                "layer", "fixed", f"GPU {worst} is to keep {over[worst]} more experts than its capacity",
                "leave them free to move",
            )  # fmt: skip
        short = self.experts - len(np.unique(expert)) - (self.usable_slots - len(expert))
        if short > 0:
            raise InputError(
                "layer", "fixed", f"fixed experts leave {short} slots too few for the others", "fix fewer copies"
            )

    @property
    def experts(self) -> int:
        return int(self.load.shape[1])

    @property
    def windows(self) -> int:
        return int(self.load.shape[0])

    @property
    def slots(self) -> int:
        """Length of a placement: gpus * slots_per_gpu, usable or not."""
        return self.topology.gpus * self.slots_per_gpu

    @property
    def gpu_of_slot(self) -> IntArray:
        return np.arange(self.slots, dtype=np.int64) // self.slots_per_gpu

    @property
    def mean_load(self) -> FloatArray:
        """[experts] load, averaged over the windows."""
        return np.asarray(self.window_weight @ self.load)

    @property
    def capacities(self) -> IntArray:
        """[gpus] usable slots of each GPU."""
        if self.capacity is not None:
            return self.capacity
        return np.full(self.topology.gpus, self.slots_per_gpu, dtype=np.int64)

    @property
    def usable_slots(self) -> int:
        """Slots that hold an expert."""
        return self.slots if self.capacity is None else int(self.capacity.sum())

    @property
    def usable(self) -> BoolArray:
        """[slots] whether a slot holds an expert."""
        place = np.arange(self.slots_per_gpu)
        return np.asarray((place[None, :] < self.capacities[:, None]).reshape(-1))

    @property
    def alive(self) -> BoolArray:
        """[gpus] whether a GPU has any capacity."""
        return np.asarray(self.capacities > 0)

    @property
    def entry_rank(self) -> IntArray:
        """[nodes, ranks] local rank at which tokens of each home rank enter a node (message rule `per_node`).

        The same rank, or where that GPU has failed the next on the node that has not, in turn.
        """
        ranks = np.arange(self.topology.gpus_per_node)
        # Distance from each home rank to each GPU of the node, failed ones last.
        far = (ranks[None, :] - ranks[:, None]) % len(ranks) + len(ranks) * ~self.alive.reshape(-1, 1, len(ranks))
        return np.asarray(far.argmin(axis=2), dtype=np.int64)

    @property
    def speeds(self) -> FloatArray:
        """[gpus] rate of expert work relative to `rates`."""
        return np.ones(self.topology.gpus) if self.speed is None else self.speed

    @property
    def relative_speed(self) -> FloatArray:
        """[gpus] speed over the mean speed of GPUs with capacity: what GPU loads are divided by."""
        speeds = self.speeds
        usable = speeds[self.alive]
        if (usable == usable[0]).all():
            # Not speed / mean, whose rounding would tell equal GPUs from no speeds at all.
            return np.ones(self.topology.gpus)
        return np.asarray(speeds / usable.mean())

    @property
    def uniform_home(self) -> bool:
        """Whether every GPU is the home of as many tokens."""
        return bool(self.alive.all()) if self.home is None else bool((self.home == self.home[0]).all())

    @property
    def homes(self) -> FloatArray:
        """[gpus] share of the tokens whose home is that GPU; sums to 1."""
        if self.uniform_home:
            return np.full(self.topology.gpus, 1.0 / self.topology.gpus)
        return self.alive / self.alive.sum() if self.home is None else self.home

    @property
    def home_tokens(self) -> FloatArray:
        """[gpus] tokens whose home is that GPU."""
        n = self.rates.tokens_per_gpu
        if self.uniform_home:
            return np.full(self.topology.gpus, n)
        return np.asarray(n * self.topology.gpus * self.homes)

    @property
    def fixed_pairs(self) -> tuple[IntArray, IntArray]:
        """([pairs], [pairs]) GPU and expert of everything that must stay; distinct, ascending."""
        none = np.zeros(0, dtype=np.int64)
        if self.fixed is None or self.current is None:
            return none, none
        kept = self.fixed & (self.current != EMPTY)
        pairs = np.unique(self.gpu_of_slot[kept] * self.experts + self.current[kept])
        return pairs // self.experts, pairs % self.experts
