"""What a run of `python -m bench accuracy` shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.targets import Target


@dataclass(frozen=True)
class Shown:
    """A report as text and for JSON, and the targets it checks."""

    text: str
    record: dict[str, Any]
    targets: tuple[Target, ...]
