"""The readers: matrices and XMLs as machines, whole, cut and damaged."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from specs.errors import InputError
from specs.loading import load_cluster
from specs.topologies import nccl, smi
from specs.topologies.derive import Given
from specs.topologies.machine import Path as Link
from specs.topologies.reading import Reading, read_machine, read_topology
from tests.specs.topologies.files import Slot, hgx, matrix, rails, xml


def test_a_matrix_is_read_with_its_affinities_and_nic_names() -> None:
    text = rails(4) + "\nNIC Legend:\n\n  NIC0: mlx5_0\n  NIC3: bnxt_re3\n"
    machine = smi.read_matrix(text, "a.txt")
    assert [gpu.name for gpu in machine.gpus] == ["GPU0", "GPU1", "GPU2", "GPU3"]
    assert [nic.name for nic in machine.nics] == ["NIC0 (mlx5_0)", "NIC1", "NIC2", "NIC3 (bnxt_re3)"]
    assert machine.between[1] == (Link("NVL", 18), None, Link("NVL", 18), Link("NVL", 18))
    assert [str(path) for path in machine.to_nic[2]] == ["SYS", "SYS", "PIX", "SYS"]
    assert (machine.gpus[3].cpus, machine.gpus[3].numa, machine.missing) == ("8-15", "1", "")


@pytest.mark.parametrize("style", ["\x1b[4m", ""])
@pytest.mark.parametrize("gap", ["\t", "     "])
def test_a_matrix_pasted_from_a_terminal_is_the_same(style: str, gap: str) -> None:
    plain = matrix(2, 1, lambda i, j: "SYS", lambda i, j: "NODE")
    styled = matrix(2, 1, lambda i, j: "SYS", lambda i, j: "NODE", style).replace("\t", gap)
    assert smi.read_matrix(styled, "a") == smi.read_matrix(plain, "a")


def test_rows_that_are_cut_off_are_filled_from_the_others() -> None:
    text = rails(4)
    lines = text.splitlines()
    machine = smi.read_matrix("\n".join(lines[:3]), "a.txt")
    assert machine.missing == "the rows of GPU2, GPU3 are missing or cut off"
    assert machine.between[3][:2] == (Link("NVL", 18), Link("NVL", 18))
    assert machine.between[3][2] is None
    assert machine.to_nic[3] == (None,) * 4
    # Inside a cell.
    machine = smi.read_matrix("\n".join(lines[:4]) + "\nGPU3\tNV18\tNV", "a.txt")
    assert machine.missing == "the rows of GPU3 are missing or cut off"
    assert machine.between[3][2] == Link("NVL", 18)


def test_a_row_of_a_nic_fills_in_what_a_gpus_row_lost() -> None:
    lines = matrix(2, 1, lambda i, j: "SYS", lambda i, j: "PXB").splitlines()
    machine = smi.read_matrix("\n".join((*lines[:2], "NIC0\tPXB\tNODE\t X ")), "a.txt")
    assert [str(path) for (path,) in machine.to_nic] == ["PXB", "NODE"]


def test_an_xml_is_read_with_switches_sockets_speeds_and_device() -> None:
    machine = nccl.read_xml(hgx(), "a.xml")
    assert {path for _, _, path in machine.pairs()} == {Link("NVL", 18)}
    assert [str(path) for path in machine.to_nic[0]] == ["PIX", *["PHB"] * 3, *["SYS"] * 4]
    gpu = machine.gpus[0]
    assert (gpu.device, gpu.sm, gpu.links, gpu.numa) == ("10de:2330", 90, 18, "0")
    assert gpu.pcie_gb_per_s == pytest.approx(63, abs=0.1)
    assert [nic.gb_per_s for nic in machine.nics] == [50.0] * 8


def test_links_without_a_switch_join_their_two_ends() -> None:
    slots = [Slot(["01", "02"]), Slot(["03", "04"], ["10"], 1)]
    machine = nccl.read_xml(xml(slots, {"01": {"02": 12}, "02": {"01": 12}}), "a.xml")
    assert [str(path) for path in machine.between[0][1:]] == ["NV12", "SYS", "SYS"]
    assert [str(path) for path in machine.between[2] if path is not None] == ["SYS", "SYS", "PIX"]


def test_what_an_xml_does_not_say_is_not_known() -> None:
    machine = nccl.read_xml(hgx(known=False, speed=None, width="0", device="none"), "a.xml")
    gpu = machine.gpus[0]
    assert not machine.tells_nvlink
    assert (gpu.device, gpu.sm, gpu.links, gpu.pcie_gb_per_s) == (None, None, None, None)
    assert {nic.gb_per_s for nic in machine.nics} == {None}


def test_gpus_are_in_the_order_of_their_bus_addresses_whatever_the_files() -> None:
    machine = nccl.read_xml(xml([Slot(["09"], ["20"]), Slot(["01"], ["21"], 1)], speed=100_000), "a.xml")
    assert [str(row[0]) for row in machine.to_nic] == ["SYS", "PIX"]


def test_machines_of_one_nvlink_domain_are_read_together() -> None:
    def tray(host: str) -> str:
        slots = [Slot(["01", "02"], ["20"])]
        return xml(slots, {name: {"switch": 18} for name in ("01", "02")}, host=host).replace(
            '<system version="1">', ""
        )

    both = (
        '<system version="1">' + "".join(tray(host).replace("</system>", "") for host in ("0xa", "0xb")) + "</system>"
    )
    machine = nccl.read_xml(both, "a.xml")
    assert [gpu.host for gpu in machine.gpus] == ["0xa", "0xa", "0xb", "0xb"]
    assert {path for _, _, path in machine.pairs()} == {Link("NVL", 18)}
    assert [str(path) for path in machine.to_nic[3]] == ["SYS", "PIX"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no matrix"),
        ("GPU0\tGPU1\n", "has no matrix"),
        ("\tGPU0\tGPU0\nGPU0\tX\tX\n", "column GPU0 is there twice"),
        ("\tGPU0\tGPU1\nGPU0\tX\tFAST\tx\n\n", "line 2: FAST is no path to GPU1"),
        ("\tGPU0\tGPU1\nGPU0\tX\tSYS\nGPU0\tX\tSYS\n", "a second row of GPU0"),
        ("\t" + "\t".join(f"GPU{i}" for i in range(2000)), "names 2000 devices"),
        ("<system", "ends too early"),
        ("<system><cpu>", "ends too early"),
        ("<system><cpu></system>", "not valid XML"),
        ("<graphs/>", "its top element is graphs"),
        ("<system/>", "has no GPU"),
        ("<a>" * 40, "nested over 32 deep"),
        ("<system>" + "<cpu/>" * 30_000, "over 20000 elements"),
        ('<!DOCTYPE system SYSTEM "file:///etc/passwd"><system/>', "DOCTYPE"),
        ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><system>&b;</system>', "DOCTYPE"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "topology"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_machine(path)
    assert told in str(refused.value)
    assert str(refused.value).isprintable()


def test_entities_that_multiply_are_never_expanded(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 20}">' for i in range(1, 30))
    path = tmp_path / "laughs.xml"
    path.write_text(f'<!DOCTYPE system [<!ENTITY e0 "ha">{entities}]><system>&e29;</system>')
    start = time.monotonic()
    with pytest.raises(InputError, match="DOCTYPE"):
        read_machine(path)
    assert time.monotonic() - start < 1


def damaged(text: str, rng: random.Random) -> bytes:
    """The text cut off, or with bytes overwritten, deleted or inserted, or with a line doubled, moved or dropped."""
    data = bytearray(text.encode())
    for _ in range(rng.randint(1, 4)):
        place, edit = rng.randrange(len(data) + 1), rng.randrange(6)
        if edit == 0:
            del data[place:]
        elif edit == 1:
            data[place : place + rng.randint(1, 6)] = rng.randbytes(rng.randint(0, 6))
        elif edit == 2:
            junk = (
                b"GPU99 ",
                b"\tNV",
                b"NV999",
                b" X ",
                b'count="999999999999"',
                b"<gpu>",
                b"&amp;",
                b"-1",
                b"\x00",
                b"\xff",
            )
            data[place:place] = rng.choice(junk)
        else:
            lines = bytes(data).splitlines(keepends=True) or [b""]
            line = lines.pop(rng.randrange(len(lines)))
            for _ in range(edit - 3):
                lines.insert(rng.randint(0, len(lines)), line)
            data = bytearray(b"".join(lines))
    return bytes(data)


def outcome(path: Path) -> InputError | Reading:
    """What comes of a file, a cluster of its machine included."""
    try:
        return read_topology(path, Given("h100_hgx_ib", nic_gb_per_s=50.0))
    except InputError as error:
        return error


def test_500_damaged_files_become_clusters_or_are_refused_in_one_line(tmp_path: Path) -> None:
    rng = random.Random(7)
    texts = (rails(8), matrix(4, 2, lambda i, j: "NV4" if i // 2 == j // 2 else "SYS", lambda i, j: "NODE"), hgx())
    path, refused = tmp_path / "damaged", 0
    for i in range(500):
        path.write_bytes(damaged(texts[i % 3], rng))
        found = outcome(path)
        if isinstance(found, InputError):
            refused += 1
            assert str(found).isprintable()
            assert len(str(found)) < 600
            assert "damaged" in str(found)
        else:
            again = tmp_path / "cluster.yaml"
            again.write_text(found.yaml())
            assert load_cluster(str(again)) == found.cluster
    assert 50 < refused < 450
