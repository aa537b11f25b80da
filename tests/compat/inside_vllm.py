"""Run by itself, with an unpacked vLLM and the plug-in's entry point on the path: vLLM's own loader and EplbState.

    python inside_vllm.py PLAN < {"loads": [[...]], "experts": N, "slots": N, "gpus": N}

Prints one JSON object of what vLLM did.
"""

from __future__ import annotations

import json
import logging
import sys
import types
from typing import Any

import torch

from tests.engines.stand_ins import StandIns


class Model:
    """What EplbState asks of a model; its weights are the numbers of the experts that they belong to."""

    num_redundant_experts: int
    num_expert_groups = 1
    moe_layers = ()

    def __init__(self, layers: int, experts: int, slots: int, gpus: int) -> None:
        self.num_moe_layers, self.num_routed_experts, self.num_logical_experts = layers, experts, experts
        self.num_physical_experts, self.num_redundant_experts = slots, slots - experts
        self.num_local_physical_experts = slots // gpus
        self.expert_weights = [[torch.zeros(slots // gpus, 1)] for _ in range(layers)]

    def set_eplb_state(self, *_: Any) -> None:
        """The layers' own business."""


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    asked = json.load(sys.stdin)
    sys.meta_path.insert(0, StandIns("vllm", ("vllm.model_executor.models",)))
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    from vllm.distributed.eplb import eplb_state
    from vllm.distributed.eplb.policy import EPLB_POLICIES, AbstractEplbPolicy, DefaultEplbPolicy

    ours = EPLB_POLICIES["default"]
    out: dict[str, Any] = {"name": ours.__name__, "ours": ours is not DefaultEplbPolicy}
    out["a_policy"] = issubclass(ours, AbstractEplbPolicy)
    loads = torch.tensor(asked["loads"], dtype=torch.int32)
    experts, slots, gpus = asked["experts"], asked["slots"], asked["gpus"]

    # One rank of several, whose collectives are told what the others would say.
    group = types.SimpleNamespace(size=lambda: gpus, rank=lambda: 1)
    coordinator = types.SimpleNamespace(device_group=group, cpu_group=group)
    moved: list[list[list[int]]] = []
    eplb_state.get_ep_group = eplb_state.get_eplb_group = lambda: coordinator
    eplb_state.get_node_count = lambda: 2
    eplb_state.all_reduce = lambda tensor, group=None: None
    eplb_state.create_eplb_communicator = lambda **_: None
    eplb_state.rearrange_expert_weights_inplace = lambda old, new, *_: moved.append(new.tolist())
    settings = types.SimpleNamespace(use_async=False, window_size=1, step_interval=4, policy="default", communicator="")
    parallel = types.SimpleNamespace(eplb_config=settings, enable_elastic_ep=False, num_ubatches=0)
    eplb_state.PIN_MEMORY = False
    state = eplb_state.EplbState(parallel, torch.device("cpu"))
    model = Model(len(loads), experts, slots, gpus)
    state.add_model(model, types.SimpleNamespace(compute_hash=lambda: "m", model="m"))
    only = state.model_states["m"]

    def rearrange(is_profile: bool = False) -> list[list[int]]:
        # Physical loads that sum to the asked ones: all of an expert's load at its first copy.
        only.expert_load_window.zero_()
        for layer, row in enumerate(only.physical_to_logical_map.tolist()):
            for expert in range(experts):
                only.expert_load_window[0, layer, row.index(expert)] = loads[layer, expert]
        state.rearrange(is_profile=is_profile)
        return only.physical_to_logical_map.tolist()

    def own() -> list[list[int]]:
        arguments = (loads, slots, 1, 2, gpus, only.physical_to_logical_map.cpu())
        return DefaultEplbPolicy.rebalance_experts(*arguments).tolist()

    out["start"] = only.physical_to_logical_map.tolist()
    rearrange(is_profile=True)
    out["profile"] = only.physical_to_logical_map.tolist()
    out["first"] = rearrange()
    out["second"] = rearrange()
    if out["ours"]:
        from placement.compat import eplb as broken

        kept, broken.rebalance_experts = broken.rebalance_experts, None
        out["own"] = own()
        logging.disable(logging.CRITICAL)
        out["after_error"] = rearrange()
        logging.disable(logging.NOTSET)
        broken.rebalance_experts = kept
        grown = (loads, slots + gpus, 1, 2, gpus, only.physical_to_logical_map.cpu())
        out["grown"] = ours.rebalance_experts(*grown).tolist()
        shrunk = (loads, slots - slots // gpus, 1, 1, gpus - 1, only.physical_to_logical_map.cpu())
        out["shrunk"] = ours.rebalance_experts(*shrunk).tolist()
        out["dtype"] = str(ours.rebalance_experts(*shrunk).dtype)
    out["device"] = str(ours.rebalance_experts(loads, slots, 1, 2, gpus).device)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
