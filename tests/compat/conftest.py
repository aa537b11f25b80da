"""What the tests of the plug-ins share: small scenarios' plans, engines' wheels, and the plug-ins as installed ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT
from tests.engines.conftest import sglang_wheel as sglang_wheel
from tests.engines.conftest import vllm_wheel as vllm_wheel
from tests.engines.conftest import wheel_cache as wheel_cache

#: Runs a script of this folder inside an engine: (script, wheel, input, environment) -> what it printed, and its log.
Inside = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes Python find the project's entry points, as installing it does."""
    site = tmp_path_factory.mktemp("site")
    info = site / "placement_plugins-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: placement-plugins\nVersion: 1\n")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in each.items()) for group, each in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return site


@pytest.fixture
def inside(installed: Path, tmp_path: Path) -> Inside:
    """Runs a script with an engine's unpacked wheel and the plug-ins' entry points on the path."""

    def call(script: str, wheel: Path, asked: dict[str, Any], **environ: str) -> tuple[dict[str, Any], str]:
        path = os.pathsep.join((str(ROOT), str(wheel), str(installed)))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PLACEMENT_")}
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name(script))],
            input=json.dumps(asked), capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
            env={**kept, "PYTHONPATH": path, "HOME": str(tmp_path), **environ},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr

    return call
