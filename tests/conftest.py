"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
from hypothesis import settings

# A suite gives the same answer twice: examples follow from each test alone; `--hypothesis-profile=explore` draws more.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Recorded traces and measurements beside the checkout; tests that need them skip where they are missing."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "traces").is_dir():
        pytest.skip("recorded traces are not beside this checkout (../shared/traces)")
    return folder
