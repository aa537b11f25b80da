"""Every variable and option that an engine or a communication library knows, by version: nothing else can be set.

The lists lie in `names/`, one file a software; `python -m placement.engines.settings.reread` compares them with wheels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal, get_args

from pydantic import Field

from specs.documents import shipped_yaml
from specs.fields import Spec, Text

Software = Literal["nccl", "nvshmem", "vllm", "sglang"]
SOFTWARE: tuple[Software, ...] = get_args(Software)

Names = Annotated[frozenset[str], Field(max_length=10_000)]


class NameList(Spec):
    """What one software of one version knows."""

    version: Text
    """Of the software."""
    source: Text
    """Where the names were read."""
    options: Names = frozenset()
    """Options of its command."""
    variables: Names = frozenset()
    """Variables of the environment."""
    debugging: Names = frozenset()
    """Variables that its own guide keeps for experiments: none of them is for production."""


@lru_cache(maxsize=len(SOFTWARE))
def names_of(software: Software) -> NameList:
    """What a software knows."""
    return NameList.model_validate(shipped_yaml(__package__, "names", f"{software}.yaml"))
