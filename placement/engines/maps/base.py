"""What a file format of an engine is: written from a map, recognized, and read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from placement.engines.content import Content
from placement.engines.expert_map import ExpertMap, ModelLayers


@dataclass(frozen=True)
class ReadMap:
    """A map that was read. `notes`: what of the file was left out, one sentence each."""

    experts: ExpertMap
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Extras:
    """What some formats ask for beside the map.

    Attributes:
        architecture: The model's class, as `architectures` of its config.json has it; "" where it is not known.
        next_token_layers: Layers of a next-token module that get a row, too.
    """

    architecture: str = ""
    next_token_layers: int = 0


class MapFormat(Protocol):
    """One format.

    Attributes:
        name: What it is asked for by. file: Its name in an exported folder.
        loaded_by: The engine and the versions that load it, for people.
        stock: Whether a released engine loads it.
        uneven: Whether layers may differ in their slots.
    """

    name: str
    file: str
    loaded_by: str
    stock: bool
    uneven: bool

    def recognizes(self, content: Content) -> bool:
        """Whether the engine of this format wrote the file, by its keys and shapes alone."""
        ...

    def read(self, content: Content, model: ModelLayers, gpus: int) -> ReadMap:
        """The map of a file, as strict as the engine's own reader.

        Args:
            content: The file.
            model: Whose layers they are.
            gpus: Expert-parallel ranks, where the file does not say.

        Raises:
            InputError: What the engine would not load, or would load as something else.
        """
        ...

    def write(self, experts: ExpertMap, model: ModelLayers, extras: Extras) -> bytes:
        """The file of a map.

        Raises:
            InputError: What the format can't say.
        """
        ...


def moe_rows(content: Content, rows: Sequence[Sequence[int]], model: ModelLayers, field: str) -> None:
    """Whether there is one row for each MoE layer, and none for dense ones.

    Raises:
        InputError: There are others.
    """
    if len(rows) == len(model.moe):
        return
    problem = f"has {len(rows)} rows for {len(model.moe)} MoE layers"
    if len(rows) == model.hidden:
        problem += ": one for each hidden layer, dense ones too, as SGLang has them"
    raise content.refuse(field, problem, "use a map of this model, of its MoE layers alone")


def same_length(content: Content, rows: Sequence[Sequence[int]], field: str) -> None:
    """Whether all rows are of one length.

    Raises:
        InputError: They are not.
    """
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise content.refuse(f"{field}[{i}]", f"has {len(row)} slots, others {len(rows[0])}", "mend the row")
