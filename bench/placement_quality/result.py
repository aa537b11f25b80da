"""What a part of the benchmark hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.targets import Target


@dataclass(frozen=True)
class Part:
    """One part: its table as text, its records (dataclasses, for JSON), and its targets."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: Sequence[Any]
    targets: tuple[Target, ...] = field(default=())
