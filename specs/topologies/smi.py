"""The text of `nvidia-smi topo -m`: a matrix of paths, with CPU and NUMA affinity behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from specs.documents import shown
from specs.errors import InputError
from specs.topologies.machine import Machine, Path, SeenGpu, SeenNic, check_count

GPU = re.compile(r"GPU\d{1,4}")
#: Terminals get the head underlined.
STYLE = re.compile(r"\x1b\[[0-9;]*m")
KIND = re.compile(r"NV(\d{1,3})|PIX|PXB|PHB|NODE|SYS|SOC")
LEGEND = re.compile(r"\s*(NIC\d{1,4}):\s+(\S{1,80})\s*")


@dataclass
class _Matrix:
    """Rows by device: cells in the order of `columns`, None where they are cut off, and the words behind them."""

    columns: list[str]
    cells: dict[str, list[Path | None]] = field(default_factory=dict)
    behind: dict[str, list[str]] = field(default_factory=dict)

    def cut(self, row: str) -> bool:
        """Whether a row, or a cell of it but the diagonal, is not there."""
        cells = self.cells.get(row, [])
        return not cells or any(cell is None and name != row for name, cell in zip(self.columns, cells, strict=True))

    def path(self, row: str, column: str) -> Path | None:
        """The path of a pair, from either one's row."""
        for mine, other in ((row, column), (column, row)):
            found = self.cells[mine][self.columns.index(other)] if mine in self.cells else None
            if found is not None:
                return found
        return None


def read_matrix(text: str, source: str) -> Machine:
    """The machine that the text of `nvidia-smi topo -m` describes; rows and cells that are cut off are left open.

    Raises:
        InputError: there is no such matrix, or a cell is no kind of path.
    """
    matrix = _read(text, source)
    names = [name for name in matrix.columns if GPU.fullmatch(name)]
    nics = [name for name in matrix.columns if name not in names]
    check_count(source, "GPUs", len(names))
    check_count(source, "NICs", len(nics))
    legend = {found[1]: found[2] for line in text.splitlines() if (found := LEGEND.fullmatch(line))}
    cut = [name for name in names if matrix.cut(name)]
    lost = f"the rows of {', '.join(cut)} are missing or cut off" if cut else ""
    return Machine(
        source=source,
        gpus=tuple(_gpu(name, matrix.behind.get(name, [])) for name in names),
        nics=tuple(SeenNic(shown(f"{name} ({legend[name]})" if name in legend else name, 120)) for name in nics),
        between=tuple(tuple(None if a == b else matrix.path(a, b) for b in names) for a in names),
        to_nic=tuple(tuple(matrix.path(a, b) for b in nics) for a in names),
        missing=lost,
    )


def _read(text: str, source: str) -> _Matrix:
    matrix: _Matrix | None = None
    lines = STYLE.sub("", text).splitlines()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if matrix is None:
            if GPU.fullmatch(words[0]) and not any(KIND.fullmatch(word) or word == "X" for word in words[1:]):
                matrix = _Matrix(words[: words.index("CPU")] if "CPU" in words else words)
                twice = next((name for name in matrix.columns if matrix.columns.count(name) > 1), None)
                if twice is not None:
                    raise InputError(source, "", f"line {number}: column {shown(twice)} is there twice", "keep one")
                check_count(source, "devices", len(matrix.columns))
        elif words[0] in matrix.columns:
            if words[0] in matrix.cells:
                raise InputError(source, "", f"line {number}: a second row of {words[0]}", "give one machine's matrix")
            ends = number == len(lines)
            matrix.cells[words[0]] = _cells(words[1 : 1 + len(matrix.columns)], matrix, source, number, ends)
            matrix.behind[words[0]] = words[1 + len(matrix.columns) :]
    if matrix is None or not any(GPU.fullmatch(name) for name in matrix.cells):
        raise InputError(source, "", "has no matrix of GPUs", "give the text of 'nvidia-smi topo -m', or an NCCL XML")
    return matrix


def _cells(words: list[str], matrix: _Matrix, source: str, number: int, ends: bool) -> list[Path | None]:
    cells: list[Path | None] = []
    for place, word in enumerate(words):
        found = KIND.fullmatch(word)
        if found is None and word not in ("X", "N/A"):
            if ends and place == len(words) - 1:
                break  # the file is cut off inside this cell
            raise InputError(
                source,
                "",
                f"line {number}: {shown(word)} is no path to {matrix.columns[place]}",
                "give the text as it was",
            )
        cells.append(None if found is None else _path(found))
    return cells + [None] * (len(matrix.columns) - len(cells))


def _path(found: re.Match[str]) -> Path:
    word = found[0]
    if found[1]:
        return Path("NVL", int(found[1]))
    return Path("SYS" if word == "SOC" else word)  # type: ignore[arg-type]


def _gpu(name: str, behind: list[str]) -> SeenGpu:
    cpus, numa = [None if word == "N/A" else shown(word, 80) for word in (*behind, "N/A", "N/A")[:2]]
    return SeenGpu(name, cpus=cpus, numa=numa)
