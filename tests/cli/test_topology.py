"""`placement topology read`: files in, a cluster out, warnings and errors on stderr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from specs.loading import load_scenario
from tests.cli.conftest import TINY, Done
from tests.specs.topologies.files import Slot, matrix, xml


def test_the_command_writes_a_cluster_that_a_scenario_takes(tmp_path: Path, call: Callable[..., Done]) -> None:
    (tmp_path / "node.xml").write_text(xml([Slot(["01", "02"], ["20"]), Slot(["03", "04"], ["21"], 1)]))
    out = tmp_path / "mine.yaml"
    done = call("topology", "read", str(tmp_path / "node.xml"), "--nodes", "2", "--out", str(out))
    assert (done.code, done.out) == (0, "")
    assert "warning: GPUs share NICs: GPU0 and GPU1 mlx5_32 (1/2 of a NIC each)" in done.err
    assert "# Warning: GPUs share NICs" in out.read_text()
    (tmp_path / "scenario.yaml").write_text(yaml.safe_dump({**TINY, "cluster": "mine.yaml", "pins": {}}))
    scenario = load_scenario(str(tmp_path / "scenario.yaml"))
    assert (scenario.cluster.gpus, scenario.cluster.inner[0].gpus) == (8, 2)
    printed = call("topology", "read", str(tmp_path / "node.xml"), "--nodes", "2")
    assert printed.out == out.read_text()


def test_the_command_warns_even_where_it_needs_the_gpu_and_names_options(
    tmp_path: Path, call: Callable[..., Done]
) -> None:
    path = tmp_path / "node.txt"
    path.write_text(matrix(4, 2, lambda i, j: "NV6", lambda i, j: "PIX" if i // 2 == j else "SYS"))
    done = call("topology", "read", str(path))
    assert (done.code, done.out) == (2, "")
    warning, error = done.err.splitlines()
    assert warning.startswith("warning: GPUs share NICs")
    assert "give --gpu: one of" in error
    done = call("topology", "read", str(path), "--gpu", "h100_4x4_ib")
    assert (done.code, "give --nic-gb-per-s" in done.err) == (0, True)


@pytest.mark.parametrize("text", ["", "<system>", "GPU0 GPU1", "\x00"])
def test_the_command_refuses_a_damaged_file_in_one_line(text: str, tmp_path: Path, call: Callable[..., Done]) -> None:
    (tmp_path / "bad").write_text(text)
    done = call("topology", "read", str(tmp_path / "bad"))
    assert (done.code, len(done.err.splitlines()), done.out) == (2, 1, "")
