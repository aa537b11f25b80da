"""The same input gives the same plan, byte for byte, on every CPU: whatever BLAS, numpy, libm and numba have for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy._core._multiarray_umath import __cpu_dispatch__ as numpy_code

from tests.cli.conftest import ROOT, TINY

#: Three generations of CPUs, as the environments in which libraries take this one for them.
CPUS: dict[str, dict[str, str]] = {
    "SkylakeX": {},
    "Haswell": {"NPY_DISABLE_CPU_FEATURES": " ".join(n for n in numpy_code if n.startswith(("AVX512", "X86_V4")))},
    "Prescott": {
        "NPY_DISABLE_CPU_FEATURES": " ".join(numpy_code),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-FMA4",
    },
}
SOLVE = """
import sys
from placement.cli.main import cli
from placement.cli.running import outcome
sys.exit(max(outcome(cli, "placement", line.split()) for line in sys.argv[1:]))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these environments are of Linux on x86")


def scenario(redundant: int) -> dict[str, Any]:
    """Two nodes of four GPUs with 32 experts."""
    model = {**TINY["model"], "moe": {"experts": 32, "top_k": 4, "expert_width": 32}}
    cluster = {**TINY["cluster"], "gpus_per_node": 4}
    pins = {"tp": 1, "ep": 8, "pp": 1, "dp": 8}
    routing = {"tokens": 512, "sequences": 16}
    return {**TINY, "model": model, "cluster": cluster, "pins": pins, "redundant": redundant, "routing": routing}


def recorded(path: Path) -> None:
    """A trace whose tokens like the experts of their topic."""
    rng = np.random.default_rng(3)
    topic = np.repeat(rng.integers(0, 4, 24), 20)
    liked = np.arange(32)[None, :] % 4 == topic[:, None]
    ids = np.argsort(-(rng.random((2, 480, 32)) + 0.5 * liked), axis=2)[:, :, :4].astype(np.uint8)
    np.savez(path, topk_ids=ids, seq_lens=np.full(24, 20))


def assert_same(folder: Path, commands: list[str], compiled: bool = False) -> None:
    """Each command writes the same file on all CPUs; with `compiled` the last one has kernels compiled for it, too."""
    names = [f"{i}.json" for i in range(len(commands))]
    for cpu, environment in CPUS.items():
        (folder / cpu).mkdir()
        lines = [f"{line} --out {cpu}/{name}" for line, name in zip(commands, names, strict=True)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_CORETYPE": cpu, **environment}
        if compiled and cpu == "Prescott":
            env |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(folder)}
        done = subprocess.run([sys.executable, "-c", SOLVE, *lines], cwd=folder, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
    unlike = [
        line
        for line, name in zip(commands, names, strict=True)
        if len({(folder / cpu / name).read_bytes() for cpu in CPUS}) > 1
    ]
    assert not unlike


def test_small_plans_on_three_generations_of_cpus(tmp_path: Path) -> None:
    recorded(tmp_path / "recorded.npz")
    commands = []
    for copies, policies in ((0, ["even"]), (8, ["even", "nearest", "planned"])):
        (tmp_path / f"{copies}.yaml").write_text(yaml.safe_dump(scenario(copies)))
        for policy in policies:
            solve = f"solve --spec {copies}.yaml --dispatch {policy} --work 0.05 --workers 1"
            commands += [solve, f"{solve} --trace recorded.npz"]
    # Its messages are dense: balance is all there is.
    commands.append("solve --spec 8.yaml --engine vllm --work 0.05 --workers 1 --trace recorded.npz")
    assert_same(tmp_path, commands)
    assert '"dense"' in (tmp_path / "SkylakeX" / f"{len(commands) - 1}.json").read_text()


@pytest.mark.slow
def test_default_scenario_on_three_generations_of_cpus(tmp_path: Path) -> None:
    assert_same(tmp_path, ["solve --spec gpt_oss_120b_gb200_ib"], compiled=True)
