"""The witness file of a plan: the prices that prove its bounds, so that anyone can evaluate them (docs/formats.md)."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from placement.errors import InputError
from placement.problem.arrays import FloatArray, IntArray
from placement.records.base import Record
from placement.routing.archive import defects, read_array
from specs.documents import shown

#: A token's price is (byte - ZERO) / UNIT bins: from -0.25 to 1.025, as to share a bin saves at most one.
ZERO, UNIT = 50, 200
#: Largest whole number of a table.
TOP = 2**15 - 1
#: Larger files are no witness of a plan that can be made.
MAX_BYTES = 2**30
#: Longest name of a file, in bytes.
NAME_BYTES = 255


class WitnessRecord(Record):
    """The file beside the plan, NAME.witness-<first 12 digits of its SHA-256>.npz, that proves its bounds."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", strict=True)]
    bytes: Annotated[int, Field(ge=0, le=MAX_BYTES, strict=True)]

    @property
    def suffix(self) -> str:
        """What the file's name ends with."""
        return f".witness-{self.sha256[:12]}.npz"


@dataclass(frozen=True)
class Tables:
    """Prices of what relaxes the placements, as whole numbers; docs/formulation.md, "Messages, by co-location".

    Attributes:
        whole, units: Tables of int16 and what 1 stands for in each: the lower triangles of symmetric matrices with
            their diagonals, then, where homes dispatch apart, the prices of pairs.
        rows: [experts] prices of the rows' sums. alone: weight of the first row of the first matrix.
    """

    whole: tuple[NDArray[np.int16], ...]
    units: FloatArray
    rows: FloatArray
    alone: float = 1.0

    @classmethod
    def of(cls, tables: Sequence[FloatArray], rows: FloatArray, alone: float = 1.0) -> Tables:
        """The prices rounded to whole numbers."""
        units = np.array([max(float(np.abs(table).max(initial=0.0)), 1e-300) / TOP for table in tables])
        whole = tuple(np.rint(table / unit).astype(np.int16) for table, unit in zip(tables, units, strict=True))
        return cls(whole, units, rows, alone)

    def table(self, i: int) -> FloatArray:
        """A table's prices."""
        return np.asarray(self.whole[i] * self.units[i])

    def matrix(self, i: int) -> FloatArray:
        """A table as the symmetric matrix that it is the lower triangle of."""
        size = int((np.sqrt(8 * len(self.whole[i]) + 1) - 1) / 2)
        out = np.zeros((size, size))
        out[np.tril_indices(size)] = self.table(i)
        return np.asarray(out + np.tril(out, -1).T)


@dataclass(frozen=True)
class ReachWitness:
    """Prices of one part of a layer's token sets: of the sets `part`, `part + parts` and so on.

    Attributes:
        tokens: [sets, features] price of each feature of a set, (byte - ZERO) / UNIT. Features of experts i > j of an
            ascending set: each pair, by i, then j; where homes dispatch apart pairs elsewhere, pairs at home and
            experts at home.
    """

    part: int
    parts: int
    tokens: NDArray[np.uint8]
    tables: Tables


@dataclass(frozen=True)
class PackingWitness:
    """Values of copies that prove that no packing keeps a limit: in one kind of pass and one window.

    Attributes:
        kind, window: Of the costs. limit: Of a GPU's summed cost.
        split: [nodes, 2] expert whose copies are split, and the most copies of the first half; expert -1: a leaf. A
            node is followed by its first half, then by its second.
        stands: [levels] ascending costs that a copy's value steps up at, alike for all leaves.
        value: [leaves, levels] of a copy whose cost is at least that level; rises along the levels, from 0 or more.
    """

    kind: int
    window: int
    limit: float
    split: IntArray
    stands: FloatArray
    value: FloatArray


@dataclass(frozen=True)
class LayerWitness:
    """What proves the bound of one layer, beside its loads."""

    reach: tuple[ReachWitness, ...] = ()
    packing: tuple[PackingWitness, ...] = ()


@dataclass(frozen=True)
class RoleWitness:
    """What proves the bounds of one role.

    Attributes:
        bounds: [layers] as the plan has them.
        layers: None where loads alone prove the bound, or only a solver does.
    """

    bounds: FloatArray
    layers: tuple[LayerWitness | None, ...]


@dataclass(frozen=True)
class Kept:
    """Where a plan's witness is: in memory, or in a folder. Says nothing of whether two plans are equal."""

    content: bytes | None = field(default=None, compare=False)
    plan: Path | None = field(default=None, compare=False)

    def found(self, record: WitnessRecord) -> bytes | None:
        """The witness file's bytes, whatever they are, or None where there is no such file of that size.

        Raises:
            InputError: It can't be read.
        """
        if self.content is not None or self.plan is None:
            return self.content
        path = beside(self.plan, record)
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                return file.read(record.bytes + 1)
        except OSError as error:
            raise InputError(shown(path.name, 200), "", f"can't be read ({error.strerror})", "copy it anew") from None


def beside(plan: Path, record: WitnessRecord) -> Path:
    """The witness file of a plan file: under the plan's own name, or the one that it had before."""
    own = own_path(plan, record)
    if own.is_file():
        return own
    ends = re.escape(record.suffix)
    others = sorted(path for path in plan.parent.glob(f"*{record.suffix}") if re.search(f"{ends}$", path.name))
    return others[0] if others else own


def own_path(plan: Path, record: WitnessRecord) -> Path:
    """Where the witness of a plan file is written: the plan's name is cut where no file could be called so."""
    stem = os.fsencode(plan.stem)[: NAME_BYTES - len(record.suffix)]
    return plan.with_name(stem.decode(errors="ignore") + record.suffix)


def record_of(content: bytes) -> WitnessRecord:
    """What a plan says of its witness file."""
    return WitnessRecord(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def witness_bytes(roles: Sequence[RoleWitness]) -> bytes | None:
    """The witness file of a plan's roles; None where loads prove all that is proven."""
    if not any(layer for role in roles for layer in role.layers):
        return None
    arrays: dict[str, NDArray[Any]] = {}
    for r, role in enumerate(roles):
        arrays[f"{r}/bounds"] = role.bounds
        for i, layer in enumerate(role.layers):
            for part in layer.reach if layer else ():
                arrays |= _reach_arrays(f"{r}/{i}/reach{part.part}/", part)
            for at, packed in enumerate(layer.packing if layer else ()):
                arrays |= _packing_arrays(f"{r}/{i}/packing{at}/", packed)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _reach_arrays(at: str, one: ReachWitness) -> Mapping[str, NDArray[Any]]:
    return {
        f"{at}tokens": one.tokens,
        f"{at}tables": np.concatenate(one.tables.whole),
        f"{at}sizes": np.array([one.parts, *(len(table) for table in one.tables.whole)]),
        f"{at}units": np.array([one.tables.alone, *one.tables.units]),
        f"{at}rows": one.tables.rows,
    }


def _packing_arrays(at: str, one: PackingWitness) -> Mapping[str, NDArray[Any]]:
    return {
        f"{at}where": np.array([one.kind, one.window]),
        f"{at}limit": np.array([one.limit]),
        f"{at}split": one.split,
        f"{at}stands": one.stands,
        f"{at}value": one.value,
    }


def read_witness(content: bytes, source: str) -> tuple[RoleWitness, ...]:
    """The witnesses in a file's bytes; whether they are of a plan's shapes is for who evaluates them to see.

    Raises:
        InputError: They are no witness file, or a broken one.
    """
    return _Reader(content, source).roles()


class _Reader:
    """Arrays by their names, of the kinds and dimensions that a witness has."""

    def __init__(self, content: bytes, source: str) -> None:
        self.source = source
        with defects(source, ""):
            self.archive = zipfile.ZipFile(io.BytesIO(content))
            self.members = {info.filename.removesuffix(".npy"): info for info in self.archive.infolist()}
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in self.members.values())
        if not stored or sum(info.file_size for info in self.archive.infolist()) > len(content):
            raise self.wrong("", "holds more than its bytes")

    def array(self, key: str, kinds: str, dimensions: int) -> NDArray[Any]:
        """One array.

        Raises:
            InputError: It is not there, or is none of that kind.
        """
        with defects(self.source, shown(key, 200)):
            data = self.archive.read(self.members[key])
        found = read_array(io.BytesIO(data), len(data), self.source, shown(key, 200))
        if found.dtype.kind not in kinds or found.ndim != dimensions:
            raise self.wrong(key, f"has shape {found.shape} and type {found.dtype}")
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise self.wrong(key, "holds numbers that are not finite")
        return found

    def wrong(self, key: str, problem: str) -> InputError:
        """The file is no witness."""
        return InputError(self.source, shown(key, 200), problem, "give the file that was written with the plan")

    def roles(self) -> tuple[RoleWitness, ...]:
        """All that is in the file."""
        roles, under = list[RoleWitness](), self._by_layer()
        while f"{len(roles)}/bounds" in self.members:
            r = str(len(roles))
            bounds = self.array(f"{r}/bounds", "f", 1).astype(np.float64)
            layers = (self._layer(under.get((r, str(i)), {})) for i in range(len(bounds)))
            roles.append(RoleWitness(bounds, tuple(layers)))
        return tuple(roles)

    def _by_layer(self) -> dict[tuple[str, str], dict[str, None]]:
        """What there is of each role and layer, in the order of the file."""
        under: dict[tuple[str, str], dict[str, None]] = {}
        for key in self.members:
            parts = key.split("/")
            if len(parts) == 4:
                under.setdefault((parts[0], parts[1]), {})["/".join(parts[:3])] = None
        return under

    def _layer(self, names: Mapping[str, None]) -> LayerWitness | None:
        reach = tuple(self._reach(name) for name in names if re.search("/reach[0-9]+$", name))
        packing = tuple(self._packing(name) for name in names if re.search("/packing[0-9]+$", name))
        return LayerWitness(reach, packing) if reach or packing else None

    def _reach(self, at: str) -> ReachWitness:
        sizes, units = self.array(f"{at}/sizes", "iu", 1), self.array(f"{at}/units", "f", 1)
        tables, rows = self.array(f"{at}/tables", "i", 1), self.array(f"{at}/rows", "f", 1)
        if len(sizes) < 2 or len(units) != len(sizes) or (sizes < 0).any() or sizes[1:].sum() != len(tables):
            raise self.wrong(at, "has tables of other sizes than it says")
        if tables.dtype != np.int16 or (tokens := self.array(f"{at}/tokens", "u", 2)).dtype != np.uint8:
            raise self.wrong(at, "has prices of another type")
        whole = tuple(np.split(tables, np.cumsum(sizes[1:-1])))
        prices = Tables(whole, units[1:].astype(np.float64), rows.astype(np.float64), float(units[0]))
        return ReachWitness(int(at.rsplit("reach", 1)[1]), int(sizes[0]), tokens, prices)

    def _packing(self, at: str) -> PackingWitness:
        where, limit = self.array(f"{at}/where", "iu", 1), self.array(f"{at}/limit", "f", 1)
        if len(where) != 2 or len(limit) != 1:
            raise self.wrong(at, "is of no one kind and window")
        split, value = self.array(f"{at}/split", "i", 2), self.array(f"{at}/value", "f", 2)
        stands = self.array(f"{at}/stands", "f", 1).astype(np.float64)
        return PackingWitness(
            int(where[0]), int(where[1]), float(limit[0]), split.astype(np.int64), stands, value.astype(np.float64)
        )
