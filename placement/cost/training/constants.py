"""The constants of a training step, from the one data file `constants.yaml`, checked on loading."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal, get_args

from pydantic import Field

from placement.cost.calibration.efficiency import (
    AmountEntry,
    ByTypeEntry,
    Constants,
    Efficiency,
    FactorEntry,
    Provenance,
    Reason,
    Share,
    ShareEntry,
)
from specs.fields import DataType, bytes_of

#: Constants that are fitted to published runs (bench/accuracy/training_fit.py).
Fitted = Literal["in_step", "weight_narrow", "hbm", "launch_s"]
FITTED: tuple[Fitted, ...] = get_args(Fitted)


class FittedEntry(Constants):
    """A constant that was fitted to published runs.

    Attributes:
        error: standard error of its logarithm.
    """

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    source: Reason


class FittedShare(FittedEntry):
    """A share of a rate."""

    value: Share


class TrainingConstants(Constants):
    """All constants of a training step; `constants.yaml` states the source of each beside its value."""

    #: Generations of GPUs that runs were fitted to.
    fitted_on: tuple[str, ...]
    matmul: ByTypeEntry
    weight_matmul: ShareEntry
    weight_narrow: FittedShare
    in_step: FittedShare
    contraction_bytes: AmountEntry
    attention_matmul: ShareEntry
    attention_backward_matmul: ShareEntry
    attention_backward_flops: FactorEntry
    hbm: FittedShare
    launch_s: FittedEntry
    layer_overhead_s: AmountEntry
    elementwise_passes: AmountEntry
    routed_passes: AmountEntry
    operand_bytes: AmountEntry
    routing_imbalance: FactorEntry
    communication_sms: ShareEntry
    gradient_overlap: AmountEntry
    gathered_bytes: AmountEntry
    step_overhead_s: AmountEntry

    def provenance_on(self, generation: str | None) -> Provenance:
        """Where the figures of a generation of GPUs come from."""
        return "calibrated" if generation in self.fitted_on else "population"

    def weight_ratio(self, data_type: DataType) -> float:
        """Seconds of a weight gradient's inner loop over those of the forward product's."""
        weights = self.weight_narrow if is_narrow(data_type) else self.weight_matmul
        return self.matmul.value[data_type] / weights.value


def is_narrow(data_type: DataType) -> bool:
    """Whether products in that type need their operands quantized."""
    return bytes_of(data_type) <= 1


@cache
def load_training() -> TrainingConstants:
    """The constants as shipped (an immutable record, read once)."""
    return TrainingConstants.shipped("placement.cost.training", "constants.yaml")


def pass_constants(efficiency: Efficiency, training: TrainingConstants) -> Efficiency:
    """The constants that time a forward pass of training: those of `efficiency`, but for what `training` states.

    A share `in_step` of what 16-bit kernels reach alone is left within a step.
    """
    left = training.in_step.value
    value = {kind: share * (1.0 if is_narrow(kind) else left) for kind, share in training.matmul.value.items()}
    products = training.matmul.model_copy(update={"value": value})
    core = training.attention_matmul
    return efficiency.model_copy(
        update={
            "matmul": products,
            "expert_matmul": products,
            "attention_matmul": core.model_copy(update={"value": core.value * left}),
            "hbm": ShareEntry(value=training.hbm.value, source=training.hbm.source),
            "layer_overhead_s": training.layer_overhead_s,
            "elementwise_passes": training.elementwise_passes,
        }
    )
