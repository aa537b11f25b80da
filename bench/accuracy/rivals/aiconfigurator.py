"""NVIDIA's AIConfigurator: operators measured on each GPU, summed up. Optional: the package aiconfigurator-core.

Its estimate of continuous batching with its newest tables for a GPU and engine, in its default mode: a case that its
tables don't cover has none.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

from bench.accuracy.figures import Figures
from bench.accuracy.settings import Setting

#: Tokens of a pass: the default of the engines measured.
PASS_TOKENS = 8192
PACKAGE = "aiconfigurator_core"
#: Its models by the catalog's and by the data type of the experts, and what a checkpoint's config does not tell it: it
#: has no table of MLA prefill in fp8.
MODELS = {
    ("deepseek_r1", "fp8"): ("deepseek-ai/DeepSeek-R1", {"fmha_quant_mode": "bfloat16"}),
    ("deepseek_r1", "nvfp4"): ("deepseek-ai/DeepSeek-R1", {"fmha_quant_mode": "bfloat16", "moe_quant_mode": "nvfp4"}),
    ("gpt_oss_120b", "mxfp4"): ("openai/gpt-oss-120b", {}),
    ("gpt_oss_20b", "mxfp4"): ("openai/gpt-oss-20b", {}),
    ("minimax_m2_5", "fp8"): ("MiniMaxAI/MiniMax-M2.5", {}),
    ("minimax_m2_5", "nvfp4"): ("nvidia/MiniMax-M2.5-NVFP4", {}),
    ("qwen3_235b", "fp8"): ("Qwen/Qwen3-235B-A22B-FP8", {}),
    ("qwen3_235b", "nvfp4"): ("nvidia/Qwen3-235B-A22B-NVFP4", {}),
}


def missing() -> str:
    """Why it can't be asked, in words; empty where it can."""
    if importlib.util.find_spec(PACKAGE) is None:
        return "aiconfigurator-core is not installed (pip install 'placement[kernels]')"
    return ""


def predict(settings: Sequence[Setting]) -> tuple[Figures | None, ...]:
    """Its figures, None where its tables don't cover a setting."""
    return tuple(_figures(setting) for setting in settings)


def _figures(setting: Setting) -> Figures | None:
    row, case, split = setting.row, setting.case, setting.split
    known = MODELS.get((setting.scenario.model.name, setting.scenario.model.types.experts))
    if known is None or case.engine is None:
        return None
    path, types = known
    try:
        found = _estimate(
            path, row.gpu, case.engine, (split.tp, split.pp, split.dp, split.etp, split.ep),
            tuple(sorted(types.items())), (split.batch, row.isl, row.osl),
        )  # fmt: skip
    except Exception:
        # Every gap in its tables is an error of its own kind; the package is there (`missing`).
        return None
    return Figures(found["tpot"] * 1e-3, found["ttft"] * 1e-3)


@cache
def _estimate(
    path: str, system: str, engine: str, degrees: tuple[int, ...], types: tuple[tuple[str, str], ...],
    load: tuple[int, int, int],
) -> dict[str, Any]:  # fmt: skip
    from aiconfigurator_core.sdk.backends.factory import get_backend
    from aiconfigurator_core.sdk.config import RuntimeConfig

    batch, isl, osl = load
    model, database = _model(path, system, engine, degrees, types)
    runtime = RuntimeConfig(batch_size=batch, isl=isl, osl=osl, beam_width=1)
    summary = get_backend(engine).run_agg(model, database, runtime, ctx_tokens=PASS_TOKENS)
    return dict(summary.get_result_dict())


@cache
def _model(
    path: str, system: str, engine: str, degrees: tuple[int, ...], types: tuple[tuple[str, str], ...]
) -> tuple[Any, Any]:
    from aiconfigurator_core.sdk.config_builders import build_model_config
    from aiconfigurator_core.sdk.models import get_model
    from aiconfigurator_core.sdk.perf_database import get_database, get_latest_database_version

    logging.getLogger(PACKAGE).setLevel(logging.ERROR)
    config = build_model_config(*degrees, **dict(types))
    config.system = system
    database = get_database(system, engine, get_latest_database_version(system, engine))
    return get_model(path, config, engine), database
