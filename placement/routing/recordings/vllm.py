"""What vLLM (0.33) tells of routing: `routed_experts` of responses, and load records and log lines of EPLB.

With --enable-return-routed-experts each choice of a response has `routed_experts`: a base64 .npy of [tokens - 1,
layers, k] logical ids (the last token was not forwarded). Layers are all hidden layers; dense ones are 0. SGLang's
responses have `meta_info.routed_experts`: the ids alone, as 32-bit numbers without a shape.
EPLB's log has one balancedness a step, no loads. Records of type `eplb_load_stats` (proposed) have loads of slots.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.routing.archive import read_array
from placement.routing.recordings.intake import Intake, checked_map, to_logical
from placement.routing.recordings.json_file import number_array, values
from placement.routing.recordings.shape import ModelShape

_KEY = "routed_experts"
_FORM = "save vLLM's responses as they are, one a line"
_LOG = re.compile(
    rb"EPLB step: (\d{1,12}) for model (.{0,200}?): avg_tokens=([\d.]{1,30}), max_tokens=(\d{1,20}), "
    rb"balancedness=(\d[\d.]{0,20})"
)
#: Nesting of a response that is looked into, and longest line of a log.
_DEPTH, _LINE = 8, 2**16


def read_responses(files: Sequence[Path], intake: Intake) -> None:
    """Reads responses; each choice is a sequence.

    Raises:
        InputError: no JSON, or ids that can't be decoded.
    """
    responses = found = 0
    for path in files:
        for where, value in values(path, str(path), intake.meter.advance):
            responses += 1
            for holder in _holders(value, _DEPTH):
                found += 1
                ids = _decoded(holder, intake.shape, str(path), where)
                if len(ids):
                    intake.add_tokens(ids)
                    intake.tokens.end_sequence()
    if not found:
        raise InputError(
            intake.source, _KEY, f"is in none of {responses} responses", "serve with --enable-return-routed-experts"
        )


def is_response(value: Any) -> bool:
    """Whether a JSON value holds ids of routed experts as text."""
    return any(True for _ in _holders(value, _DEPTH))


def _holders(value: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """The mappings inside of a response that hold ids."""
    if depth and isinstance(value, dict):
        if isinstance(value.get(_KEY), str):
            yield value
        for each in value.values():
            yield from _holders(each, depth - 1)
    elif depth and isinstance(value, list):
        for each in value:
            yield from _holders(each, depth - 1)


def _decoded(holder: Mapping[str, Any], shape: ModelShape, source: str, where: str) -> NDArray[Any]:
    field = f"{where}.{_KEY}"
    try:
        data = base64.b64decode(holder[_KEY], validate=True)
    except (binascii.Error, ValueError):
        raise InputError(source, field, "is not base64", _FORM) from None
    if data.startswith(b"\x93NUMPY"):
        ids = read_array(io.BytesIO(data), len(data), source, field)
        if ids.ndim != 3 or ids.dtype.kind not in "iu":
            raise InputError(source, field, f"has shape {ids.shape} and type {ids.dtype}", _FORM)
        return ids
    if shape.layers is None or shape.top_k is None:
        problem = "is SGLang's form, which states no shape"
        raise InputError(source, field, problem, "give the model that was recorded with `model`")
    row = shape.layers * shape.top_k
    if not data or len(data) % (4 * row):
        problem = f"has {len(data)} bytes, which are no rows of {shape.layers} layers x {shape.top_k}"
        raise InputError(source, field, problem, "give the model that was recorded with `model`")
    return np.frombuffer(data, "<i4").reshape(-1, shape.layers, shape.top_k)


def read_loads(files: Sequence[Path], intake: Intake) -> None:
    """Reads records of type `eplb_load_stats`, a window each; others of the same files are left out.

    Raises:
        InputError: a record without loads.
    """
    for path in files:
        source = str(path)
        for where, record in values(path, source, intake.meter.advance):
            if not isinstance(record, dict) or record.get("record_type") != "eplb_load_stats":
                continue
            load = number_array(record.get("expert_load"), source, f"{where}.expert_load")
            if record.get("p2l_map") is not None:
                field = f"{where}.p2l_map"
                table = checked_map(number_array(record["p2l_map"], source, field), source, field)
                experts = max(intake.shape.experts or 0, int(table.max()) + 1)
                load = to_logical(load, table, experts, source)
                intake.note("read slots as logical experts through p2l_map")
            intake.counts.add(load)


@dataclass(frozen=True)
class LogSeries:
    """What EPLB's log lines say: [steps] step numbers and balancedness, sum over layers of mean / sum of max load."""

    model: str
    steps: NDArray[np.int64]
    balancedness: NDArray[np.float64]


def read_log(path: Path) -> LogSeries:
    """The balancedness that a server logged; empty where it logged none. Lines of another model are left out."""
    model, steps, balancedness = "", [], []
    for found in _log_lines(path):
        name = found[2].decode("utf-8", "replace")
        model = model or name
        if name == model and found[5].count(b".") < 2:
            steps.append(int(found[1]))
            balancedness.append(float(found[5]))
    return LogSeries(model, np.array(steps, np.int64), np.array(balancedness, np.float64))


def is_log(path: Path) -> bool:
    """Whether a text has a line of EPLB's log, however much comes before."""
    return next(_log_lines(path), None) is not None


def _log_lines(path: Path) -> Iterator[re.Match[bytes]]:
    with path.open("rb") as file:
        while line := file.readline(_LINE):
            if (found := _LOG.search(line)) is not None:
                yield found


def refuse_log(files: Sequence[Path], _: Intake) -> None:
    """Refuses a log: it holds no loads.

    Raises:
        InputError: always.
    """
    raise InputError(
        str(files[0]), "", "is a log of EPLB: it states one balancedness a step and no expert's load",
        "see it with 'placement trace stats'; record with --enable-return-routed-experts to convert",
    )  # fmt: skip
