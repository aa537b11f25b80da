"""Which constants of the cost model are fitted, by what they may differ, and how far they may move."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.calibration.fitted import Factor


@dataclass(frozen=True)
class Prior:
    """Multipliers of one constant, one for each kind of case that `by` tells apart.

    Attributes:
        sigma: standard deviation of their logarithms before anything is measured, around 0. It is small where kernels
            and data sheets tell the constant well, and large where they don't.
        attention: only for models with this kind of attention.
    """

    constant: str
    sigma: float
    by: tuple[Factor, ...] = ()
    attention: str | None = None


#: Effects of a single release or case hold what the shared ones leave over, and are 1 for a case that was not measured.
PRIORS = (
    Prior("hbm", 0.1),
    Prior("hbm_experts", 0.2),
    Prior("hbm_experts", 0.2, ("generation", "experts")),
    Prior("hbm_kv", 0.25),
    Prior("matmul", 0.1),
    Prior("expert_matmul", 0.1),
    Prior("attention_matmul", 0.15),
    Prior("attention_decode_matmul", 0.3),
    Prior("layer_overhead_s", 0.3),
    Prior("layer_overhead_s", 0.35, ("generation",)),
    Prior("step_overhead_s", 0.5),
    Prior("sequence_overhead_s", 0.3),
    Prior("collective_overhead_s", 0.7),
    Prior("collective_overhead_s", 0.5, ("engine",)),
    Prior("collective_bandwidth", 0.1),
    Prior("routing_shape", 0.4),
    Prior("serving_passes", 0.6),
    Prior("prefill_overhead_s", 0.6),
    Prior("prefill_time", 0.2),
    Prior("prefill_time", 0.2, ("engine",)),
    Prior("prefill_time", 0.2, ("release",)),
    Prior("first_token_s", 0.7),
    Prior("first_token_layer_s", 0.6),
    Prior("first_token_layer_s", 0.35, ("engine",)),
    Prior("first_token_layer_s", 0.35, ("attention",)),
    Prior("first_token_layer_s", 0.35, ("generation",)),
    Prior("first_token_layer_s", 0.2, ("release",)),
    Prior("arrival_bunching", 0.6),
    Prior("arrival_bunching", 0.3, ("engine",)),
    Prior("rank_stall", 0.5),
    Prior("rank_wait", 0.5),
    # Releases that decode speculatively do so for the models that bring a draft head, which here are those with MLA.
    Prior("decode_speed", 0.3, ("release",), attention="mla"),
    Prior("tpot_case", 0.2, ("gpu", "model", "experts", "release")),
    Prior("ttft_case", 0.3, ("gpu", "model", "experts", "release")),
)
