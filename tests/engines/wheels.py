"""Engines' own code, unpacked from their wheels, for tests that run it on our files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

#: Where wheels were unpacked already: $ENGINE_WHEELS/vllm, $ENGINE_WHEELS/sglang.
VARIABLE = "ENGINE_WHEELS"
VERSIONS = {"vllm": "0.33.0", "sglang": "0.5.23"}


def unpacked(name: str, cache: Path) -> Path:
    """The folder that an engine's wheel is unpacked in: found through $ENGINE_WHEELS, or downloaded into `cache`.

    Skips the test where the package index has it not, or can't be reached.
    """
    given = os.environ.get(VARIABLE)
    if given and (Path(given) / name).is_dir():
        return Path(given) / name
    target = cache / f"{name}-{VERSIONS[name]}"
    if not target.is_dir():
        # A folder of its own: other processes may download the same.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            made = _downloaded(name, Path(folder))
            with contextlib.suppress(OSError):  # another process was first
                made.rename(target)
    return target


def _downloaded(name: str, folder: Path) -> Path:
    wanted = f"{name}=={VERSIONS[name]}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", wanted]
    try:
        done = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{wanted} did not come from the package index in 5 minutes; set {VARIABLE}")
    if done.returncode:
        pytest.skip(f"{wanted} can't be had from the package index; set {VARIABLE} to a folder of unpacked wheels")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / name, [each for each in archive.namelist() if each.endswith(".py")])
    return folder / name
