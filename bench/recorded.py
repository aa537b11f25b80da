"""The recorded routing of DeepSeek-V2-Lite that benchmarks read: three domains of text, 64 experts, 26 layers."""

from __future__ import annotations

from pathlib import Path

from placement.errors import InputError
from placement.routing.reader import read_trace
from placement.routing.trace import Trace

DOMAINS = ("intent", "law", "summary")


def read_domain(folder: str, name: str) -> Trace:
    """The trace of one of DOMAINS.

    Args:
        folder: where dsv2lite_*.npz lie.

    Raises:
        InputError: the folder does not hold it.
    """
    path = Path(folder) / f"dsv2lite_{name}.npz"
    if not path.is_file():
        raise InputError("--traces", str(path), "is not there", "name the folder of dsv2lite_*.npz")
    found = read_trace(str(path))
    if not isinstance(found, Trace):
        raise InputError("--traces", str(path), "holds load counts", "name traces")
    return found
