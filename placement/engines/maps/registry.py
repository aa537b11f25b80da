"""All formats by name, and which of them a file is in."""

from __future__ import annotations

from pathlib import Path

from placement.engines.content import Content, read_content
from placement.engines.expert_map import ModelLayers
from placement.engines.maps.base import MapFormat, ReadMap
from placement.engines.maps.deepseek import DeepseekMap
from placement.engines.maps.omni import OmniMap
from placement.engines.maps.sglang import SglangMap
from placement.engines.maps.trtllm import TrtllmMap
from placement.engines.maps.vllm import VllmFork, VllmRecord, VllmRows
from placement.engines.maps.vllm_ascend import AscendMap
from placement.errors import ParameterError

FORMATS: dict[str, MapFormat] = {
    made.name: made
    for made in (
        SglangMap(), TrtllmMap(), VllmRows(), VllmRecord(), VllmFork(), AscendMap(), OmniMap(), DeepseekMap(),
    )
}  # fmt: skip


def get_format(name: str) -> MapFormat:
    """The format of a name.

    Raises:
        ParameterError: There is none.
    """
    if name not in FORMATS:
        raise ParameterError("to", f"{name!r} has no expert maps", f"choose {', '.join(FORMATS)}")
    return FORMATS[name]


def uneven_problem(name: str) -> str:
    """Why an engine or format can't have more slots in some layers than in others; "" where it can, or has no maps."""
    made = FORMATS.get(name)
    if made is None or made.uneven:
        return ""
    return f"{name} has the same number of redundant experts in each layer"


def format_of(content: Content) -> MapFormat:
    """The format that a file is in.

    Raises:
        InputError: It is in none.
    """
    found = next((made for made in FORMATS.values() if made.recognizes(content)), None)
    if found is None:
        raise content.refuse("", "is no map that is known here", f"give a file of {', '.join(FORMATS)}")
    return found


def read_map(path: str | Path, model: ModelLayers, gpus: int, name: str | None = None) -> ReadMap:
    """The map of an engine's file, checked against the model.

    Args:
        path: The file.
        model: Whose layers they are.
        gpus: Expert-parallel ranks, where the file does not say.
        name: The format that it must be in; None: whichever it is in.

    Raises:
        InputError: It can't be read, is in another format, or is no map of this model.
        MissingExtraError: A .pt file, and torch is not installed.
    """
    content = read_content(path)
    made = format_of(content)
    if name is not None and made is not (wanted := get_format(name)) and not wanted.recognizes(content):
        raise content.refuse("", f"is a file of {made.name}, not of {name}", f"check it as {made.name}")
    if name is not None:
        made = get_format(name)
    read = made.read(content, model, gpus)
    if read.experts.gpus != gpus:
        raise content.refuse("", f"is of {read.experts.gpus} GPUs, not {gpus}", "use the map of this deployment")
    read.experts.check(model, content.source)
    return read
