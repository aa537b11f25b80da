"""Typed access to the fields of a Hugging Face config, under any of their names; wrong values are one InputError."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from specs.documents import shown, told
from specs.errors import InputError
from specs.fields import MAX_COUNT, MAX_LAYERS
from specs.validation import validate

T = TypeVar("T")

LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")


class Config:
    """A config, or a section of one.

    Attributes:
        source: where it comes from, for messages.
        prefix: dotted path of the section, with a dot at its end; "" for the language model's config.
        used: names of the fields that were asked for.
    """

    def __init__(self, data: dict[str, Any], source: str, prefix: str = "") -> None:
        self.data = data
        self.source, self.prefix = source, prefix
        self.used: set[str] = set()

    def raw(self, *names: str) -> tuple[str, Any]:
        """The first of `names` that is neither absent nor null, and its value; the first name and None without one."""
        self.used.update(names)
        return next(((name, self.data[name]) for name in names if self.data.get(name) is not None), (names[0], None))

    def error(self, name: str, problem: str, mend: str) -> InputError:
        """The error about one field."""
        return InputError(self.source, shown(f"{self.prefix}{name}", 120), problem, mend)

    def has(self, *names: str) -> bool:
        """Whether one of the fields is there."""
        return self.raw(*names)[1] is not None

    def optional(self, *names: str, least: int = 1, most: int = MAX_COUNT) -> int | None:
        """A whole number; absent or null is None. A list of equal numbers is that number.

        Args:
            names: the field's names, the usual one first.
            least: the smallest value that it may have.
            most: the largest.

        Raises:
            InputError: it is no whole number, or out of its range.
        """
        name, value = self.raw(*names)
        if isinstance(value, list) and value and all(type(item) is int and item == value[0] for item in value):
            value = value[0]
        return None if value is None else self._whole(name, value, least, most)

    def _whole(self, name: str, value: Any, least: int, most: int = MAX_COUNT) -> int:
        if type(value) is not int:
            raise self.error(name, f"is {told(value)}", "write a whole number")
        if value < least:
            raise self.error(name, f"is {value}", f"write at least {least}")
        if value > most:
            raise self.error(name, f"is {shown(value)}", f"write a real model's size, at most {most}")
        return value

    def integer(self, *names: str, default: int | None = None, least: int = 1, most: int = MAX_COUNT) -> int:
        """As `optional`, for a field that must be there unless its family has a default."""
        value = self.optional(*names, least=least, most=most)
        if value is None and default is None:
            raise self.error(names[0], "is missing", "name the complete config.json of the model")
        return value if value is not None else default or 0

    def layers(self) -> int:
        """The number of layers."""
        return self.integer(*LAYERS, most=MAX_LAYERS)

    def by_layer(self, *names: str, layers: int, default: int | None = None, least: int = 0) -> list[int]:
        """[layers] a whole number of each layer; one number stands for all layers.

        A list may be longer than the model by its next-token-prediction layers, which come last.

        Raises:
            InputError: it is missing, or a list of another length, or holds something else.
        """
        name, value = self.raw(*names)
        if not isinstance(value, list):
            return [self.integer(*names, default=default, least=least)] * layers
        return [self._whole(f"{name}[{i}]", item, least) for i, item in enumerate(self._fitting(name, value, layers))]

    def kinds(self, *names: str, layers: int) -> list[str] | None:
        """[layers] a word of each layer, from a list (as long as in `by_layer`); None where it is absent."""
        name, value = self.raw(*names)
        if value is None:
            return None
        if not isinstance(value, list) or any(not isinstance(item, str) for item in value):
            raise self.error(name, f"is {told(value)}, not a list of names", "name what each layer is")
        return self._fitting(name, value, layers)

    def _fitting(self, name: str, value: list[Any], layers: int) -> list[Any]:
        spare = self.data.get("num_nextn_predict_layers")
        most = layers + (spare if type(spare) is int else 0)
        if not layers <= len(value) <= max(layers, most):
            raise self.error(name, f"names {len(value)} layers of {layers}", "name every layer once")
        return value[:layers]

    def flag(self, *names: str, default: bool = False) -> bool:
        """A true-or-false field; absent or null is `default`."""
        name, value = self.raw(*names)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(name, f"is {told(value)}", "write true or false")
        return value

    def text(self, *names: str, default: str = "") -> str:
        """A text field; absent or null is `default`."""
        name, value = self.raw(*names)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(name, f"is {told(value)}", "write text")
        return value

    def texts(self, *names: str) -> list[str]:
        """A list of texts; absent or null is empty."""
        name, value = self.raw(*names)
        if value is None:
            return []
        if not isinstance(value, list) or any(not isinstance(item, str) for item in value):
            raise self.error(name, f"is {told(value)}, not a list of names", "write one")
        return value

    def integers(self, *names: str, least: int = 0) -> list[int]:
        """A list of whole numbers; absent or null is empty."""
        name, value = self.raw(*names)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(name, f"is {told(value)}, not a list of whole numbers", "write one, such as [0, 1]")
        return [self._whole(f"{name}[{i}]", item, least) for i, item in enumerate(value)]

    def section(self, *names: str) -> Config | None:
        """The config nested in a field; absent or null is None."""
        name, value = self.raw(*names)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(name, f"is {told(value)}", "write a mapping")
        return Config(value, self.source, f"{self.prefix}{name}.")

    def chosen(self, name: str, value: str, known: Iterable[str]) -> str:
        """`value` of field `name`, which must be among `known`."""
        if value not in known:
            raise self.error(name, f"has {shown(value)}, which is not known", f"use {', '.join(known)}")
        return value

    def build(self, record_type: type[T], field: str, /, **values: Any) -> T:
        """A record of the specs; what does not fit is told as an error about `field`."""
        record: T = validate(record_type, values, self.source, prefix=self.prefix + field)
        return record
