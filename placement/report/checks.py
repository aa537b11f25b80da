"""Checks of a plan as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from placement.check.plan import Check
from placement.report.text import fields, heading, rendered

_WORDS = {True: "ok", False: "FAILED", None: "skipped"}


def checks_text(plan: str, checks: Sequence[Check]) -> str:
    """One line a check."""
    rows = [(check.name, f"{_WORDS[check.passed]}: {check.detail}") for check in checks]
    failed = sum(check.passed is False for check in checks)
    verdict = f"{failed} of {len(checks)} checks failed" if failed else "every check that could be made passed"
    return rendered([heading("plan ", plan), fields(rows), heading(verdict)])


def checks_json(plan: str, checks: Sequence[Check]) -> str:
    """The checks as a JSON object."""
    records = [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in checks]
    failed = any(check.passed is False for check in checks)
    return json.dumps({"plan": plan, "passed": not failed, "checks": records}, indent=2)
