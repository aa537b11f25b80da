"""Arrays of a problem: their types, and records whose arrays can't be written to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

#: A slot that holds no expert: one beyond its GPU's capacity.
EMPTY = -1
#: Where a record has what was made of it.
KEPT = "_kept"

T = TypeVar("T")


def frozen(array: Any, dtype: Any) -> NDArray[Any]:
    """A contiguous copy of `array` that can't be written to."""
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


def plain(array: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """A contiguous copy that can be written to: compiled functions are compiled again for each other kind of array."""
    return np.array(array, dtype=dtype, order="C")


class FrozenArrays:
    """Base of frozen records of arrays: their arrays, cached ones too, can't be written to.

    Compiled kernels are made for read-only arrays or for writable ones; an unpickled record must not ask for new ones.
    """

    def _freeze(self, name: str, dtype: Any, kinds: str = "iuf") -> None:
        """Replaces field `name` by a frozen array, unless it is None.

        Raises:
            InputError: the field holds another kind of values.
        """
        value = getattr(self, name)
        if value is None:
            return
        if np.asarray(value).dtype.kind not in kinds:
            words = {"iu": "whole numbers", "b": "True and False"}.get(kinds, "numbers")
            raise InputError("layer", name, f"must be {words}", "mend the list")
        object.__setattr__(self, name, frozen(value, dtype))

    def kept(self, kind: Callable[[Self], T]) -> T:
        """What `kind` makes of this record, made once; it goes with the record, and neither pickled nor changed."""
        made: dict[Any, Any] = self.__dict__.setdefault(KEPT, {})
        if kind not in made:
            made[kind] = kind(self)
        found: T = made[kind]
        return found

    def __getstate__(self) -> dict[str, Any]:
        cached = {KEPT} | {
            name for kind in type(self).__mro__ for name, of in vars(kind).items() if type(of) is cached_property
        }
        return {name: value for name, value in self.__dict__.items() if name not in cached}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        self.__dict__.update(state)
