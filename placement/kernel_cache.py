"""Where numba keeps compiled kernels: in its own places, or in a private temporary folder where none can be written."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path


def find_kernel_cache() -> None:
    """Points numba, here and in processes started from here, at a folder that can be written.

    Numba looks at NUMBA_CACHE_DIR, beside the source, and in the user's cache folder, and refuses to compile where it
    can write to none of them, as in a read-only installation without a writable home. The folder in their place is
    the user's own, for what it holds is run, and the same every time, so that nothing is compiled anew.
    """
    package = Path(__file__).parent
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
