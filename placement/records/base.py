"""What every record of a file is made of: kinds of value and the records' base."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from placement.problem.arrays import EMPTY
from specs.fields import MAX_EXPERTS, MAX_GPUS

MAX_SLOTS = 2**26

Whole = Annotated[int, Field(ge=0, le=2**53, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
#: The logical expert of a slot; EMPTY (-1) on a GPU that has failed.
Held = Annotated[int, Field(ge=EMPTY, lt=MAX_EXPERTS, strict=True)]
Slots = Annotated[tuple[Held, ...], Field(min_length=1, max_length=MAX_SLOTS)]
Rank = Annotated[int, Field(ge=0, lt=MAX_GPUS, strict=True)]
Text = Annotated[str, Field(max_length=4_000, strict=True)]


class Record(BaseModel):
    """Base of the plan's records: immutable, and a field that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
