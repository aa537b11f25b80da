"""A balancing policy that runs inside a serving engine: a plan's map first, then maps by load; it never raises.

`placement.compat.vllm` and `placement.compat.sglang` put it in place of the engine's own. It imports nothing heavy
before it is asked for a map.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from placement.problem.arrays import IntArray

#: Switches the policy on: "1", or "hold" to keep the plan's map. Unset, "" and "0" leave the engine as it is.
SWITCH = "PLACEMENT_EPLB"
#: A plan file whose map is served first.
PLAN = "PLACEMENT_PLAN"
_MODES = {"1": False, "hold": True}

#: Whether all expert-parallel ranks hold the same map; None stands for a rank that has none.
Agree = Callable[["IntArray | None"], bool]


@dataclass(frozen=True)
class Asked:
    """What an engine asks for in one rebalance.

    Attributes:
        weight: [layers, experts] load of each expert, a tensor.
        slots: physical experts of a layer. groups: expert groups. nodes, gpus: that hold the slots.
        old: [layers, slots of before] the map in use, a tensor, or None.
    """

    weight: Any
    slots: int
    groups: int
    nodes: int
    gpus: int
    old: Any = None


@dataclass
class Policy:
    """Maps for an engine, in place of its own balancer's.

    Attributes:
        plan: a plan file whose map comes first, or None.
        hold: whether the plan's map comes every time.
        agree: asked about every map before it is served. Ranks of an engine compute their maps each for itself, and
            maps that differ would mix up experts in silence: so all ranks serve the map, or none does.
        log: where errors are told.
    """

    plan: Path | None
    hold: bool
    agree: Agree
    log: logging.Logger
    #: (layers, experts, slots, GPUs) of the engine's models -> whether the plan's map is in force, or was.
    _taken: dict[tuple[int, ...], bool] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def find(self, asked: Asked) -> IntArray | None:
        """[layers, slots] logical expert of each slot; None where the engine's own balancer is to be used.

        No error leaves it: each is logged, and leads to None on every rank.
        """
        try:
            found = self._find(asked)
        except Exception:
            self.log.exception("placement: no map found; the engine's own balancer takes over for this time")
            found = None
        try:
            agreed = self.agree(found)
        except Exception:
            self.log.exception("placement: ranks could not compare their maps; the engine's own balancer takes over")
            return None
        if not agreed and found is not None:
            self.log.error("placement: ranks found different maps; the engine's own balancer takes over for this time")
        return found if agreed else None

    def _find(self, asked: Asked) -> IntArray | None:
        shape = (*(int(size) for size in asked.weight.shape), asked.slots, asked.gpus)
        first = shape not in self._taken
        if first:
            # The engine has grown, shrunk or just begun: the plan's map comes first again. Ranks that have joined
            # know nothing of what was before.
            self._taken = {known: taken for known, taken in self._taken.items() if known[:2] != shape[:2]}
            self._taken[shape] = False
        planned = None if self.plan is None else self._planned(self.plan, asked)
        if planned is not None:
            self._taken[shape] |= asked.old is not None and _equal(asked.old, planned)
            if self.hold or not self._taken[shape]:
                if first and not self.hold:
                    balanced(asked)  # compiles while the engine starts, and not at the first map by load
                return planned
        return balanced(asked)

    def _planned(self, path: Path, asked: Asked) -> IntArray | None:
        """The plan's map of these sizes, or None; that is told once."""
        from placement.compat.plan_maps import plan_maps

        layers, experts = asked.weight.shape
        told = []
        for each in plan_maps(path):
            misfit = each.misfit(layers, experts, asked.slots, asked.gpus)
            if misfit is None:
                return each.slots(layers)
            told.append(f"{each.role} has {misfit}")
        line = (
            f"placement: {path} has no map of {layers} layers with {asked.slots} slots on {asked.gpus} GPUs: "
            f"{'; '.join(told)}; experts are placed by load"
        )
        if line not in self._told:
            self._told.add(line)
            self.log.warning(line)
        return None


def policy_of(environ: Mapping[str, str], agree: Agree, log: logging.Logger) -> Policy | None:
    """The policy that the environment asks for; None where it is switched off.

    Args:
        environ: the process's environment. agree: see Policy. log: where it is told what was switched on.
    """
    mode = environ.get(SWITCH, "").strip().lower()
    if mode in ("", "0"):
        return None
    if mode not in _MODES:
        log.error("placement: %s=%s is not known; set 1, hold or 0. The engine's own balancer runs", SWITCH, mode)
        return None
    path = environ.get(PLAN, "").strip()
    if _MODES[mode] and not path:
        log.error("placement: %s=hold needs %s, a plan file. The engine's own balancer runs", SWITCH, PLAN)
        return None
    served = f"the map of {path}" if path else "maps by load"
    then = ", then maps by load" if path and not _MODES[mode] else ""
    log.info("placement: takes the place of the engine's balancer with %s%s", served, then)
    return Policy(Path(path) if path else None, _MODES[mode], agree, log)


def balanced(asked: Asked) -> IntArray:
    """[layers, slots] map by load (placement.compat.eplb), near the old one where one of these sizes can be made of it.

    Raises:
        InputError: sizes that do not divide as they must.
        ValueError: the map misses an expert.
    """
    import numpy as np

    from placement.compat.eplb import rebalance_experts

    loads = asked.weight.detach().cpu().double().numpy()
    old = None if asked.old is None else _fitted(asked.old, len(loads), asked.slots)
    found: IntArray = rebalance_experts(loads, asked.slots, max(1, asked.groups), asked.nodes, asked.gpus, old)[0]
    held = np.zeros(loads.shape, dtype=bool)
    np.put_along_axis(held, found, True, axis=1)
    if not held.all():
        layer, expert = np.argwhere(~held)[0]
        raise ValueError(f"layer {layer} has no copy of expert {expert}")
    return found


def _fitted(old: Any, layers: int, slots: int) -> IntArray | None:
    """An engine's old map in `slots` columns: GPUs that join are free, GPUs that leave are the last ones."""
    import numpy as np

    before = old.detach().cpu().long().numpy()
    if before.ndim != 2 or len(before) != layers:
        return None
    kept = np.full((layers, slots), -1, dtype=np.int64)
    width = min(slots, before.shape[1])
    kept[:, :width] = before[:, :width]
    return kept


def _equal(old: Any, planned: IntArray) -> bool:
    return tuple(old.shape) == planned.shape and bool((old.detach().cpu().numpy() == planned).all())


def same_on_ranks(found: IntArray | None, group: Any) -> bool:
    """Whether all ranks of a torch process group hold the same map. Every rank must call it.

    Args:
        found: this rank's map, or None. group: of the CPU (gloo).
    """
    import hashlib

    import torch

    # 7 bytes leave the sign, and 0 for no map.
    digest = 0 if found is None else 1 + int.from_bytes(hashlib.blake2b(found.tobytes(), digest_size=7).digest(), "big")
    ends = torch.tensor([digest, -digest])
    torch.distributed.all_reduce(ends, op=torch.distributed.ReduceOp.MIN, group=group)
    least, most = int(ends[0]), -int(ends[1])
    return least == most != 0
