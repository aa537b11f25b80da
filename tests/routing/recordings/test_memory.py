"""A recording is read piece by piece: memory does not grow with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.routing.recordings.samples import pt

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import re, sys
from pathlib import Path
from placement.routing.recordings.converting import convert
from placement.routing.recordings.shape import ModelShape
def most():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
base = most()
done = convert([Path(sys.argv[1])], sys.argv[2], ModelShape(), most_tokens=2000)
print(done.tokens, done.windows, (most() - base) // 1024)
"""
LAYERS, TOP_K, EXPERTS = 16, 8, 64


def _tokens(count: int) -> np.ndarray:
    """[tokens, layers, k] ids, distinct in each row."""
    token = np.arange(count)[:, None, None]
    start = (token * 7 + np.arange(LAYERS)[:, None]) % EXPERTS
    return ((start + np.arange(TOP_K) * (1 + token % 7)) % EXPERTS).astype(np.int32)


def _grown(path: Path) -> tuple[str, str, int]:
    """(tokens, windows, MB of memory that converting a file took in a process of its own)."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(path.with_name("out.npz"))], capture_output=True, text=True,
        timeout=300, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    tokens, windows, grown = done.stdout.split()
    return tokens, windows, int(grown)


def test_a_large_array_of_ids_takes_little_memory(tmp_path: Path) -> None:
    """200 MB of ids; each piece is at most 16 MB, and the spool lies on disk."""
    path = tmp_path / "large.npy"
    block = _tokens(8192)
    count = 48
    with path.open("wb") as file:
        header = {"descr": "<i4", "fortran_order": False, "shape": (count * len(block), LAYERS, TOP_K)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(count):
            file.write(block.tobytes())
    assert path.stat().st_size > 2 * 10**8
    tokens, _, grown = _grown(path)
    assert 0 < int(tokens) <= 2000
    assert grown < 90


def test_many_windows_of_counts_take_little_memory(tmp_path: Path) -> None:
    """A ring of 3,000 passes, as SGLang keeps it: 100 MB."""
    torch = pytest.importorskip("torch")
    counts = torch.randint(1, 9, (3000, LAYERS, 4 * EXPERTS), dtype=torch.int64)
    path = tmp_path / "dump.pt"
    path.write_bytes(pt({"rank": 0, "logical_count": counts}))
    assert path.stat().st_size > 9 * 10**7
    _, windows, grown = _grown(path)
    assert int(windows) == 16
    assert grown < 90


def test_many_passes_of_tokens_take_little_memory(tmp_path: Path) -> None:
    """400 passes of SGLang's recorder, 100 MB; of a token two numbers stay in memory, its id and place."""
    torch = pytest.importorskip("torch")
    ids = torch.tensor(_tokens(512).transpose(1, 0, 2).copy())
    record = {"extend_seq_lens": [512], "forward_mode": 1, "misc_objects": []}
    records = [
        {**record, "input_ids": list(range(512)), "positions": list(range(512)), "topk_ids_of_layer": ids.clone()}
        for _ in range(400)
    ]
    table = torch.arange(EXPERTS).expand(LAYERS, EXPERTS).clone()
    path = tmp_path / "dump.pt"
    path.write_bytes(pt({"records": records, "last_physical_to_logical_map": table}))
    assert path.stat().st_size > 10**8
    tokens, _, grown = _grown(path)
    assert 0 < int(tokens) <= 2000
    assert grown < 90
