"""What every spec is made of: the kinds of value its fields hold, their limits, and the base of its records."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DataType = Literal["fp32", "bf16", "fp16", "fp8", "int8", "mxfp8", "mxfp4", "nvfp4", "int4", "int4_g32", "int4_g128"]

#: Upper limits: beyond them a typing error is likelier than a real system, and they keep every array that is sized by
#: a spec small enough to allocate. All numbers are strict: neither text nor true/false passes for a number.
MAX_COUNT = 10_000_000
MAX_LAYERS = 2_048
MAX_EXPERTS = 65_536
MAX_TOP_K = 1_024
MAX_WIDTH = 1_048_576
MAX_HEADS = 65_536
MAX_GPUS = 65_536
MAX_PARAMETERS = 10**15
#: Router choices of a synthesized trace (MoE layers x tokens x top_k), and GPU x expert pairs of one layer.
MAX_ROUTER_CHOICES = 500_000_000
MAX_GPU_EXPERT_PAIRS = 2**26

Count = Annotated[int, Field(ge=1, le=MAX_COUNT, strict=True)]
Layers = Annotated[int, Field(ge=1, le=MAX_LAYERS, strict=True)]
LayerIndex = Annotated[int, Field(ge=0, lt=MAX_LAYERS, strict=True)]
Experts = Annotated[int, Field(ge=1, le=MAX_EXPERTS, strict=True)]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K, strict=True)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH, strict=True)]
Heads = Annotated[int, Field(ge=1, le=MAX_HEADS, strict=True)]
Degree = Annotated[int, Field(ge=1, le=MAX_GPUS, strict=True)]
#: A number whose unit its field's name does not end with carries it here (see specs.schema).
Tokens = Annotated[Count, Field(json_schema_extra={"unit": "tokens"})]
Positive = Annotated[float, Field(ge=1e-6, le=1e9, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=1e-4, le=1, allow_inf_nan=False, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", strict=True)]
Text = Annotated[str, Field(max_length=2_000, strict=True)]

BITS: dict[DataType, float] = {
    "fp32": 32,
    "bf16": 16,
    "fp16": 16,
    "fp8": 8,
    "int8": 8,
    # One 8-bit scale for each block of 32 (mxfp8, mxfp4) or 16 (nvfp4).
    "mxfp8": 8.25,
    "mxfp4": 4.25,
    "nvfp4": 4.5,
    # One 16-bit scale for each group of 64, 32 or 128.
    "int4": 4.25,
    "int4_g32": 4.5,
    "int4_g128": 4.125,
}


def bytes_of(data_type: DataType) -> float:
    """Bytes of one element, block scales counted in."""
    return BITS[data_type] / 8


class Spec(BaseModel):
    """Base of every record: immutable, and a field that is not known is an error.

    The string below a field is its description in the JSON Schema and in `placement specs schema`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
