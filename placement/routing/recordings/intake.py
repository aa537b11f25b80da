"""What the reader of a format fills: token choices or load counts, with what it learned and left out on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.routing.recordings.counts import CountWindows
from placement.routing.recordings.meter import Meter
from placement.routing.recordings.shape import ModelShape
from placement.routing.recordings.spool import Spool

#: Entries of an array that are read at once.
PIECE = 2**22


class Intake:
    """One recording on its way in: either tokens or counts.

    Attributes:
        source: the recording, for messages. shape: what is known of the model. axes: names of an array's axes where the
            user gave them, such as ("layers", "tokens", "k"), or None.
        slots: [layers, slots] expert of each slot, where the user gave it for a recording of slots; or None.
        tokens, counts: what was read. notes: what was left out, for people.
    """

    def __init__(
        self,
        source: str,
        shape: ModelShape,
        folder: Path,
        axes: tuple[str, ...] | None = None,
        meter: Meter | None = None,
        slots: NDArray[np.int64] | None = None,
    ) -> None:
        """An empty one.

        Args:
            folder: where tokens are kept meanwhile. meter: told of the bytes that were read.
        """
        self.slots = slots
        self.source, self.shape, self.axes, self.meter = source, shape, axes, meter or Meter()
        self.tokens = Spool(folder, source, self.meter)
        self.counts = CountWindows(source)
        self.notes: list[str] = []

    def add_tokens(
        self, ids: NDArray[Any], weights: NDArray[Any] | None = None, layers: tuple[int, ...] | None = None
    ) -> None:
        """Tokens in all layers.

        Args:
            ids: [tokens, layers, k] ids; negative ones are padding. weights: likewise, or None.
            layers: [layers] labels; None: 0, 1, ...

        Raises:
            InputError: they are no ids, or unlike those before.
        """
        if ids.ndim != 3:
            raise InputError(self.source, "", f"has ids of shape {ids.shape}", "give [tokens, layers, k]")
        labels = tuple(range(ids.shape[1])) if layers is None else layers
        for place, layer in enumerate(labels):
            self.tokens.add(layer, ids[:, place], None if weights is None else weights[:, place])

    def learn(self, source: str, field: str, experts: Any = None, top_k: Any = None) -> None:
        """Takes sizes that a file says of itself.

        Raises:
            InputError: they are no sizes, or other than the model's.
        """
        for value in (experts, top_k):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise InputError(source, field, f"is no number: {str(value)[:40]}", "record again")
        self.shape = self.shape.learned(source, field, experts, top_k)

    def note(self, text: str) -> None:
        """Says once what was found."""
        if text not in self.notes:
            self.notes.append(text)


def to_logical(counts: NDArray[Any], table: NDArray[Any], experts: int, source: str) -> NDArray[Any]:
    """[layers, experts] counts of logical experts.

    Args:
        counts: [layers, slots] counts of slots. table: [layers, slots] logical expert of each.

    Raises:
        InputError: the two don't fit each other.
    """
    if counts.shape != table.shape:
        problem = f"has counts of shape {counts.shape}, and a map of shape {table.shape}"
        raise InputError(source, "physical_to_logical_map", problem, "record again")
    out = np.zeros((len(counts), experts), dtype=np.float64)
    np.add.at(out, (np.arange(len(counts))[:, None], table), counts)
    return out


def checked_map(table: NDArray[Any], source: str, field: str) -> NDArray[np.int64]:
    """[layers, slots] logical expert of each slot, as an engine recorded it.

    Raises:
        InputError: it is no such table.
    """
    if table.ndim != 2 or table.dtype.kind not in "iu" or not table.size or table.min() < 0 or table.max() >= 2**16:
        raise InputError(source, field, f"is no map: shape {table.shape}, {table.dtype}", "record again")
    return table.astype(np.int64)
