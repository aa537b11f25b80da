"""The command `placement strategies`: lists the solvers and what each takes into account."""

from __future__ import annotations

from collections.abc import Sequence

import click

from placement.cli.running import emit, note


@click.command("strategies", short_help="List the solvers that --strategy takes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the solvers that --strategy takes, with what each takes into account."""
    import json
    from dataclasses import asdict

    from placement.errors import ParameterError
    from placement.report.text import columns, rendered
    from solvers.registry import get_solver, solver_names

    features = {}
    for name in solver_names():
        try:
            features[name] = get_solver(name).features
        except ParameterError as error:
            note(f"left out: {error}")
    if as_json:
        emit(json.dumps([{"name": name, **asdict(each)} for name, each in features.items()], indent=2))
        return
    header = ("strategy", "replicas", "traffic", "groups", "moves", "fixed", "proves", "baseline", "dispatch")
    rows = [
        (
            name,
            *("yes" if getattr(each, field) else "-" for field in header[1:-1]),
            _served(each.dispatch),
        )
        for name, each in features.items()
    ]
    notes = [f"{name}: {each.note}" for name, each in features.items() if each.note]
    emit(rendered([columns(header, rows), "", *notes]))


def _served(dispatch: Sequence[str]) -> str:
    """The policies in few words."""
    from solvers.base import EVERY_DISPATCH

    others = [name for name in EVERY_DISPATCH if name not in dispatch]
    if not others:
        return "every"
    return ", ".join(dispatch) if len(others) > 1 else f"every but {others[0]}"
