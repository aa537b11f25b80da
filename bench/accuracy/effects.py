"""Which constants of the cost model are fitted, by what they may differ, and how far they may move."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.calibration.fitted import Factor


@dataclass(frozen=True)
class Prior:
    """Multipliers of one constant, one for each kind of case that `by` tells apart.

    Attributes:
        sigma: standard deviation of their logarithms before anything is measured, around 0. It is small where kernels
            and data sheets tell the constant well, and large where they don't. Kinds of case are drawn to the
            population (no `by`) the more, the smaller theirs is; the widths below were chosen among some twenty sets
            for how well models and GPUs held out are predicted.
    """

    constant: str
    sigma: float
    by: tuple[Factor, ...] = ()


PRIORS = (
    Prior("hbm", 0.1),
    Prior("hbm_experts", 0.2),
    Prior("hbm_kv", 0.25),
    Prior("hbm_kv", 0.2, ("generation",)),
    Prior("matmul", 0.2),
    Prior("expert_matmul", 0.25),
    Prior("attention_matmul", 0.15),
    Prior("attention_decode_matmul", 0.3),
    Prior("layer_overhead_s", 0.4),
    Prior("layer_overhead_s", 0.05, ("engine",)),
    Prior("step_overhead_s", 0.5),
    Prior("sequence_overhead_s", 0.2),
    Prior("collective_overhead_s", 0.7),
    Prior("routing_shape", 0.4),
    Prior("prefill_time", 0.2),
    Prior("prefill_time", 0.15, ("engine",)),
    Prior("first_token_s", 0.7),
    Prior("first_token_launch_s", 0.6),
    Prior("first_token_launch_s", 0.3, ("engine",)),
    Prior("first_token_launch_s", 0.15, ("attention",)),
    Prior("first_token_launch_s", 0.3, ("generation",)),
    Prior("arrival_bunching", 0.6),
    Prior("arrival_bunching", 0.3, ("engine",)),
    Prior("rank_stall", 0.5),
    Prior("rank_wait", 0.5),
)
#: Multipliers that may be fitted in all.
MOST = 40
