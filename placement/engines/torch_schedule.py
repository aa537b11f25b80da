"""torch's file of a pipeline schedule (torch 2.13, torch.distributed.pipelining; torchtitan's
`pipeline_parallel_schedule_csv`): a row a rank, a cell a step, such as `0F3`, `7I0`, `7W0` or `(0F7;7B3)OVERLAP_F_B`.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from placement.cost.training.schedule.order import Action, Kind, Order, Step, order_of
from placement.errors import InputError
from placement.records.files import write_text
from specs.documents import read_text, shown

#: Most bytes of a file: 1,024 ranks with 10,000 steps have 70 MB; no published run has a tenth of that.
MAX_BYTES = 32 * 2**20
_PASS = re.compile(r"(\d{1,6})([FBIW])(\d{1,6})")
_PAIR = re.compile(r"\(([^;()]+);([^;()]+)\)OVERLAP_F_B")
#: What the runtime adds by itself: messages, and the gathering and reduction of sharded data-parallel parameters.
_OTHER = re.compile(r"\d+(SEND_F|RECV_F|SEND_B|RECV_B|UNSHARD|RESHARD|REDUCE_GRAD)\d*")


def order_csv(order: Order) -> str:
    """The order as torch's CSV.

    Raises:
        InputError: a piece is on two devices (DualPipe), which torch has no form for.
    """
    if len(_copies(order)) > order.pieces:
        raise InputError(
            f"schedule {order.name}", "csv", "every piece is on two devices, and torch has one rank a stage",
            "take dualpipe_v, which has one copy of every piece",
        )  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text)
    for steps in order.steps:
        writer.writerow(_cell(step) for step in steps)
    return text.getvalue()


def write_order(path: str | Path, order: Order, option: str = "`csv`") -> None:
    """Write the order as torch's CSV; `option` names the path in messages.

    Raises:
        InputError: see order_csv; or the file can't be written.
    """
    write_text(path, order_csv(order), option)


def read_order(path: str | Path) -> Order:
    """The order of a file that torch or this module wrote; messages and what goes with sharded parameters are left out.

    Raises:
        InputError: it can't be read, a cell is no step, or passes are missing or run twice.
    """
    return parse_order(read_text(Path(path), shown(str(path), 200), MAX_BYTES), shown(str(path), 200))


def parse_order(text: str, source: str) -> Order:
    """The order that a CSV holds.

    Args:
        source: Its name in messages.

    Raises:
        InputError: see read_order.
    """
    rows = [
        [_step(cell.strip(), source, f"row {number}") for cell in row if _counts(cell)]
        for number, row in enumerate(csv.reader(io.StringIO(text)), 1)
    ]
    actions = [action for row in rows for step in row for action in step]
    if not actions:
        raise InputError(source, "", "holds no pass", "give torch's CSV of a schedule, with a row a rank")
    pieces = 1 + max(action.piece for action in actions)
    microbatches = 1 + max(action.microbatch for action in actions)
    if pieces * microbatches > len(actions):
        raise InputError(
            source, "", f"{len(actions)} passes for {pieces} stages and {microbatches} microbatches",
            "give every pass once, numbered from 0",
        )  # fmt: skip
    return order_of(source, pieces, microbatches, rows)


def _copies(order: Order) -> set[tuple[int, int]]:
    """(piece, device) of all passes."""
    return {(action.piece, device) for device, steps in enumerate(order.steps) for step in steps for action in step}


def _cell(step: Step) -> str:
    return str(step[0]) if len(step) == 1 else f"({step[0]};{step[1]})OVERLAP_F_B"


def _counts(cell: str) -> bool:
    """Whether a cell holds passes; empty ones are torch's idle slots."""
    return bool(cell.strip()) and not _OTHER.fullmatch(cell.strip())


def _step(cell: str, source: str, field: str) -> Step:
    pair = _PAIR.fullmatch(cell)
    found = [_PASS.fullmatch(each.strip()) for each in (pair.groups() if pair else (cell,))]
    step = tuple(Action(int(each[1]), _kind(each[2]), int(each[3])) for each in found if each)
    if len(step) < len(found):
        raise InputError(
            source, field, f"{shown(cell, 40)!r} is no step of torch's schedules",
            "write 0F3, 0B3, 0I3, 0W3 or (0F7;7B3)OVERLAP_F_B",
        )  # fmt: skip
    return step


def _kind(letter: str) -> Kind:
    kinds: dict[str, Kind] = {"F": "F", "B": "B", "I": "I", "W": "W"}
    return kinds[letter]
