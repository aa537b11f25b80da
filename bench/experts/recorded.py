"""Measured f(n), the time of a slot with n tokens, as records, and the cost model's. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from placement.cost.layer.scenario_rates import layer_rates
from placement.errors import InputError
from placement.problem.split import Split
from specs.fields import DataType, bytes_of
from specs.loading import load_model, load_scenario
from specs.overrides import overridden

#: A scenario of serving with short sequences, which any model takes: its model, GPUs and types are replaced.
_FRAME = "olmoe_1b_7b_h100_ib"
_LIBRARIES: tuple[Literal["torch", "triton"], ...] = ("torch", "triton")
#: More copies than that on a GPU are left out.
MOST_COPIES = 131_072


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Case(_Record):
    """Experts of a catalog model on one GPU: `slots` of them, each of 1/`etp` of the width, weights of type `kind`.

    `library` has the kernels: torch's grouped products, or triton's triton_kernels.
    """

    model: str
    kind: Literal["bf16", "fp8", "mxfp4"]
    slots: int
    etp: int = 1
    library: Literal["torch", "triton"] = "torch"

    @property
    def name(self) -> str:
        """Its name on the command line."""
        shared = f"/etp{self.etp}" if self.etp > 1 else ""
        return f"{self.model}/{self.kind}/{self.slots}{shared}/{self.library}"

    def dimensions(self) -> tuple[int, int]:
        """(hidden, width) of an expert's part on one GPU."""
        model = load_model(self.model)
        return model.hidden, model.moe.expert_width // self.etp

    @property
    def elements(self) -> float:
        """Elements of a slot's weights."""
        model = load_model(self.model)
        return model.moe.expert_elements(model.hidden) / self.etp

    @property
    def bytes(self) -> float:
        """Bytes of a slot's weights."""
        return self.elements * bytes_of(self.kind)

    def tokens(self, most: int) -> tuple[int, ...]:
        """Powers of two up to `most`, as far as a GPU has room for the copies."""
        return tuple(2**i for i in range(most.bit_length()) if 2**i * self.slots <= MOST_COPIES)


#: EP of 8 GPUs and more, all of a small model on one GPU, and TP (`etp` with all the experts on each GPU).
CASES = (
    *(
        Case(model=model, kind="bf16", slots=slots, etp=etp, library=library)
        for model, slots, etp in (
            ("deepseek_r1", 8, 1), ("qwen3_235b", 16, 1), ("qwen3_30b_a3b", 16, 1), ("gpt_oss_120b", 16, 1),
            ("deepseek_v2_lite", 8, 1), ("olmoe_1b_7b", 8, 1), ("olmoe_1b_7b", 64, 1), ("mixtral_8x7b", 1, 1),
            ("mixtral_8x7b", 8, 8),
        )
        for library in _LIBRARIES
    ),
    *(
        Case(model=model, kind="fp8", slots=slots, etp=etp, library=library)
        for model, slots, etp in (
            ("deepseek_r1", 8, 1), ("deepseek_r1", 256, 8), ("qwen3_235b", 16, 1), ("qwen3_30b_a3b", 16, 1),
        )
        for library in _LIBRARIES
    ),
    *(Case(model="gpt_oss_120b", kind="mxfp4", slots=slots, library="triton") for slots in (16, 128)),
)  # fmt: skip


class Point(_Record):
    """Microseconds of a slot with `tokens` tokens, all slots of the GPU alike: the median.

    Attributes:
        spread: half of what lies between the quartiles, relative. clock_mhz: the GPU's, while it ran.
    """

    tokens: int = Field(gt=0)
    us: float = Field(gt=0)
    spread: float = Field(ge=0)
    clock_mhz: float | None = None


class Curve(_Record):
    """f(n) of one case."""

    case: Case
    points: tuple[Point, ...] = Field(min_length=1)


class Ceilings(_Record):
    """What the device does at best: a large read, a large copy (read and written), and dense products by type."""

    read_gb_per_s: float = Field(gt=0)
    copy_gb_per_s: float = Field(gt=0)
    tflops: dict[DataType, float]


class Measurement(_Record):
    """All that one device was measured at.

    Attributes:
        cluster: of the catalog, whose GPU it is. date: ISO.
    """

    format: Literal["placement.roofline/1"] = "placement.roofline/1"
    device: str
    cluster: str
    driver: str
    torch: str
    date: str
    repeats: int
    ceilings: Ceilings
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Line:
    """The cost model's f(n) = max(weight_us, n * token_us)."""

    weight_us: float
    token_us: float

    def at(self, tokens: int) -> float:
        """Microseconds of a slot."""
        return max(self.weight_us, tokens * self.token_us)

    @property
    def knee(self) -> float:
        """Tokens from which on multiplying takes longer than reading."""
        return self.weight_us / self.token_us


def predicted(case: Case, cluster: str) -> Line:
    """The line of a case on the GPUs of a cluster of the catalog, with the constants that a plan is priced with."""
    types = {"model.types.experts": case.kind, "model.types.compute": "fp8" if case.kind == "fp8" else "bf16"}
    scenario = overridden(load_scenario(_FRAME), model=case.model, cluster=cluster, set=types)
    split = Split(
        tp=case.etp, ep=1, pp=1, dp=1, batch=1, instances=1, redundant=0, slots_per_gpu=case.slots, etp=case.etp
    )
    rates = layer_rates(scenario, split, "decode", tokens_per_gpu=1.0)
    return Line(rates.weight_s * 1e6, rates.token_s * 1e6)


def median_error(curves: Sequence[Curve], cluster: str) -> float:
    """Median of |predicted / measured - 1| over all points."""
    found = [
        abs(line.at(point.tokens) / point.us - 1)
        for curve in curves
        for line in [predicted(curve.case, cluster)]
        for point in curve.points
    ]
    return float(np.median(found))


def shipped(name: str = "h100") -> Measurement:
    """A measurement that ships with the package."""
    return Measurement.model_validate_json((files("bench.experts") / "measured" / f"{name}.json").read_bytes())


def load(path: str | Path) -> Measurement:
    """A measurement, as the command wrote it.

    Raises:
        InputError: the file can't be read, or holds no measurement.
    """
    try:
        return Measurement.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise InputError(str(path), "", f"can't be read: {error.strerror}", "give a file that --out wrote") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            str(path), where, f"is no measurement: {first['msg']}", "give a file that --out wrote"
        ) from error
