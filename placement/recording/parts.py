"""Parts of a recording that is not finished: a folder beside the file to come, one part a batch, to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.recording.experts import Caught, Shape
from placement.records.files import replace_file
from placement.routing.writer import Member, id_type

_INDEX = "recording.json"


class Parts:
    """The parts of one recording. A part that was cut off by an interruption is not there."""

    def __init__(self, out: Path, fingerprint: str) -> None:
        """Opens the parts of what was begun, or begins anew.

        Args:
            out: the trace to come; parts lie in the folder `out`.parts. fingerprint: of all that decides its contents.

        Raises:
            InputError: there are parts of another recording, or the folder can't be made.
        """
        self.folder = out.with_name(out.name + ".parts")
        try:
            self.folder.mkdir(exist_ok=True)
            index = self.folder / _INDEX
            if not index.exists():
                replace_file(index, lambda file: file.write(json.dumps({"fingerprint": fingerprint}).encode()))
            known = json.loads(index.read_text())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "its index is damaged"
            raise InputError(str(self.folder), "", f"can't be used: {reason}", "remove it") from None
        if not isinstance(known, dict) or known.get("fingerprint") != fingerprint:
            problem = "holds parts of a recording of another model, other texts or other options"
            raise InputError(str(self.folder), "", problem, "remove it, or write to another file")

    def done(self) -> int:
        """Parts that are there, from the first on without a gap."""
        count = 0
        while self._file(count, "ids").exists():
            count += 1
        return count

    def add(self, number: int, caught: Caught) -> None:
        """Writes a part.

        Raises:
            OSError: it can't.
        """
        shape = np.array([caught.shape.experts, *caught.shape.layers])
        told = {"shape": shape, "weights": caught.weights, "ids": caught.ids}  # the ids last: they say it is whole
        for what, array in told.items():
            if array is not None:
                replace_file(self._file(number, what), partial(_save, array))

    def shape(self) -> Shape:
        """Of the model, as the first part has it."""
        experts, *layers = (int(number) for number in self._read(0, "shape"))
        return Shape(tuple(layers), experts, self._read(0, "ids").shape[2])

    def members(self, count: int, tokens: int) -> list[Member]:
        """The arrays of `count` parts joined, a piece at a time.

        Args:
            tokens: of all of them.
        """
        shape = self.shape()
        size = (len(shape.layers), tokens, shape.top_k)
        found = [Member("topk_ids", id_type(shape.experts), size, self._pieces("ids", count))]
        if self._file(0, "weights").exists():
            found.append(Member("topk_weights", np.float16, size, self._pieces("weights", count)))
        return found

    def remove(self) -> None:
        """Removes the folder, with all that is its own."""
        for file in (*self.folder.glob("*.npy"), self.folder / _INDEX):
            file.unlink(missing_ok=True)
        self.folder.rmdir()

    def _pieces(self, what: str, count: int) -> Iterator[NDArray[Any]]:
        """Layer by layer, and in a layer part by part: the order of the joined array."""
        for layer in range(len(self.shape().layers)):
            for number in range(count):
                yield self._read(number, what)[layer]

    def _read(self, number: int, what: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self._file(number, what), mmap_mode="r", allow_pickle=False)
        return array

    def _file(self, number: int, what: str) -> Path:
        return self.folder / f"{number:06}.{what}.npy"


def _save(array: NDArray[Any], file: IO[bytes]) -> None:
    np.save(file, array)
