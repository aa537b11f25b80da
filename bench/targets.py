"""Measured figures against what they have to reach, as every benchmark tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Target:
    """A measured figure that has to stay at or below a limit, or with `at_least` at or above it."""

    name: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def target_records(targets: Sequence[Target]) -> list[dict[str, Any]]:
    """The targets for JSON, each with whether it is met."""
    return [asdict(target) | {"met": target.met} for target in targets]


def target_table(targets: Sequence[Target]) -> RenderableType:
    """A table of the targets."""
    from placement.report.text import columns

    rows = []
    for t in targets:
        asked = f"{'>=' if t.at_least else '<='} {t.limit:.4g} {t.unit}"
        rows.append([t.name, f"{t.measured:.4g} {t.unit}".strip(), asked.strip(), "yes" if t.met else "NO"])
    return columns(["target", "measured", "asked", "met"], rows)


def check_targets(targets: Sequence[Target]) -> None:
    """Raises CheckFailedError, which names the targets that are missed, if any is."""
    from placement.errors import CheckFailedError

    missed = [target.name for target in targets if not target.met]
    if missed:
        raise CheckFailedError(f"missed {len(missed)} of {len(targets)}: {'; '.join(missed)}")
