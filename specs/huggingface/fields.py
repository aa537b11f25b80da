"""Typed access to the fields of a Hugging Face config, under any of their names; wrong types are one InputError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from specs.documents import shown, told
from specs.errors import InputError

T = TypeVar("T")


class Config:
    """A config and, for messages, which of its fields became which field of the Model."""

    def __init__(self, config: dict[str, Any], source: str) -> None:
        self._config = config
        self._origin: dict[str, str] = {
            "layers": "num_hidden_layers",
            "hidden": "hidden_size",
            "vocabulary": "vocab_size",
            "context": "max_position_embeddings",
            "dense_width": "intermediate_size",
        }
        self.source = source

    def optional(self, *names: str, to: str = "") -> int | None:
        """The first of `names` that the config has, as a whole number; null counts as absent.

        Args:
            names: the field's names, the usual one first.
            to: the Model's field that it becomes.

        Raises:
            InputError: it is no whole number of a sane size.
        """
        for name in names:
            value = self._config.get(name)
            if value is None:
                continue
            if to:
                self._origin[to] = name
            if type(value) is not int:
                raise InputError(self.source, name, f"is {told(value)}", "write a whole number")
            if abs(value) > 2**53:
                raise InputError(self.source, name, f"is {shown(value)}", "write a number of a real model's size")
            return value
        return None

    def integer(self, *names: str, to: str = "") -> int:
        """As `optional`, for a field that must be there."""
        value = self.optional(*names, to=to)
        if value is None:
            raise InputError(self.source, names[0], "is missing", "name the complete config.json of the model")
        return value

    def at_least(self, least: int, value: int, name: str) -> None:
        """Raises InputError where `value` of field `name` is below `least`."""
        if value < least:
            raise InputError(self.source, name, f"is {value}", f"write at least {least}")

    def flag(self, name: str, default: bool) -> bool:
        """A true-or-false field; absent or null is `default`."""
        value = self._config.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InputError(self.source, name, f"is {told(value)}", "write true or false")
        return value

    def text(self, name: str, default: str) -> str:
        """A text field; absent or null is `default`."""
        value = self._config.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise InputError(self.source, name, f"is {told(value)}", "write text")
        return value

    def integers(self, name: str) -> list[int]:
        """A list of whole numbers; absent or null is empty."""
        value = self._config.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or any(type(item) is not int for item in value):
            raise InputError(self.source, name, "is not a list of whole numbers", "write one, such as [0, 1]")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts; absent or null is empty."""
        value = self._config.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or any(not isinstance(item, str) for item in value):
            raise InputError(self.source, name, "is not a list of names", "write one")
        return value

    def named_after_config(self, build: Callable[[], T]) -> T:
        """What `build` returns; an error about a Model's field is told about the config's field that it came from."""
        try:
            return build()
        except InputError as error:
            name = self._origin.get(error.field, error.field)
            raise InputError(error.source, name, error.problem, error.mend) from None
