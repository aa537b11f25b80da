"""Run by itself: SGLang's own reader of --init-expert-location, as each rank runs it.

    python sglang_reader.py WHEEL < {"file": ..., "layers": L, "experts": E, "redundant": R, "ep": N, "nnodes": M,
                                     "backend": "deepep"}

Prints the map that was read and, for each rank, the copy that serves its tokens. What the reader asks of the rest of
the engine, its arguments and the model's class, is stubbed.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.engines.vllm_reader import _package, _stub


def main() -> None:
    wheel, asked = Path(sys.argv[1]), json.load(sys.stdin)
    for name in ("sglang", "sglang.srt", "sglang.srt.eplb"):
        _package(name, wheel / name.replace(".", "/"))
    moe = SimpleNamespace(
        init_expert_location=asked["file"], ep_num_redundant_experts=asked["redundant"],
        moe_a2a_backend=asked["backend"],
        ep_dispatch_algorithm="static" if asked["backend"] != "none" else "dynamic", ep_join_mode=None,
        eplb_algorithm="auto",
    )  # fmt: skip
    parallel = SimpleNamespace(ep_size=asked["ep"], nnodes=asked["nnodes"], elastic_ep_initial_size=None)
    _stub(
        "sglang.srt.runtime_context", get_exec=lambda: SimpleNamespace(moe=moe), get_parallel=lambda: parallel,
        get_device=lambda: SimpleNamespace(device="cpu"), get_resources=lambda: None,
    )  # fmt: skip
    _package("sglang.srt.elastic_ep", wheel)
    _stub("sglang.srt.elastic_ep.elastic_ep", elastic_expanded_world_enabled=lambda: False)
    location = importlib.import_module("sglang.srt.eplb.expert_location")

    class Model:
        @classmethod
        def get_model_config_for_expert_location(cls, config: Any) -> Any:
            return location.ModelConfigForExpertLocation(asked["layers"], asked["experts"])

    _stub("sglang.srt.model_loader", get_model_architecture=lambda _: (Model, "Model"))
    config = types.SimpleNamespace(hf_config=None)
    read = [location.compute_initial_expert_location_metadata(config, rank) for rank in range(asked["ep"])]
    served = [
        None
        if one.logical_to_rank_dispatch_physical_map is None
        else one.logical_to_rank_dispatch_physical_map.tolist()
        for one in read
    ]
    print(json.dumps({"map": read[0].physical_to_logical_map.tolist(), "served": served}))


if __name__ == "__main__":
    main()
