"""Writes traces and load counts (docs/routing.md has the format): the same arrays give the same bytes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from placement.records.files import write_file
from placement.routing.trace import LoadCounts, Trace

#: Every member's date: the oldest that a zip file can state.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Member:
    """An array of a file, in pieces of its flat entries (C order) so that no more than one is in memory."""

    key: str
    dtype: DTypeLike
    shape: tuple[int, ...]
    pieces: Iterable[NDArray[Any]]

    @classmethod
    def of(cls, key: str, array: NDArray[Any]) -> Member:
        """An array at hand."""
        return cls(key, array.dtype, array.shape, (array,))


def write_members(path: str | Path, members: Sequence[Member], option: str = "`out`") -> None:
    """Writes an .npz file, whole or not at all.

    Args:
        members: its arrays, in this order. option: names the path in messages.

    Raises:
        InputError: the file can't be written.
    """

    def fill(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in members:
                info = zipfile.ZipInfo(f"{member.key}.npy", _DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=True) as target:
                    header = {
                        "descr": npy.dtype_to_descr(np.dtype(member.dtype)),
                        "fortran_order": False,
                        "shape": member.shape,
                    }
                    npy.write_array_header_1_0(target, header)
                    for piece in member.pieces:
                        target.write(np.ascontiguousarray(piece, dtype=member.dtype).tobytes())

    write_file(path, fill, option)


def write_trace(path: str | Path, trace: Trace, option: str = "`out`") -> None:
    """Writes a trace that `read_trace` gives back.

    Raises:
        InputError: the file can't be written.
    """
    sizes = {"moe_layers": trace.layers, "experts": trace.experts, "top_k": trace.top_k, "source": trace.source}
    members = [
        Member.of("topk_ids", trace.topk_ids.astype(id_type(trace.experts))),
        Member.of("seq_lens", trace.seq_lens.astype(np.int64)),
        meta_member({**trace.meta, **sizes}),
    ]
    if trace.topk_weights is not None:
        members.append(Member.of("topk_weights", trace.topk_weights))
    write_members(path, members, option)


def write_counts(path: str | Path, counts: LoadCounts, option: str = "`out`") -> None:
    """Writes load counts that `read_trace` gives back.

    Raises:
        InputError: the file can't be written.
    """
    sizes = {"moe_layers": counts.layers, "experts": counts.experts, "source": counts.source}
    members = [Member.of("counts", counts.counts.astype(np.int64)), meta_member({**counts.meta, **sizes})]
    write_members(path, members, option)


def id_type(experts: int) -> np.dtype[Any]:
    """The narrowest unsigned type of ids of so many experts."""
    return np.min_scalar_type(max(0, experts - 1))


def meta_member(meta: dict[str, Any]) -> Member:
    """The meta record as an array of one string."""
    return Member.of("meta", np.array(json.dumps(meta)))
