"""Fixtures of the engines' tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engines.wheels import unpacked


@pytest.fixture(scope="session")
def wheel_cache() -> Path:
    """Where downloaded wheels are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "placement-tests" / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def sglang_wheel(wheel_cache: Path) -> Path:
    """The unpacked wheel of SGLang."""
    return unpacked("sglang", wheel_cache)


@pytest.fixture(scope="session")
def vllm_wheel(wheel_cache: Path) -> Path:
    """The unpacked wheel of vLLM."""
    return unpacked("vllm", wheel_cache)
