"""Checks of a plan as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import RenderableType

from placement.check.findings import Check
from placement.report.text import fields, heading, rendered

_WORDS = {True: "ok", False: "FAILED"}


def checks_text(plan: str, checks: Sequence[Check], quiet: bool = False) -> str:
    """One line a finding (`quiet`: a failed one), how many there are of each kind, and what --trace would add."""
    rows = [
        (c.name, f"{c.kind if c.passed is None else _WORDS[c.passed]}: {c.detail}")
        for c in checks
        if not quiet or c.passed is False
    ]
    failed = sum(check.passed is False for check in checks)
    verdict = ", ".join(f"{count} {kind}" for kind, count in _counts(checks).items())
    verdict += f"; {failed} FAILED" if failed else ""
    parts: list[RenderableType] = [heading("plan ", plan), fields(rows), heading(verdict)]
    if any(check.kind == "missing" and check.name.endswith("routing") for check in checks):
        parts.append("what is missing: add --trace FILE, the routing that the plan was solved on")
    return rendered(parts)


def checks_json(plan: str, checks: Sequence[Check]) -> str:
    """The findings as a JSON object."""
    passed = all(check.passed is not False for check in checks)
    found = {"plan": plan, "passed": passed, "counts": _counts(checks), "checks": [asdict(check) for check in checks]}
    return json.dumps(found, indent=2)


def _counts(checks: Sequence[Check]) -> dict[str, int]:
    return {kind: sum(check.kind == kind for check in checks) for kind in ("checked", "claimed", "missing")}
