"""A plug-in of SGLang (entry point `sglang.srt.plugins`): placement's maps in place of its EPLB algorithms.

Every SGLang process calls `register`; it does nothing unless PLACEMENT_EPLB is set (docs/engines.md, "Inside SGLang").
Read in SGLang 0.5.23: `srt/eplb/eplb_algorithms`, `srt/eplb/eplb_manager.py`, `srt/plugins`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from placement.compat.policy import Policy
    from placement.problem.arrays import IntArray

TARGET = "sglang.srt.eplb.eplb_algorithms.rebalance_experts"


def register() -> None:
    """Hooks SGLang's `rebalance_experts`, if PLACEMENT_EPLB asks for it. Never raises."""
    if os.environ.get("PLACEMENT_EPLB", "").strip() in ("", "0"):
        return
    log = logging.getLogger(__name__)
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        from placement.compat.policy import policy_of

        policy = policy_of(os.environ, _agree, log)
        if policy is not None:
            HookRegistry.register(TARGET, hook(policy), HookType.AROUND)
    except Exception:
        log.exception("placement: can't take the place of SGLang's balancer (made for SGLang 0.5.23); its own runs")


def hook(policy: Policy) -> Callable[..., Any]:
    """A hook around SGLang's `rebalance_experts`: maps of `policy`, and SGLang's own where it has none."""

    def rebalance_experts(
        original: Callable[..., Any],
        tokens_per_expert: Any,
        num_physical_experts: int,
        num_local_physical_experts: int,
        num_groups: int | None,
        num_nodes: int,
        algorithm: Any,
    ) -> Any:
        """As SGLang's: (physical_to_logical, logical_to_physical padded with -1, copies of each expert)."""
        from placement.compat.policy import Asked

        def own() -> Any:
            return original(
                tokens_per_expert=tokens_per_expert,
                num_physical_experts=num_physical_experts,
                num_local_physical_experts=num_local_physical_experts,
                num_groups=num_groups,
                num_nodes=num_nodes,
                algorithm=algorithm,
            )

        if algorithm.name.startswith("elasticity_aware"):
            return own()  # knows which ranks are alive; and after a change of size one rank alone calls it
        grouped = algorithm.name.endswith("_hierarchical") and num_groups
        groups, nodes = (num_groups, num_nodes) if grouped else (1, 1)
        gpus = num_physical_experts // num_local_physical_experts
        loads = tokens_per_expert.sum(dim=0)
        found = policy.find(Asked(loads, num_physical_experts, groups or 1, nodes, gpus, _running_map()))
        return own() if found is None else _triple(found, loads)

    return rebalance_experts


def _triple(found: IntArray, loads: Any) -> tuple[Any, Any, Any]:
    """SGLang's three tensors of a map, on the device of `loads`."""
    from solvers.experts.loads.layer import reverse_map

    table, copies = reverse_map(found, loads.shape[1])
    whole = loads.detach()[:0].long()
    return whole.new_tensor(found), whole.new_tensor(table), whole.new_tensor(copies)


def _running_map() -> Any:
    """The map in use, a tensor; None before there is one."""
    from sglang.srt.eplb.expert_location import get_global_expert_location_metadata

    metadata = get_global_expert_location_metadata()
    return None if metadata is None else metadata.physical_to_logical_map_cpu


def _agree(found: IntArray | None) -> bool:
    """Whether all expert-parallel ranks hold the same map; SGLang computes it on each of them."""
    import torch

    from placement.compat.policy import same_on_ranks

    if not torch.distributed.is_initialized():
        return found is not None
    from sglang.srt.distributed.parallel_state import get_moe_ep_group

    return same_on_ranks(found, get_moe_ep_group().cpu_group)
