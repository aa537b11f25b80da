"""Imports point one way (pyproject.toml, [tool.importlinter]): held by import-linter."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_ERROR, EXIT_STATUS_SUCCESS, lint_imports

CONFIG = Path(__file__).resolve().parents[1] / "pyproject.toml"


def test_imports_point_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(config_filename=str(CONFIG), no_cache=True)
    assert code == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_an_import_the_other_way_is_found(tmp_path: Path) -> None:
    """With solvers below the core every import of a cost or a problem is one."""
    wrong = tmp_path / "pyproject.toml"
    wrong.write_text(
        '[tool.importlinter]\nroot_packages = ["placement", "solvers"]\n'
        '[[tool.importlinter.contracts]]\nname = "upside down"\ntype = "layers"\n'
        'layers = ["placement.cost", "solvers"]\n'
    )
    assert lint_imports(config_filename=str(wrong), no_cache=True) == EXIT_STATUS_ERROR
