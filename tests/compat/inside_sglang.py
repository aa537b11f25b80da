"""Run by itself, with an unpacked SGLang and the plug-in's entry point on the path: SGLang's loader and balancer.

    python inside_sglang.py < {"loads": [[...]], "slots": N, "gpus": N, "algorithms": {NAME: GROUPS}}

Prints one JSON object of what SGLang was given, by algorithm.
"""

from __future__ import annotations

import json
import logging
import sys
import types
from typing import Any

import torch

from tests.engines.stand_ins import StandIns


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    asked = json.load(sys.stdin)
    sys.meta_path.insert(0, StandIns("sglang"))
    from sglang.srt.eplb import eplb_algorithms, expert_location
    from sglang.srt.plugins import load_plugins

    own = eplb_algorithms.rebalance_experts
    load_plugins()
    from placement.compat import eplb

    running: dict[str, Any] = {}
    expert_location.get_global_expert_location_metadata = lambda: running.get("map")

    def told(algorithm: str, groups: int | None) -> dict[str, Any]:
        arguments = {
            "tokens_per_expert": torch.tensor([asked["loads"]]),
            "num_physical_experts": asked["slots"],
            "num_local_physical_experts": asked["slots"] // asked["gpus"],
            "num_groups": groups,
            "num_nodes": 2,
            "algorithm": eplb_algorithms.compute_algorithm(algorithm, groups, 2),
        }

        def ask() -> list[Any]:
            found = eplb_algorithms.rebalance_experts(**arguments)
            running["map"] = types.SimpleNamespace(physical_to_logical_map_cpu=found[0])
            return [each.tolist() for each in found]

        running.clear()
        out: dict[str, Any] = {"own": [each.tolist() for each in own(**arguments)], "first": ask(), "second": ask()}
        kept, eplb.rebalance_experts = eplb.rebalance_experts, None
        logging.disable(logging.CRITICAL)
        out["after_error"] = ask()
        logging.disable(logging.NOTSET)
        eplb.rebalance_experts = kept
        return out

    print(json.dumps({name: told(name, groups) for name, groups in asked["algorithms"].items()}))


if __name__ == "__main__":
    main()
