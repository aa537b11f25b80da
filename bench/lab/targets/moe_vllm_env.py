"""vLLM's environment and command for a mixture-of-experts model, inside NVLink domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.lab.target import LabCase, Outcome, Target, option

if TYPE_CHECKING:
    from specs.scenario import Scenario


@dataclass(frozen=True)
class Options:
    """Extra arguments: what is left out is filled in."""

    fabric: Literal["nvlink", "nvl72"] | None = option(None, "One OS node, or several of an NVL72 rack.")
    model: str = option("", "What vLLM loads: a Hugging Face name or a folder; --spec says what it is.")
    tp: int | None = option(None, "Tensor-parallel degree of attention.", least=1)
    pp: int | None = option(None, "Pipeline stages.", least=1)
    ep: int | None = option(None, "Expert-parallel degree: 1, or TP x DP.", least=1)
    dp: int | None = option(None, "Attention ranks.", least=1)
    max_seqs: int | None = option(None, "Sequences of an attention rank.", least=1)
    max_len: int | None = option(None, "Tokens of the longest sequence.", least=1)
    gpu_util: float | None = option(None, "Share of HBM that vLLM may take.", least=0.1, most=1)
    backend: str = option("", "All-to-all backend; without it the best of the fabric.")
    role: Literal["aggregated", "prefill", "decode"] = option("aggregated", "What the instance does.")
    hca: str = option("", "Names of the compute NICs of an OS node, with commas.")
    interface: str = option("", "Network interface that all nodes share.")
    plan: str = option("", "A plan file whose role is taken over, degrees and batch.")


def baseline(case: LabCase[Options]) -> Outcome:
    """vLLM as it comes."""
    from bench.lab.presets.sides import plain, served_of

    return plain(served_of(case, "vllm", network=False))


def optimized(case: LabCase[Options]) -> Outcome:
    """With the preset of the fabric."""
    from bench.lab.presets.sides import served_of, with_preset

    return with_preset(served_of(case, "vllm", network=False), case.scenario, launch=True)


def fits(scenario: Scenario) -> str:
    """Why a scenario does not fit, or ""."""
    from bench.lab.presets.sides import fits_preset

    return fits_preset(scenario, network=False)


TARGET: Target[Any] = Target(
    "moe_vllm_env",
    "vLLM's environment and command for a fabric, against its defaults.",
    baseline,
    optimized,
    options=Options,
    fits=fits,
    example="--fabric nvl72 --dp 16 --max-seqs 64",
)
