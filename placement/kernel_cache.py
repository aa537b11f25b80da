"""Where numba keeps compiled kernels: in its own places, or in a private temporary folder where none can be written."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import time as now


def find_kernel_cache() -> None:
    """Points numba, here and in processes started from here, at a folder that can be written.

    Numba looks at NUMBA_CACHE_DIR, beside the source, and in the user's cache folder, and refuses to compile where it
    can write to none of them, as in a read-only installation without a writable home. The folder in their place is
    the user's own, for what it holds is run, and the same every time, so that nothing is compiled anew.
    """
    package = Path(__file__).parent
    drop_stale(package, package.with_name("solvers"))
    if all(os.access(folder, os.W_OK) for folder in (package, package.with_name("solvers"))):
        return
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    users = os.path.join(os.getenv("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "numba")
    if (chosen and writable(chosen)) or writable(users):
        return
    for base in dict.fromkeys((os.environ.get("TMPDIR", "/tmp"), "/tmp", "/var/tmp", "/dev/shm")):
        folder = os.path.join(base, f"placement-kernels-{os.geteuid()}")
        if writable(folder, 0o700) and private(folder):
            os.environ["NUMBA_CACHE_DIR"] = folder
            if "numba" in sys.modules:  # which has read the environment by now
                sys.modules["numba"].config.CACHE_DIR = folder
            return


def drop_stale(*packages: Path) -> None:
    """Removes compiled kernels that are older than a source beside any of them, or than the decorators.

    Numba compares a kernel with its own source file alone, but kernels of other files are inlined into it: after a
    change of one of these it would go on as before, in silence.
    """
    folders = [folder for package in packages for folder in _caches(package)]
    sources = (path for folder in folders for path in folder.parent.glob("*.py"))
    decorators = Path(__file__).with_name("kernels.py")
    with suppress(OSError):
        # What is dated later than now says nothing of when it changed.
        changed = (path.stat().st_mtime for path in (decorators, *sources))
        newest = max((time for time in changed if time <= now()), default=0.0)
        for folder in folders:
            for path in folder.glob("*.nb?"):
                if path.stat().st_mtime < newest:
                    path.unlink(missing_ok=True)


def _caches(package: Path) -> Iterator[Path]:
    """Folders below a package that hold compiled kernels."""
    for folder, _, files in os.walk(package):
        if folder.endswith("__pycache__") and any(name.endswith(".nbi") for name in files):
            yield Path(folder)


def writable(folder: str, mode: int = 0o777) -> bool:
    """Whether a folder is there, or could be made with this mode, and can be written."""
    try:
        os.makedirs(folder, mode, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def private(folder: str) -> bool:
    """Whether a folder is this user's, and no one else can come in; a link to one is not."""
    found = os.lstat(folder)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
