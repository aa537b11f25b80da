"""Fixtures shared by all tests."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import settings

from placement.cli.main import cli
from placement.cli.running import outcome
from solvers import ahead
from solvers.stop import Stop
from tests.cli.conftest import TINY

# A suite gives the same answer twice: examples follow from each test alone; `--hypothesis-profile=explore` draws more.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile("fixed")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compiles what the workers of a parallel run would otherwise all compile, at the same time."""
    if session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput"):
        for compiled, parts in (
            (ahead.is_compiled, ahead.SEARCH_PARTS),
            (ahead.loads_compiled, ("compile_loads_start", "compile_loads_pairs")),
        ):
            if not compiled():
                with ahead.compiling(*parts) as wait:
                    wait(Stop())


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Recorded traces and measurements beside the checkout; tests that need them skip where they are missing."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "traces").is_dir():
        pytest.skip("recorded traces are not beside this checkout (../shared/traces)")
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds tiny.yaml, two traces of its model (a.npz, b.npz), load counts, and a plan of each kind."""
    path = tmp_path_factory.mktemp("commands")
    (path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    rng = np.random.default_rng(5)
    for name in ("a", "b"):
        ids = np.argsort(rng.random((2, 120, 8)) * rng.random(8), axis=2)[:, :, :2].astype(np.uint8)
        np.savez_compressed(path / f"{name}.npz", topk_ids=ids, seq_lens=np.array([30, 30, 40, 20]))
    np.savez(path / "counts.npz", counts=rng.integers(1, 50, (2, 2, 8)))
    for name, more in (("synthetic", []), ("recorded", ["--trace", str(path / "a.npz")])):
        out = str(path / f"{name}.json")
        args = ["solve", "--spec", str(path / "tiny.yaml"), "--strategy", "search", *more, "--out", out, "--json"]
        assert outcome(cli, "placement", args) == 0
    return path
