"""What engines run a checkpoint in, where the checkpoint leaves it open."""

from __future__ import annotations

from pathlib import Path

import pytest

from placement import load_scenario
from placement.report.levers import types_in_words


@pytest.mark.parametrize(
    ("engine", "cluster", "compute"),
    [
        ("vllm", "gb200_nvl72_ib", "bf16"), ("vllm", "h100_hgx_ib", "bf16"),
        ("sglang", "gb200_nvl72_ib", "mxfp8"), ("sglang", "h100_hgx_ib", "bf16"),
        ("trtllm", "gb200_nvl72_ib", "mxfp8"), ("trtllm", "h100_hgx_ib", "bf16"),
        ("generic", "gb200_nvl72_ib", "mxfp8"), ("generic", "h100_hgx_ib", "bf16"),
    ],
)  # fmt: skip
def test_gpt_oss(engine: str, cluster: str, compute: str) -> None:
    """4-bit experts meet 8-bit activations on Blackwell, but in vLLM, and 16-bit ones on Hopper."""
    scenario = load_scenario("gpt_oss_120b_gb200_ib", engine=engine, cluster=cluster)
    assert scenario.types.compute == compute
    assert f"{compute} expert products ({scenario.engine.label} by default)" in types_in_words(scenario)


def test_what_a_model_says_holds() -> None:
    """A type of the model, or of --set, wins over the engine's default."""
    asked = load_scenario("gpt_oss_120b_gb200_ib", engine="sglang", set={"model.types.compute": "bf16"})
    assert asked.types.compute == "bf16"
    assert "default" not in types_in_words(asked)
    assert load_scenario("deepseek_r1_h200_ib", engine="vllm").types == load_scenario("deepseek_r1_h200_ib").types
    assert load_scenario("olmoe_1b_7b_h100_ib").types.compute == "bf16"


def test_engines_still_say_so(vllm_wheel: Path, sglang_wheel: Path) -> None:
    """The places that the entries name are as they were read."""
    order = (vllm_wheel / "vllm/model_executor/layers/fused_moe/oracle/mxfp4.py").read_text()
    listed = order[order.index("def _get_priority_backends_for_gpt_oss") :]
    assert listed.index("FLASHINFER_TRTLLM_MXFP4_BF16") < listed.index("FLASHINFER_TRTLLM_MXFP4_MXFP8")
    chosen = (sglang_wheel / "sglang/srt/arg_groups/model_overrides/gpt_oss.py").read_text()
    assert "get_platform().is_sm100 and is_mxfp4_quant_format" in chosen
    assert "flashinfer_mxfp4" in chosen
