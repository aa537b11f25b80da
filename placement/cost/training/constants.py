"""The constants of a training step, from the one data file `constants.yaml`, checked on loading."""

from __future__ import annotations

from functools import cache

from placement.cost.calibration.efficiency import (
    AmountEntry,
    ByTypeEntry,
    Constants,
    Efficiency,
    FactorEntry,
    Provenance,
    ShareEntry,
)


class TrainingConstants(Constants):
    """All constants of a training step; `constants.yaml` states the source of each beside its value."""

    provenance: Provenance
    matmul: ByTypeEntry
    expert_matmul: ByTypeEntry
    weight_matmul: ByTypeEntry
    attention_matmul: ShareEntry
    attention_backward_matmul: ShareEntry
    attention_backward_flops: FactorEntry
    hbm: ShareEntry
    layer_overhead_s: AmountEntry
    elementwise_passes: AmountEntry
    routed_passes: AmountEntry
    operand_bytes: AmountEntry
    routing_imbalance: FactorEntry
    communication_sms: ShareEntry
    gradient_overlap: AmountEntry
    gathered_bytes: AmountEntry
    step_overhead_s: AmountEntry


@cache
def load_training() -> TrainingConstants:
    """The constants as shipped (an immutable record, read once)."""
    return TrainingConstants.shipped("placement.cost.training", "constants.yaml")


def pass_constants(efficiency: Efficiency, training: TrainingConstants) -> Efficiency:
    """The constants that time a forward pass of training: those of `efficiency`, but for what `training` states."""
    names = ("matmul", "expert_matmul", "attention_matmul", "hbm", "layer_overhead_s", "elementwise_passes")
    return efficiency.model_copy(update={name: getattr(training, name) for name in names})
