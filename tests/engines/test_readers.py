"""The engines' own code reads our files, from the wheels of the package index; and the same checks rebuilt, always."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement.engines.expert_map import ExpertMap, ModelLayers
from placement.engines.maps.base import Extras
from placement.engines.maps.registry import FORMATS

pytest.importorskip("torch", reason="the engines' readers need torch")

#: 5 hidden layers of which the first is dense, 12 experts and 4 redundant, 4 GPUs on 2 nodes.
MODEL = ModelLayers(5, (1, 2, 3, 4), (12,) * 4)
ROOT = Path(__file__).resolve().parents[2]


def _drawn() -> ExpertMap:
    rng = np.random.default_rng(5)
    rows = []
    for _ in MODEL.moe:
        order = rng.permutation(12).reshape(4, 3)
        rows.append(
            tuple((*map(int, held), int(rng.choice([e for e in range(12) if e not in held]))) for held in order)
        )
    return ExpertMap(MODEL.moe, tuple(rows))


MAP = _drawn()


def engine(script: str, wheel: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """What a reader prints, run as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.engines.{script}", str(wheel)], input=json.dumps(asked), text=True,
        capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def nearest(row: tuple[int, ...], experts: int, rank: int, width: int, ranks_per_node: int) -> list[set[int]]:
    """[experts] slots that may serve a rank's tokens: of its GPU, else of its node, else any."""
    allowed = []
    for expert in range(experts):
        slots = [slot for slot, held in enumerate(row) if held == expert]
        same = [slot for slot in slots if slot // width == rank]
        node = [slot for slot in slots if slot // width // ranks_per_node == rank // ranks_per_node]
        allowed.append(set((same or node or slots)[: 1 if same else None]))
    return allowed


@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_sglang_reads_the_map(suffix: str, sglang_wheel: Path, tmp_path: Path) -> None:
    """Every slot is as planned, and each rank's tokens are served by the nearest copy."""
    path = tmp_path / f"map{suffix}"
    data = FORMATS["sglang"].write(MAP, MODEL, Extras())
    path.write_bytes(data)
    if suffix == ".pt":
        import torch

        torch.save({key: torch.tensor(rows) for key, rows in json.loads(data).items()}, path)
    asked = {"file": str(path), "layers": 5, "experts": 12, "redundant": 4, "ep": 4, "nnodes": 2, "backend": "deepep"}
    read = engine("sglang_reader", sglang_wheel, asked)
    assert [tuple(read["map"][layer]) for layer in MODEL.moe] == [MAP.flat(i) for i in range(4)]
    for rank in range(4):
        for i, layer in enumerate(MODEL.moe):
            allowed = nearest(MAP.flat(i), 12, rank, 4, 2)
            assert all(slot in allowed[e] for e, slot in enumerate(read["served"][rank][layer]))
    assert engine("sglang_reader", sglang_wheel, {**asked, "backend": "none"})["served"] == [None] * 4


def test_sglang_refuses_what_we_refuse(sglang_wheel: Path, tmp_path: Path) -> None:
    """Another key beside the map crashes SGLang: that is why it is refused here."""
    path = tmp_path / "map.json"
    data = json.loads(FORMATS["sglang"].write(MAP, MODEL, Extras()))
    path.write_text(json.dumps({**data, "comment": "solved"}))
    asked = {"file": str(path), "layers": 5, "experts": 12, "redundant": 4, "ep": 4, "nnodes": 2, "backend": "deepep"}
    with pytest.raises(AssertionError, match="unexpected keyword argument 'comment'"):
        engine("sglang_reader", sglang_wheel, asked)


def test_vllm_reads_the_rows(vllm_wheel: Path) -> None:
    """vLLM derives the copies of each expert from the rows of the proposed formats."""
    rows = json.loads(FORMATS["vllm"].write(MAP, MODEL, Extras()))
    read = engine("vllm_reader", vllm_wheel, {"rows": rows, "experts": 12})
    for i in range(4):
        slots = [{slot for slot, held in enumerate(MAP.flat(i)) if held == expert} for expert in range(12)]
        assert [set(row) - {-1} for row in read["slots"][i]] == slots
        assert read["copies"][i] == [len(one) for one in slots]


def test_vllm_takes_the_degrees(vllm_wheel: Path) -> None:
    """Degrees, backend and redundancy as a plan has them pass vLLM's own validation."""
    options = {
        "tensor_parallel_size": 1, "data_parallel_size": 4, "pipeline_parallel_size": 1, "enable_expert_parallel": True,
        "enable_eplb": True, "all2all_backend": "deepep_low_latency",
    }  # fmt: skip
    read = engine(
        "vllm_reader", vllm_wheel, {"options": options, "eplb": {"num_redundant_experts": 4, "use_async": False}}
    )
    assert read["redundant"] == 4
    assert read["parallel"]["all2all_backend"] == "deepep_low_latency"


def test_rebuilt_checks() -> None:
    """What the engines' readers ask for, without their code: a row a hidden layer, every expert in each, one width."""
    rows = json.loads(FORMATS["sglang"].write(MAP, MODEL, Extras()))["physical_to_logical_map"]
    assert len(rows) == MODEL.hidden
    assert {len(row) for row in rows} == {16}
    assert all(set(row) == set(range(12)) for row in rows)
    for gpu in range(4):
        for i, layer in enumerate(MODEL.moe):
            assert tuple(rows[layer][4 * gpu : 4 * gpu + 4]) == MAP.rows[i][gpu]
