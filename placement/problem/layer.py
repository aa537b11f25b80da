"""The expert-placement problem of one MoE layer: data, hardware, rules and objective, checked once on construction.

Words: an expert is a logical expert; a slot holds one copy of an expert; GPU = slot // slots_per_gpu;
node = gpu // gpus_per_node; NIC group (tray) = gpu // gpus_per_tray.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np

from placement.errors import InputError
from placement.problem.arrays import EMPTY, BoolArray, FrozenArrays, IntArray
from placement.problem.data import LayerData
from placement.problem.hardware import LayerHardware
from placement.problem.topology import Topology
from specs.engine import Dispatch, MessageRule

#: "time": expected MoE-layer seconds; "load": largest expected GPU load over the mean (needs load counts alone);
#: "traffic": bytes that cross nodes for one token, dispatch and combine together.
Objective = Literal["time", "load", "traffic"]


@dataclass(frozen=True)
class LayerRules(FrozenArrays):
    """How tokens are served, and what a placement must keep.

    Attributes:
        dispatch, message: which copy serves a token, and what a token is sent once per.
        group: [experts] group of each expert whose copies must all lie on one node, or None.
        max_load: largest allowed GPU load as a multiple of the mean GPU load, both of the loads averaged over the
            windows (LayerScore.pooled_imbalance), or None.
        current: [slots] placement to start from, or None; may hold EMPTY, and experts where no slot is usable now.
        max_moves: bound on the moves from `current` (see `moves_between`), or None.
        fixed: [slots] True where the expert of `current` must stay on its GPU, or None; means nothing where EMPTY.

    Raises:
        InputError: a field of the wrong kind, or moves without a current placement.
    """

    dispatch: Dispatch = "even"
    message: MessageRule = "per_node"
    group: IntArray | None = None
    max_load: float | None = None
    current: IntArray | None = None
    max_moves: int | None = None
    fixed: BoolArray | None = None

    def __post_init__(self) -> None:
        self._freeze("group", np.int64)
        self._freeze("current", np.int64)
        self._freeze("fixed", np.bool_, "b")
        for name in ("max_moves", "fixed"):
            if self.current is None and getattr(self, name) is not None:
                raise InputError("layer", name, "needs a current placement", "give the placement to start from")
        if self.max_load is not None and not self.max_load > 0:
            raise InputError("layer", "max_load", f"{self.max_load:g} is not positive", "give a multiple of the mean")
        if self.max_moves is not None and self.max_moves < 0:
            raise InputError("layer", "max_moves", f"{self.max_moves} is negative", "give 0 or more")


@dataclass(frozen=True)
class LayerObjective:
    """What is minimized.

    Attributes:
        kind: see `Objective`.
        tail: the mean of the worst `tail` share of the windows' weight (conditional value at risk,
            Rockafellar and Uryasev 2000): 1 the mean over windows, 0 the worst window.

    Raises:
        InputError: `tail` is no share.
    """

    kind: Objective = "time"
    tail: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.tail <= 1.0:
            raise InputError("layer", "tail", f"{self.tail:g} is no share", "give a number from 0 (worst) to 1 (mean)")


@dataclass(frozen=True)
class LayerProblem(FrozenArrays):
    """One layer's placement problem. What it accepts has a placement, unless groups or max_moves forbid it.

    Raises:
        InputError: parts that don't fit each other: too few usable slots, groups or a current placement of another
            layer, fixed experts that leave no slot for the others, or traffic between nodes where there is one node.
    """

    data: LayerData
    hardware: LayerHardware
    rules: LayerRules = field(default_factory=LayerRules)
    objective: LayerObjective = field(default_factory=LayerObjective)

    def __post_init__(self) -> None:
        self._check_slots()
        if self.rules.group is not None and len(self.rules.group) != self.experts:
            raise InputError("layer", "group", "needs one entry an expert", "give the group of every expert")
        if self.objective.kind == "traffic" and self.topology.nodes == 1:
            raise InputError(
                "layer", "objective", "'traffic' counts bytes between nodes, but all GPUs are on one", "use 'time'"
            )
        if self.rules.current is not None:
            self._check_current(self.rules.current)

    def _check_slots(self) -> None:
        width, usable = self.hardware.slots_per_gpu, self.hardware.usable_slots
        if self.slots < self.experts:
            raise InputError(
                "layer", "slots", f"{self.slots} slots cannot hold {self.experts} experts",
                f"give at least {-(-self.experts // self.topology.gpus)} slots per GPU",
            )  # fmt: skip
        if width > self.experts:
            raise InputError(
                "layer", "slots_per_gpu", f"{width} slots per GPU but {self.experts} experts",
                "no two copies of an expert may share a GPU; use fewer redundant experts",
            )  # fmt: skip
        if usable < self.experts:
            raise InputError(
                "layer", "capacity",
                f"{usable} usable slots cannot hold {self.experts} experts, {self.experts - usable} too few",
                "give more capacity or more GPUs",
            )  # fmt: skip

    def _check_current(self, current: IntArray) -> None:
        """The placement to start from, and what is fixed in it."""
        if current.shape != (self.slots,):
            raise InputError("layer", "current", "needs one entry a slot", "use a placement of the same slots")
        if current.min() < EMPTY or current.max() >= self.experts:
            raise InputError(
                "layer", "current", f"holds an expert beyond 0 to {self.experts - 1}", "use experts, and -1 for none"
            )
        if self.rules.fixed is None:
            return
        if self.rules.fixed.shape != (self.slots,):
            raise InputError("layer", "fixed", "needs one entry a slot", "say of every slot whether it is fixed")
        gpu, expert = self.fixed_pairs
        over = np.bincount(gpu, minlength=self.topology.gpus) - self.hardware.capacities
        if over.max() > 0:
            worst = int(over.argmax())
            raise InputError(
                "layer", "fixed", f"GPU {worst} is to keep {over[worst]} more experts than its capacity",
                "leave them free to move",
            )  # fmt: skip
        short = self.experts - len(np.unique(expert)) - (self.hardware.usable_slots - len(expert))
        if short > 0:
            raise InputError(
                "layer", "fixed", f"fixed experts leave {short} slots too few for the others", "fix fewer copies"
            )

    @property
    def experts(self) -> int:
        return self.data.experts

    @property
    def windows(self) -> int:
        return self.data.windows

    @property
    def topology(self) -> Topology:
        return self.hardware.topology

    @property
    def slots(self) -> int:
        """Length of a placement: gpus * slots_per_gpu, usable or not."""
        return self.hardware.slots

    @property
    def fixed_pairs(self) -> tuple[IntArray, IntArray]:
        """([pairs], [pairs]) GPU and expert of everything that must stay; distinct, ascending."""
        current, fixed = self.rules.current, self.rules.fixed
        if fixed is None or current is None:
            none = np.zeros(0, dtype=np.int64)
            return none, none
        kept = fixed & (current != EMPTY)
        pairs = np.unique(self.hardware.gpu_of_slot[kept] * self.experts + current[kept])
        return pairs // self.experts, pairs % self.experts

    @property
    def free(self) -> bool:
        """Whether GPUs are of one capacity and speed, and no group, fixed expert or budget of moves binds a copy."""
        hardware, rules = self.hardware, self.rules
        binding = (hardware.capacity, hardware.speed, rules.group, rules.fixed, rules.max_moves)
        return all(part is None for part in binding)

    def held(self, slots: IntArray) -> BoolArray:
        """[gpus, experts] what a placement ([slots] experts, or EMPTY) holds."""
        out, used = np.zeros((self.topology.gpus, self.experts), dtype=bool), slots != EMPTY
        out[self.hardware.gpu_of_slot[used], slots[used]] = True
        return out

    def with_data(self, **changes: Any) -> Self:
        """The problem with other fields of `data`."""
        return replace(self, data=replace(self.data, **changes))

    def with_hardware(self, **changes: Any) -> Self:
        """The problem with other fields of `hardware`."""
        return replace(self, hardware=replace(self.hardware, **changes))

    def with_rules(self, **changes: Any) -> Self:
        """The problem with other fields of `rules`."""
        return replace(self, rules=replace(self.rules, **changes))

    def with_objective(self, **changes: Any) -> Self:
        """The problem with other fields of `objective`."""
        return replace(self, objective=replace(self.objective, **changes))
