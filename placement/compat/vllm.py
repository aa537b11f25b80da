"""A plug-in of vLLM (entry point `vllm.general_plugins`): placement's policy in place of EPLB's `default`.

Every vLLM process calls `register`; it does nothing unless PLACEMENT_EPLB is set (docs/engines.md, "Inside vLLM").
Read in vLLM 0.33.0: `distributed/eplb/policy` (registry and interface), `eplb_state.py` and `async_worker.py` (calls).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from placement.compat.policy import Policy
    from placement.problem.arrays import IntArray

#: Below "vllm", whose handlers then print it.
LOGGER = "vllm.placement"


def register() -> None:
    """Puts the policy in place of vLLM's, if PLACEMENT_EPLB asks for it. May be called again; never raises."""
    # Read before anything is imported: in every process of an engine that does not use it, this is all that runs.
    if os.environ.get("PLACEMENT_EPLB", "").strip() in ("", "0"):
        return
    log = logging.getLogger(LOGGER)
    try:
        from vllm.distributed.eplb.policy import EPLB_POLICIES

        from placement.compat.policy import policy_of

        policy = policy_of(os.environ, _agree, log)
        default = EPLB_POLICIES["default"]
        if policy is not None and not hasattr(default, "placement"):
            EPLB_POLICIES["default"] = policy_class(default, policy)
    except Exception:
        log.exception("placement: can't take the place of vLLM's balancer (made for vLLM 0.33); vLLM's own runs")


def policy_class(default: Any, policy: Policy) -> Any:
    """A policy class of vLLM: maps of `policy`, and those of the class `default` where it has none."""

    class PlacementPolicy(default):  # type: ignore[misc]
        """vLLM's policy with placement's maps."""

        placement = policy

        @classmethod
        def rebalance_experts(
            cls,
            weight: Any,
            num_replicas: int,
            num_groups: int,
            num_nodes: int,
            num_ranks: int,
            old_global_expert_indices: Any = None,
        ) -> Any:
            """As `AbstractEplbPolicy.rebalance_experts`: one tensor, [layers, num_replicas], on the CPU."""
            import torch

            from placement.compat.policy import Asked

            sizes = (num_replicas, num_groups, num_nodes, num_ranks)
            found = cls.placement.find(Asked(weight, *sizes, old_global_expert_indices))
            if found is None:
                return super().rebalance_experts(weight, *sizes, old_global_expert_indices)
            return torch.from_numpy(found)

    return PlacementPolicy


def _agree(found: IntArray | None) -> bool:
    """Whether all expert-parallel ranks hold the same map, asked over the group that vLLM keeps for EPLB.

    vLLM calls its policy on all of them, in the same order, from the thread that uses this group.
    """
    import torch

    from placement.compat.policy import same_on_ranks

    if not torch.distributed.is_initialized():
        return found is not None
    from vllm.distributed.parallel_state import get_eplb_group

    return same_on_ranks(found, get_eplb_group().cpu_group)
