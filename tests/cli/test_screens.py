"""Every screen at 80 and 120 columns, as it stands in tests/golden/screens.

After a wanted change, `SCREENS=write python -m pytest tests/cli/test_screens.py` writes the files anew; look at what
`git diff` shows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.conftest import Done

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "screens"
SPEC = ("--spec", "tiny.yaml", "--gap", "0")
APART = ("--nodes", "4", "--mode", "disaggregated")
#: Name -> arguments, in a folder of `folder`'s files.
SCREENS: dict[str, tuple[str, ...]] = {
    "solve": ("solve", *SPEC, "--strategy", "search", "--trace", "a.npz", "--out", "out.json"),
    "solve-verbose": ("solve", *SPEC, "--strategy", "search", "--trace", "a.npz", "-v"),
    "solve-quiet": ("solve", *SPEC, "--strategy", "search", "-q"),
    "deploy": ("deploy", "--spec", "tiny.yaml"),
    "deploy-front": ("deploy", "--spec", "tiny.yaml", "--front"),
    "compare": ("compare", *SPEC, "--strategy", "search", "--trace", "a.npz"),
    "evaluate": ("evaluate", "recorded.json", "--trace", "b.npz", "--trace", "a.npz"),
    "evaluate-quiet": ("evaluate", "recorded.json", "--trace", "b.npz", "-q"),
    "migrate": ("migrate", "recorded.json", "--trace", "b.npz", "--max-moves", "3"),
    "migrate-failed": ("migrate", "recorded.json", "--trace", "b.npz", "--max-moves", "9", "--failed-gpu", "1"),
    "solve-apart": ("solve", *SPEC, *APART, "--strategy", "search", "--trace", "a.npz"),
    "deploy-apart": ("deploy", "--spec", "tiny.yaml", *APART),
    "evaluate-apart": ("evaluate", "apart.json", "--trace", "b.npz"),
    "migrate-apart": ("migrate", "apart.json", "--trace", "b.npz", "--max-moves", "3", "--work", "0.05"),
    "verify": ("verify", "recorded.json"),
    "verify-trace": ("verify", "recorded.json", "--trace", "a.npz"),
    "specs-list": ("specs", "list"),
    "specs-show": ("specs", "show", "tiny.yaml"),
    "strategies": ("strategies",),
}
HELP = (
    (), ("solve",), ("deploy",), ("compare",), ("evaluate",), ("migrate",), ("verify",), ("specs",), ("specs", "list"),
    ("specs", "show"), ("specs", "schema"), ("topology",), ("topology", "read"), ("strategies",),
)  # fmt: skip
SECONDS = re.compile(
    r"(?<=made in  )[\d.]+(?= s)|(?<=routing )\d+\.\d(?=,)|(?<=split )\d+\.\d(?=,)|(?<=solving )\d+\.\d"
)


def _same(name: str, text: str) -> None:
    """Whether the text is the golden one, which is written anew where that is asked for."""
    path = GOLDEN / f"{name}.txt"
    masked = SECONDS.sub("#", text)
    if os.environ.get("SCREENS") == "write":
        path.write_text(masked)
    assert masked == path.read_text()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", SCREENS)
def test_screen(
    name: str, width: int, call: Callable[..., Done], folder: Path, apart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", str(width))
    done = call(*SCREENS[name])
    assert done.code == 0, done.err
    wide = [line for line in done.out.splitlines() if cell_len(line) > width]
    assert not [line for line in wide if not re.search(r"placement \w+ |\S{60}", line)]
    _same(f"{name}.{width}", done.out)


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help(command: tuple[str, ...], call: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = call(*command, "-h")
    assert done.code == 0
    assert all(len(line) <= 80 for line in done.out.splitlines())
    if command:  # the list of commands grows elsewhere
        _same(f"help-{'-'.join(command)}", done.out)
    assert call(*command, "--help").out == done.out


@pytest.mark.parametrize("name", ["solve", "evaluate", "migrate"])
def test_narrow_screens_cut_nothing(
    name: str, call: Callable[..., Done], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every word of the wide screen is on the narrow one."""
    monkeypatch.chdir(folder)
    words = {}
    for width in (40, 160):
        monkeypatch.setenv("COLUMNS", str(width))
        words[width] = set(SECONDS.sub("#", call(*SCREENS[name]).out).split())
    assert words[160] <= words[40]
