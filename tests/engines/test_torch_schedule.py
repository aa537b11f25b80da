"""torch's own orders of pipeline schedules, and its CSV: written, read by torch, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from placement.cost.training.schedule.order import Order
from placement.cost.training.schedule.orders import ORDERS, OrderName, schedule_order
from placement.engines.torch_schedule import order_csv, parse_order, read_order, write_order
from placement.errors import InputError

pytest.importorskip("torch.distributed.pipelining", reason="torch is not installed")

#: torch's classes, and whether a device has two pieces.
CLASSES: dict[OrderName, tuple[str, int]] = {
    "gpipe": ("GPipe", 1),
    "1f1b": ("1F1B", 1),
    "interleaved": ("Interleaved1F1B", 2),
    "zb_v": ("ZBVZeroBubble", 2),
    "dualpipe_v": ("DualPipeV", 2),
}
SIZES = [(2, 2), (2, 7), (3, 9), (4, 8), (4, 32), (5, 10), (8, 16), (8, 64), (16, 32)]
#: What torch's runtime does beside passes.
BESIDE = ("SEND", "RECV", "SHARD", "REDUCE")


def torch_steps(name: OrderName, devices: int, m: int, chunks: int = 2) -> list[list[str]]:
    from torch.distributed.pipelining._schedule_visualizer import get_schedule_ops

    torch_name, pieces = CLASSES[name]
    ops = get_schedule_ops(torch_name, devices, m, chunks if name == "interleaved" else pieces)
    return [[str(op) for op in rank if op is not None and not any(w in str(op) for w in BESIDE)] for rank in ops]


def own_steps(order: Order) -> list[list[str]]:
    return [row.split(",") for row in order_csv(order).splitlines()]


def renumbered(steps: list[list[str]]) -> list[list[str]]:
    """torch's 1F1B with the last rank's forward passes numbered from 0, as on all others."""
    last = [f"{cell.split('F')[0]}F{int(cell.split('F')[1]) - 1}" if "F" in cell else cell for cell in steps[-1]]
    return [*steps[:-1], last]


@pytest.mark.parametrize("name", CLASSES)
def test_orders_are_torchs(name: OrderName) -> None:
    compared = 0
    for devices, m in SIZES:
        if (name == "dualpipe_v" and m < 2 * devices) or (name == "interleaved" and m % (m // devices)):
            continue
        theirs = torch_steps(name, devices, m)
        own = own_steps(schedule_order(name, devices, m))
        if name == "1f1b":
            # torch 2.13 numbers the last rank's forward passes from 1.
            assert theirs[-1][0] == f"{devices - 1}F1"
            theirs = renumbered(theirs)
        assert own == theirs, (devices, m)
        compared += 1
    assert compared > 3


@pytest.mark.parametrize(("devices", "m", "chunks"), [(2, 4, 3), (4, 10, 2), (4, 3, 2), (3, 12, 4)])
def test_interleaved_is_torchs_for_any_chunks_and_rounds(devices: int, m: int, chunks: int) -> None:
    assert own_steps(schedule_order("interleaved", devices, m, chunks)) == torch_steps(
        "interleaved", devices, m, chunks
    )


def torch_runtime(devices: int, pieces: int, m: int) -> Any:
    from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime
    from torch.distributed.pipelining.stage import PipelineStage

    stage = mock.create_autospec(PipelineStage, instance=True)
    stage.group_rank, stage.group_size, stage.num_stages, stage.submod = 0, devices, pieces, None
    return _PipelineScheduleRuntime([stage] * max(2, pieces // devices), m)


@pytest.mark.parametrize("name", [name for name in ORDERS if name != "dualpipe"])
def test_torch_reads_what_is_written(name: OrderName, tmp_path: Path) -> None:
    order, path = schedule_order(name, 4, 8), tmp_path / "order.csv"
    write_order(path, order)
    runtime = torch_runtime(4, order.pieces, 8)
    # torch checks the order and adds messages; an order whose ranks wait for each other fails here.
    runtime._load_csv(str(path), format="compute_only")
    theirs = [[str(action) for action in runtime.pipeline_order[rank]] for rank in range(4)]
    assert theirs == own_steps(order)
    # With messages it reads back the same.
    runtime._dump_csv(str(path), format="compute_comms")
    assert "SEND_F" in path.read_text()
    back = read_order(path)
    assert back.steps == order.steps or merged(order).steps == back.steps


def merged(order: Order) -> Order:
    """Backward passes whose weight pass comes at once, as whole ones: torch merges them as it adds messages."""
    rows = []
    for row in own_steps(order):
        kept: list[str] = []
        for cell in row:
            if "W" in cell and kept and kept[-1] == cell.replace("W", "I"):
                kept[-1] = cell.replace("W", "B")
            else:
                kept.append(cell)
        rows.append(",".join(kept))
    return parse_order("\n".join(rows), order.name)


@pytest.mark.parametrize("name", [name for name in ORDERS if name != "dualpipe"])
def test_orders_survive_the_file(name: OrderName, tmp_path: Path) -> None:
    order, path = schedule_order(name, 3, 6, 3), tmp_path / "order.csv"
    write_order(path, order)
    back = read_order(path)
    assert (back.pieces, back.microbatches, back.steps) == (order.pieces, order.microbatches, order.steps)


def test_a_piece_on_two_devices_has_no_form() -> None:
    with pytest.raises(InputError, match="take dualpipe_v"):
        order_csv(schedule_order("dualpipe", 4, 8))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no pass"),
        (",,\n", "holds no pass"),
        ("0F0,0B0\n1F0,1X0\n", "row 2: '1X0' is no step"),
        ("(0F0;0B0)OVERLAP,0B0\n", "row 1: '\\(0F0;0B0\\)OVERLAP' is no step"),
        ("0F0,0B0\n1F1,1B1\n", "4 passes for|is missing"),
        ("0F0,0B0\n999999F0,1B0\n", "4 passes for 1000000 stages"),
        ("0F0,0F0,0B0\n", "0F0 runs twice"),
        ("0F0\n", "0B0 is missing"),
    ],
)
def test_files_that_are_no_schedule_are_refused(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        parse_order(text, "order.csv")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.csv"):
        read_order(tmp_path / "nothing.csv")
