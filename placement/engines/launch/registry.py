"""The launchers by the name of the engine that files are written for."""

from __future__ import annotations

from placement.engines.launch.base import Launcher
from placement.engines.launch.sglang import SglangLauncher
from placement.engines.launch.trtllm import TrtllmLauncher
from placement.engines.launch.vllm import VllmLauncher
from placement.engines.launch.vllm_ascend import AscendLauncher

LAUNCHERS: dict[str, Launcher] = {
    made.name: made for made in (SglangLauncher(), TrtllmLauncher(), VllmLauncher(), AscendLauncher())
}
#: Formats that go with another's launch commands, and the engine of the catalog whose rules hold.
LAUNCHED_AS = {"vllm-record": "vllm", "vllm-hygon": "vllm"}
CATALOG = {"sglang": "sglang", "trtllm": "trtllm", "vllm": "vllm", "vllm-ascend": "vllm"}


def launcher_of(name: str) -> Launcher | None:
    """The launcher of a format's engine; None where only maps are written."""
    return LAUNCHERS.get(LAUNCHED_AS.get(name, name))


def catalog_engine(name: str) -> str | None:
    """The engine of the catalog whose rules hold for a format; None where none does."""
    return CATALOG.get(LAUNCHED_AS.get(name, name))
