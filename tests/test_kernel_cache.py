"""A read-only installation without a writable home compiles into a private temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from placement.kernel_cache import drop_stale, private, writable

ROOT = Path(__file__).resolve().parents[1]
#: Root without its powers is a user like any other, whose folders' modes count.
PLAIN = ("setpriv", "--bounding-set", "-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
ALL = """
import importlib, pkgutil, sys
for name in ("solvers", "placement"):
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, name + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
assert "numba" in sys.modules
"""
BALANCE = """
import numba, os
if {late}:
    import solvers.experts.loads.layer  # with a numba that was imported first
from placement.compat.eplb import rebalance_experts
print(rebalance_experts([[4.0, 3.0, 2.0, 1.0]], 4, 1, 1, 4)[2].tolist())
"""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """The packages, without anything compiled, in a folder that can't be written."""
    if PLAIN and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv")
    for name in ("placement", "solvers", "specs"):
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tmp").mkdir()
    folders = [tmp_path / "tree", *(path for path in (tmp_path / "tree").rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield tmp_path / "tree"
    for folder in folders:
        folder.chmod(0o755)


def run(tree: Path, code: str, **environment: str) -> str:
    """What `python -c CODE` prints on stdout; it may print nothing on stderr."""
    names = {"HOME": str(tree / "nowhere"), "TMPDIR": str(tree.parent / "tmp"), "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [*PLAIN, sys.executable, "-c", code], cwd="/", env={"PATH": os.environ["PATH"], **names, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def kernels(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}


def test_it_falls_back_and_compiles_once(tree: Path) -> None:
    run(tree, ALL)
    (folder,) = (tree.parent / "tmp").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert run(tree, BALANCE.format(late=False)) == "[[1, 1, 1, 1]]\n"
    compiled = kernels(folder)
    assert compiled
    assert run(tree, BALANCE.format(late=True)) == "[[1, 1, 1, 1]]\n"
    assert kernels(folder) == compiled
    assert not [path for path in tree.rglob("*") if path.name in ("nowhere", "__pycache__")]


@pytest.mark.parametrize("name", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_place_of_the_users_own_is_left_alone(tree: Path, name: str) -> None:
    own = tree.parent / "own"
    run(tree, "import solvers.experts.heuristics.packing", **{name: str(own)})
    assert own.is_dir()
    assert not list((tree.parent / "tmp").iterdir())


def test_a_folder_of_another_kind_is_not_private(tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert writable(str(own), 0o700)
    assert private(str(own))
    (tmp_path / "link").symlink_to(own)
    assert not private(str(tmp_path / "link"))
    own.chmod(0o750)
    assert not private(str(own))
    (tmp_path / "file").touch()
    assert not writable(str(tmp_path / "file"))
    assert not writable(str(tmp_path / "file" / "in"))


def test_kernels_older_than_a_source_beside_one_of_them_are_dropped(tmp_path: Path) -> None:
    """A kernel of one file is inlined into those of others, whose caches numba would keep."""
    names = ["a/caller.py", "a/__pycache__/caller.one.nbi", "a/__pycache__/caller.one.1.nbc", "b/inlined.py"]
    names += ["b/__pycache__/inlined.two.nbi", "c/plain.py"]
    for at, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        os.utime(path, (4e9 + at, 4e9 + at))  # later than now: not dated at all
    kernels = sorted(tmp_path.rglob("*.nb?"))
    drop_stale(tmp_path)
    assert sorted(tmp_path.rglob("*.nb?")) == kernels
    for path in kernels:
        os.utime(path)
    os.utime(tmp_path / "c/plain.py")
    drop_stale(tmp_path)
    assert sorted(tmp_path.rglob("*.nb?")) == kernels
    for path in kernels:
        os.utime(path, (1e9, 1e9))
    os.utime(tmp_path / "b/inlined.py", (1.1e9, 1.1e9))
    drop_stale(tmp_path)
    assert not list(tmp_path.rglob("*.nb?"))
