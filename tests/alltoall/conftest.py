"""Small jobs, plans and traces for the all-to-all runner."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench.alltoall.concrete import concrete_bytes, concrete_messages, draw_slots, entry_gpus
from bench.alltoall.job import Exchange, Job, LayerWork
from placement.cli.main import cli
from placement.cli.running import outcome
from placement.problem.layer import LayerProblem
from tests.cli.conftest import TINY
from tests.layers import changed
from tests.solvers.problems import random_placement, random_problem

HIDDEN, EXPERTS, K = 64, 12, 3
RULES = ("per_expert", "per_rank", "per_node", "dense")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plan.json (4 ranks on 2 nodes, replicas, planned dispatch), its trace a.npz, and counts.npz."""
    path = tmp_path_factory.mktemp("alltoall")
    tiny: dict[str, Any] = copy.deepcopy(TINY)
    (path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    rng = np.random.default_rng(5)
    ids = np.argsort(rng.random((2, 120, 8)) * rng.random(8), axis=2)[:, :, :2].astype(np.uint8)
    weights = rng.random((2, 120, 2)).astype(np.float32)
    np.savez_compressed(path / "a.npz", topk_ids=ids, topk_weights=weights, seq_lens=np.array([30, 30, 40, 20]))
    np.savez(path / "counts.npz", counts=rng.integers(1, 50, (2, 2, 8)))
    args = ["solve", "--spec", str(path / "tiny.yaml"), "--strategy", "search", "--dispatch", "planned"]
    assert outcome(cli, "placement", [*args, "--trace", str(path / "a.npz"), "--out", str(path / "plan.json")]) == 0
    return path


def posed_problem(gpus: int, gpus_per_node: int, rule: str, seed: int) -> LayerProblem:
    """A layer of EXPERTS experts with some replicas, sent as bf16 of HIDDEN; `nearest` dispatch."""
    problem = random_problem(
        seed, experts=EXPERTS, gpus=gpus, gpus_per_node=gpus_per_node, slots_per_gpu=-(-18 // gpus), k=K, tokens=40,
        message=rule, dispatch="nearest",
    )  # fmt: skip
    return changed(
        problem, rates=replace(problem.hardware.rates, dispatch_bytes=2.0 * HIDDEN, combine_bytes=2.0 * HIDDEN)
    )


def small_job(
    gpus: int, gpus_per_node: int, seed: int = 0, each: int = 13, failed: tuple[int, ...] = (), **changes: Any
) -> tuple[Job, list[tuple[np.ndarray, np.ndarray]]]:
    """A job of one layer under every rule, and the (dispatch, combine) bytes that each has to carry.

    Homes are uneven: some rank may have no token at all, and a failed one has none.
    """
    rng = np.random.default_rng(seed)
    tokens = each * gpus
    ids = np.argsort(rng.random((tokens, EXPERTS)), axis=1)[:, :K]
    alive = np.setdiff1d(np.arange(gpus), failed)
    home = rng.choice(alive, tokens, p=rng.dirichlet(np.full(len(alive), 0.6)))
    exchanges, wanted = [], []
    for rule in RULES:
        problem = posed_problem(gpus, gpus_per_node, rule, seed)
        capacity = np.isin(np.arange(gpus), alive) * problem.hardware.slots_per_gpu
        problem = changed(problem, capacity=capacity)
        slots = random_placement(problem, seed)
        served = draw_slots(problem, slots, None, ids, home, seed)
        entry = entry_gpus(problem, home) if failed else None
        exchanges.append(Exchange(rule, problem.rules.message, problem.hardware.slots_per_gpu, slots, served, entry))
        matrices = [matrix.copy() for matrix in concrete_bytes(problem, concrete_messages(problem, home, served))]
        for matrix in matrices:
            np.fill_diagonal(matrix, 0)
        wanted.append((matrices[0], matrices[1]))
    work = LayerWork(3, ids, rng.random((tokens, K)), tuple(exchanges))
    fields: dict[str, Any] = {
        "gpus": gpus, "gpus_per_node": gpus_per_node, "hidden": HIDDEN, "experts": EXPERTS, "expert_width": 32,
        "home": home, "layers": (work,), "repeats": 2, "timeout_s": 60.0,
    }  # fmt: skip
    return Job(**(fields | changes)), wanted
