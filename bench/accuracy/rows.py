"""Reads measured serving configurations from a CSV file, and mends what its collector is known to have got wrong."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from bench.csv_files import read_csv
from placement.errors import InputError
from specs.documents import shown

COLUMNS = (
    "id", "model", "gpu", "gpus", "tp", "ep", "dp", "pp", "batch_per_attention_rank", "isl", "osl", "dtype", "engine",
    "ttft_ms", "tpot_ms",
)  # fmt: skip
#: Degrees as a configuration's name states them, such as ..._tp8_ep8_1039 or ..._tp8_0_ep8_0_248.
NAMED_DEGREES = re.compile(r"_tp(\d+)(?:_0)?_ep(\d+)(?:_|$)")
#: The client's concurrent requests, as a configuration's name states them.
NAMED_CONCURRENCY = re.compile(r"_c(\d+)_")
#: A node of these GPUs; only gb200 has larger ones.
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Row:
    """One measured configuration.

    Attributes:
        line: of the file. id, model, gpu, dtype, engine: as in the file, `engine` with its version.
        gpus, tp, ep, dp, pp: GPUs and degrees of the instance. batch: concurrent sequences of an attention rank.
        isl, osl: tokens of a prompt and of an answer. ttft_ms, tpot_ms: measured.
        mended: degrees were stated for gpus = tp x ep, or another batch than the name's concurrency makes up; they are
            those of the instance here.
    """

    line: int
    id: str
    model: str
    gpu: str
    gpus: int
    tp: int
    ep: int
    dp: int
    pp: int
    batch: float
    isl: int
    osl: int
    dtype: str
    engine: str
    ttft_ms: float
    tpot_ms: float
    mended: bool

    @property
    def measurement(self) -> tuple[str, int, int, float, float]:
        """What two rows share that state one and the same measurement."""
        return (self.gpu, self.isl, self.osl, self.ttft_ms, self.tpot_ms)


def read_rows(path: str | Path) -> tuple[Row, ...]:
    """All rows of a file in the format of measured serving configurations.

    Raises:
        InputError: the file can't be read, lacks a column, or has a value that is no number or out of range.
    """
    source = str(path)
    rows = tuple(_row(source, line, entry) for line, entry in enumerate(read_csv(path, COLUMNS), start=2))
    if not rows:
        raise InputError(source, "", "has no rows", "give at least one measurement")
    return rows


def _row(source: str, line: int, entry: dict[str, str]) -> Row:
    def number(name: str, least: float) -> float:
        try:
            value = float(entry[name])
        except ValueError:
            value = math.nan
        if not (least <= value < 1e12):
            problem = f"{shown(entry[name], 40)!r} is no number of at least {least:g}"
            raise InputError(source, f"line {line}, {name}", problem, "mend it")
        return value

    def count(name: str) -> int:
        value = number(name, 1)
        if value != int(value):
            raise InputError(source, f"line {line}, {name}", f"{value:g} is not whole", "give a whole number")
        return int(value)

    gpus, tp, ep, dp = (count(name) for name in ("gpus", "tp", "ep", "dp"))
    batch = number("batch_per_attention_rank", 1e-9)
    squared = tp == dp > 1 and ep == gpus == tp * dp
    twice = squared or _counted_twice(entry["id"], entry["gpu"], gpus, tp, ep, dp)
    if squared:
        # TP 2 with EP 2 on 2 GPUs stands as 2 ranks of TP 2 with EP 4; measurements of both are there, and agree.
        gpus, ep, dp, batch = tp, tp, 1, batch * dp
    elif twice:
        gpus //= ep
        if dp > 1:
            dp, batch = dp // ep, batch * ep
        else:
            tp //= ep
    named = NAMED_CONCURRENCY.search(entry["id"])
    own = None if named is None else int(named[1]) / dp
    counted = own is not None and not math.isclose(own, batch, rel_tol=0.01)
    return Row(
        line=line, id=entry["id"], model=entry["model"], gpu=entry["gpu"], gpus=gpus, tp=tp, ep=ep, dp=dp,
        pp=count("pp"), batch=batch if own is None else own, isl=count("isl"), osl=count("osl"),
        dtype=entry["dtype"], engine=entry["engine"],
        ttft_ms=number("ttft_ms", 1e-9), tpot_ms=number("tpot_ms", 1e-9), mended=twice or counted,
    )  # fmt: skip


def _counted_twice(name: str, gpu: str, gpus: int, tp: int, ep: int, dp: int) -> bool:
    """Whether `gpus` is tp x ep of an instance whose ep ranks are its tp (or dp) GPUs.

    Some collectors multiply the two: what is TP 8 with EP 8 on 8 GPUs stands as TP 64 on 64. The same measurements,
    to the last digit, stand in other rows with 8 GPUs. Told by the degrees in the configuration's name, and without
    them by ep x ep GPUs on more than a node.
    """
    if ep == 1 or gpus % ep or max(tp, dp) != gpus:
        return False
    named = NAMED_DEGREES.search(name)
    if named is not None:
        stated, ranks = int(named[1]), int(named[2])
        return ranks == ep and stated * ranks == gpus
    return gpus == ep * ep and gpus > GPUS_PER_NODE and not gpu.startswith("gb")
