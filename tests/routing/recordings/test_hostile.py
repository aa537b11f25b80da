"""Whatever a recording holds, converting it gives a sound trace, sound counts, or one InputError of one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from placement.errors import InputError
from placement.routing.reader import read_trace
from placement.routing.recordings.converting import convert
from placement.routing.recordings.shape import ModelShape
from placement.routing.trace import Trace
from tests.routing.recordings.hostile import crafted, hostile
from tests.routing.recordings.samples import NEEDS, SAMPLES, SHAPE

ROOT = Path(__file__).resolve().parents[3]


def _survives(path: Path, data: bytes, shape: ModelShape) -> bool:
    """Whether a file was refused; anything else than a sound result or one line fails."""
    path.write_bytes(data)
    out = path.with_name("out.npz")
    try:
        convert([path], out, shape)
    except InputError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert str(refusal).isprintable()
        assert len(str(refusal)) < 1500
        assert refusal.problem
        assert refusal.mend
        return True
    found = read_trace(out)
    if isinstance(found, Trace):
        assert int(found.topk_ids.max()) < found.experts
    else:
        assert np.isfinite(found.counts).all()
    return False


@pytest.mark.parametrize("name", SAMPLES)
def test_broken_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    _run(name, range(25), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_two_thousand_broken_files_of_each_form(name: str, tmp_path: Path) -> None:
    _run(name, range(2000), tmp_path)


def _run(name: str, seeds: range, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    file, make, _ = SAMPLES[name]
    data = make()
    refused = sum(
        _survives(tmp_path / file, hostile(name, data, seed), SHAPE if seed % 2 else ModelShape()) for seed in seeds
    )
    assert refused > len(seeds) // 4


def test_claims_beyond_the_file_cost_little(tmp_path: Path) -> None:
    """In a process that may take 1.5 GiB more than it has at start, each file is refused in one line."""
    files = {name: tmp_path / f"{number}.bin" for number, name in enumerate(crafted())}
    for name, data in crafted().items():
        files[name].write_bytes(data)
    (tmp_path / "run.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), *map(str, files.values())], capture_output=True, text=True,
        timeout=300, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(files)
    for line, (name, path) in zip(lines, files.items(), strict=True):
        assert line.startswith(f"{path}: "), name
        assert "MemoryError" not in line, name


PROGRAM = """
import resource, sys
from pathlib import Path
from placement.errors import InputError
from placement.routing.recordings.converting import convert
from placement.routing.recordings.shape import ModelShape

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**29,) * 2)
for name in sys.argv[1:]:
    try:
        convert([Path(name)], Path(name).with_suffix(".npz"), ModelShape())
        print("converted")
    except InputError as error:
        print(error)
"""
