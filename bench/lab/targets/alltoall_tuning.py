"""NCCL, NVSHMEM and DeepEP settings for the experts' messages, on a fabric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.lab.target import LabCase, Outcome, Target, option

if TYPE_CHECKING:
    from specs.scenario import Scenario


@dataclass(frozen=True)
class Options:
    """Extra arguments: what is left out is filled in."""

    fabric: Literal["nvlink", "nvl72", "ib", "efa", "ethernet"] | None = option(None, "Where messages go.")
    engine: Literal["vllm", "sglang"] = option("vllm", "Whose messages.")
    backend: str = option("", "All-to-all backend; without it the best of the fabric.")
    role: Literal["aggregated", "prefill", "decode"] = option("aggregated", "What the instance does.")
    tp: int | None = option(None, "Tensor-parallel degree of attention.", least=1)
    pp: int | None = option(None, "Pipeline stages.", least=1)
    ep: int | None = option(None, "Expert-parallel degree.", least=1)
    dp: int | None = option(None, "Attention ranks.", least=1)
    max_seqs: int | None = option(None, "Sequences of an attention rank.", least=1)
    hca: str = option("", "Names of the compute NICs of an OS node, with commas.")
    interface: str = option("", "Network interface that all nodes share.")
    service_level: int | None = option(None, "InfiniBand service level for these messages.", least=0, most=15)
    traffic_class: int | None = option(None, "Traffic class that switches keep lossless: 4 x DSCP.", least=0, most=255)
    plan: str = option("", "A plan file whose role is taken over, degrees and batch.")


def baseline(case: LabCase[Options]) -> Outcome:
    """The engine's default backend."""
    from bench.lab.presets.sides import plain, served_of

    return plain(served_of(case, case.options.engine, network=True))


def optimized(case: LabCase[Options]) -> Outcome:
    """The fabric's best backend, with its settings."""
    from bench.lab.presets.sides import served_of, with_preset

    return with_preset(served_of(case, case.options.engine, network=True), case.scenario, launch=False)


def fits(scenario: Scenario) -> str:
    """Why a scenario does not fit, or ""."""
    from bench.lab.presets.sides import fits_preset

    return fits_preset(scenario, network=True)


TARGET: Target[Any] = Target(
    "alltoall_tuning",
    "Backend and settings for the experts' messages on a fabric, against the engine's default.",
    baseline,
    optimized,
    options=Options,
    fits=fits,
    example="--fabric ethernet --role decode",
)
