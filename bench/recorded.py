"""The recorded routing of DeepSeek-V2-Lite that benchmarks read: three domains of text, 64 experts, 26 layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from placement.errors import InputError

if TYPE_CHECKING:
    from placement.routing.trace import Trace
    from specs.model import Model

DOMAINS = ("intent", "law", "summary")
#: Its MoE layers.
LAYERS = 26


def read_domain(folder: str, name: str, model: Model | None = None) -> Trace:
    """The trace of one of DOMAINS.

    Args:
        folder: where dsv2lite_*.npz lie.
        model: to refuse another model's recording; None: not checked.

    Raises:
        InputError: the folder does not hold it, or what it holds is of another model.
    """
    from placement.routing.reader import read_trace
    from placement.routing.trace import Trace

    path = Path(folder) / f"dsv2lite_{name}.npz"
    if not path.is_file():
        raise InputError("--traces", str(path), "is not there", "name the folder of dsv2lite_*.npz")
    known = () if model is None else (model.moe.experts, len(model.moe_layers), model.moe.computed_top_k, model.name)
    found = read_trace(str(path), *known)
    if not isinstance(found, Trace):
        raise InputError("--traces", str(path), "holds load counts", "name traces")
    return found
