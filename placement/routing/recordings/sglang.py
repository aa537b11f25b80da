"""SGLang's expert distribution recorder: the .pt files of /dump_expert_distribution_record (0.5.23).

Mode `stat`: `logical_count` [passes, layers, experts], or [layers, experts] where they were added up. Modes `per_pass`
and `per_token`: `records`, one a pass and rank, of physical ids, and `last_physical_to_logical_map` [layers, slots].
Layers are all hidden layers; dense ones have no routing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.routing.recordings.intake import Intake, checked_map, to_logical
from placement.routing.recordings.spool import PADDING
from placement.routing.recordings.torch_archive import PickledList, Tensor, TorchFile
from specs.documents import shown

_FORM = "dump it again with SGLang's expert distribution recorder"


def read(files: Sequence[Path], intake: Intake) -> None:
    """Reads the dumps of one recording: of each rank, where they are several.

    Raises:
        InputError: a file that is no such dump.
    """
    for path in files:
        source = str(path)
        end = intake.meter.done + path.stat().st_size
        dump = TorchFile(path, source)
        try:
            data = dump.data
            if isinstance(data, dict) and isinstance(data.get("logical_count"), Tensor):
                _stat(data["logical_count"], intake, source)
            elif isinstance(data, dict) and isinstance(data.get("records"), PickledList):
                _records(data, intake, source)
            else:
                keys = ", ".join(shown(key) for key in data) if isinstance(data, dict) else type(data).__name__
                raise InputError(source, "", f"holds neither logical_count nor records, but {keys[:100]}", _FORM)
        finally:
            dump.close()
        intake.meter.reach(end)


def _stat(counts: Tensor, intake: Intake, source: str) -> None:
    if len(counts.shape) not in (2, 3) or 0 in counts.shape:
        raise InputError(source, "logical_count", f"has shape {counts.shape}", _FORM)
    for window in counts.parts() if len(counts.shape) == 3 else (counts.read(),):
        intake.counts.add(window)


def _records(data: dict[Any, Any], intake: Intake, source: str) -> None:
    stored, table = data.get("last_physical_to_logical_map"), intake.slots
    if table is None:
        if not isinstance(stored, Tensor):
            mend = f"{_FORM}, or give what the engine ran as `slot_map`"
            raise InputError(source, "last_physical_to_logical_map", "is missing: ids are of slots", mend)
        table = checked_map(stored.read(), source, "last_physical_to_logical_map")
    experts = intake.shape.experts or int(table.max()) + 1
    if table.max() >= experts:
        problem = f"holds expert {table.max()}, {intake.shape.name} has {experts}"
        raise InputError(source, "last_physical_to_logical_map", problem, "give the model that was recorded")
    for place, record in enumerate(data["records"]):
        where = f"records[{place}]"
        if not isinstance(record, dict):
            raise InputError(source, where, "is no record", _FORM)
        ids, counts = record.get("topk_ids_of_layer"), record.get("global_physical_count")
        if isinstance(ids, Tensor):
            intake.meter.advance(math.prod(ids.shape) * ids.dtype.itemsize)
            intake.learn(source, "last_physical_to_logical_map", experts)
            _tokens(record, ids.read(), table, intake, source, where)
        elif isinstance(counts, Tensor):
            number = record.get("forward_pass_id")
            if type(number) is not int or number < 0:
                raise InputError(source, f"{where}.forward_pass_id", "is no number of a pass", _FORM)
            intake.counts.add(to_logical(counts.read(), table, experts, source), place=number)
        else:
            raise InputError(source, where, "holds neither topk_ids_of_layer nor global_physical_count", _FORM)


def _tokens(
    record: dict[Any, Any], slots: NDArray[Any], table: NDArray[np.int64], intake: Intake, source: str, where: str
) -> None:
    """The tokens of one pass; in prefill its sequences are known, and a pass of decoding counts as one."""
    field = f"{where}.topk_ids_of_layer"
    if slots.ndim != 3 or len(slots) != len(table) or slots.dtype.kind not in "iu":
        raise InputError(source, field, f"has shape {slots.shape} for a map of {len(table)} layers", _FORM)
    # Beyond the slots are fused shared experts, which cleaning leaves out behind the routed ones.
    width, experts = table.shape[1], intake.shape.experts or int(table.max()) + 1
    routed = table[np.arange(len(table))[:, None, None], np.clip(slots, 0, width - 1)]
    logical = np.where(slots < width, routed, slots.astype(np.int64) - width + experts)
    ids = np.where(slots < 0, -1, logical).transpose(1, 0, 2)
    through = "the map that was given" if intake.slots is not None else "last_physical_to_logical_map"
    intake.note(f"read slots as logical experts through {through}")
    lengths = record.get("extend_seq_lens")
    numbers = list(lengths) if isinstance(lengths, Iterable) else []
    known = all(type(n) is int and 0 < n < PADDING**2 for n in numbers) and sum(numbers) == len(ids)
    if not (numbers and known):
        numbers = [len(ids)]
        intake.note("passes of decoding count as a sequence each: the recorder does not tell requests apart")
    for start, stop in zip(np.cumsum([0, *numbers[:-1]]), np.cumsum(numbers), strict=True):
        intake.add_tokens(ids[start:stop])
        intake.tokens.end_sequence()
