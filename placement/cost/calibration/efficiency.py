"""The constants of the cost model: the shares and fixed costs of `efficiency.yaml`, checked on loading.

placement.cost.calibration.fitted turns them into those of a measured case.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from specs.documents import shipped_yaml
from specs.fields import DataType

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeastOne = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Reason = Annotated[str, Field(min_length=10)]
Provenance = Literal["roofline", "population", "calibrated", "measured"]
#: Constants that were fitted to measurements: how far they are off is known.
FITTED: tuple[Provenance, ...] = ("population", "calibrated")


class Constants(BaseModel):
    """Base of the records: immutable, and a field that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def shipped(cls, package: str, name: str) -> Self:
        """The constants of a data file of the package.

        Raises:
            pydantic.ValidationError: the data file is damaged; that is a fault of the installation, not of the user.
        """
        return cls.model_validate(shipped_yaml(package, name))


class ShareEntry(Constants):
    """A share of a nominal rate."""

    value: Share
    source: Reason


class AmountEntry(Constants):
    """A time or a byte count, not negative."""

    value: NotNegative
    source: Reason


class FactorEntry(Constants):
    """A multiple or a count of at least 1."""

    value: AtLeastOne
    source: Reason


class ByTypeEntry(Constants):
    """A share of the peak rate for every data type."""

    value: dict[DataType, Share]
    source: Reason

    @model_validator(mode="after")
    def _names_every_type(self) -> ByTypeEntry:
        missing = set(get_args(DataType)) - set(self.value)
        if missing:
            raise ValueError(f"no value for {', '.join(sorted(missing))}")
        return self


class Efficiency(Constants):
    """All constants; `efficiency.yaml` states the reason of each beside its value."""

    provenance: Provenance
    matmul: ByTypeEntry
    expert_matmul: ByTypeEntry
    attention_matmul: ShareEntry
    attention_decode_matmul: ShareEntry
    hbm: ShareEntry
    hbm_experts: ShareEntry
    hbm_kv: ShareEntry
    layer_overhead_s: AmountEntry
    step_overhead_s: AmountEntry
    sequence_overhead_s: AmountEntry
    prefill_overhead_s: AmountEntry
    first_token_s: AmountEntry
    first_token_launch_s: AmountEntry
    launch_layer_s: AmountEntry
    arrival_bunching: ShareEntry
    rank_stall: AmountEntry
    rank_wait: AmountEntry
    routing_shape: AmountEntry
    collective_overhead_s: AmountEntry
    collective_bandwidth: ShareEntry
    elementwise_passes: AmountEntry
    serving_passes: AmountEntry
    prefill_time: AmountEntry
    scale_bytes_per_block: AmountEntry
    scale_block: FactorEntry
    receive_margin: FactorEntry
    low_latency_tokens: FactorEntry
    buffer_copies: FactorEntry
    max_sequences_per_rank: FactorEntry


@cache
def load_efficiency() -> Efficiency:
    """The constants as shipped (an immutable record, read once)."""
    return Efficiency.shipped("placement.cost.calibration", "efficiency.yaml")
