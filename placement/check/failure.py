"""How a check of a plan fails: by what does not hold, or by what differs from what is derived."""

from __future__ import annotations

import math

from pydantic import BaseModel

from placement.check.case import TOLERANCE
from specs.documents import shown


class FailureError(Exception):
    """A check that fails; the message says how."""


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FailureError(otherwise)


def same(path: str, found: object, derived: object) -> None:
    """Fails at the first place where records, or numbers by more than TOLERANCE, differ."""
    if isinstance(found, BaseModel) and isinstance(derived, BaseModel):
        for name in type(derived).model_fields:
            same(f"{path}.{name}", getattr(found, name), getattr(derived, name))
    elif isinstance(found, tuple) and isinstance(derived, tuple) and found != derived:
        require(len(found) == len(derived), f"{path} has {len(found)} entries, derived {len(derived)}")
        for i, (mine, its) in enumerate(zip(found, derived, strict=True)):
            same(f"{path}[{i}]", mine, its)
    else:
        alike = found == derived
        if isinstance(found, float) and isinstance(derived, float):
            alike = math.isclose(found, derived, rel_tol=TOLERANCE, abs_tol=1e-12)
        require(alike, f"{path} is {shown(str(found), 200)}, derived {shown(str(derived), 200)}")
