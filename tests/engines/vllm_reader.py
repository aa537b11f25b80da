"""Run by itself: vLLM's own ParallelConfig on the options of a launch command, and its own reading of a map.

    python vllm_reader.py WHEEL < {"options": {...}, "eplb": {...}, "rows": [[...]], "experts": N}

Prints what the configuration holds and the copies of each expert. Only what these modules do not need is stubbed.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


def _package(name: str, path: Path) -> types.ModuleType:
    """A package without its __init__, which would import the whole engine."""
    made = types.ModuleType(name)
    made.__path__ = [str(path)]
    made.__spec__ = ModuleSpec(name, None, is_package=True)
    sys.modules[name] = made
    return made


def _stub(name: str, **values: Any) -> None:
    made = types.ModuleType(name)
    made.__dict__.update(values)

    def missing(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return lambda *_, **__: None

    made.__dict__["__getattr__"] = missing
    sys.modules[name] = made


def main() -> None:
    wheel, asked = Path(sys.argv[1]), json.load(sys.stdin)
    for name in ("vllm", "vllm.config", "vllm.utils", "vllm.distributed"):
        _package(name, wheel / name.replace(".", "/"))
    answers = {
        "is_cuda_alike": True,
        "is_cuda": True,
        "is_xpu": False,
        "is_rocm": False,
        "is_tpu": False,
        "use_custom_allreduce": True,
    }
    platform = types.SimpleNamespace(device_count=lambda: 8)
    for name, answer in answers.items():
        setattr(platform, name, lambda found=answer: found)
    logger = types.SimpleNamespace(**{level: lambda *_, **__: None for level in ("info", "warning", "debug", "error")})
    logger.warning_once = logger.info_once = logger.info
    _stub("vllm.platforms", current_platform=platform)
    _stub("vllm.logger", init_logger=lambda _: logger)
    _stub("vllm.utils.network_utils", get_open_ports_list=lambda count=5: list(range(20_000, 20_000 + count)))
    _stub("vllm.distributed.utils")
    _package("vllm.v1", wheel)
    _stub("vllm.v1.executor", Executor=type("Executor", (), {}), ray_utils=types.SimpleNamespace(ray_is_available=bool))
    if importlib.util.find_spec("regex") is None:
        import re

        sys.modules["regex"] = re
    parallel = importlib.import_module("vllm.config.parallel")
    out: dict[str, Any] = {}
    if "options" in asked:
        eplb = parallel.EPLBConfig(**asked.get("eplb", {}))
        made = parallel.ParallelConfig(**asked["options"], eplb_config=eplb)
        out["parallel"] = {name: getattr(made, name) for name in asked["options"]}
        out["redundant"] = made.eplb_config.num_redundant_experts
    if "rows" in asked:
        import torch

        source = (wheel / "vllm/distributed/eplb/eplb_state.py").read_text()
        wanted = "compute_logical_maps"
        function = next(each for each in ast.parse(source).body if getattr(each, "name", "") == wanted)
        names: dict[str, Any] = {"torch": torch}
        exec(compile(ast.Module([function], []), "eplb_state.py", "exec"), names)
        slots, copies = names[wanted](torch.tensor(asked["rows"]), asked["experts"])
        out["slots"], out["copies"] = slots.tolist(), copies.tolist()
    print(json.dumps(out))


if __name__ == "__main__":
    main()
