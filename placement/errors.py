"""Errors that commands turn into exit codes (see README). A bug is none of these and keeps its traceback."""

from __future__ import annotations

from specs.errors import InputError

__all__ = [
    "CheckFailedError",
    "InfeasibleError",
    "InputError",
    "MissingExtraError",
    "NothingFoundError",
    "ParameterError",
    "PlacementError",
]


class ParameterError(InputError):
    """A parameter that the caller can mend. Messages name parameters in back-ticks; commands turn them into options."""

    def __init__(self, parameter: str, problem: str, mend: str) -> None:
        super().__init__(f"`{parameter}`", "", problem, mend)


class PlacementError(Exception):
    """Base of the outcomes below; the message is one line."""


class InfeasibleError(PlacementError):
    """Proven infeasible: the message names the constraint and by how much it fails. Exit code 3."""


class NothingFoundError(PlacementError):
    """The stop criterion came before any answer; nothing is proven. Exit code 4."""


class MissingExtraError(PlacementError):
    """An optional part is not installed; the message holds the install command. Exit code 5."""


class CheckFailedError(PlacementError):
    """A verification failed. Exit code 6."""
