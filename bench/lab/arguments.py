"""Extra arguments of a target: its Options as command-line options, read from one text."""

from __future__ import annotations

import dataclasses
import shlex
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from bench.lab.target import Target
from placement.errors import InputError

O = TypeVar("O")  # noqa: E741 - as in bench.lab.target


def read_options(target: Target[O], text: str) -> O:
    """The target's options as `text` gives them, such as "--fabric ib --validate".

    Raises:
        InputError: An argument that the target does not take; the message names those that it does.
    """
    try:
        context = command_of(target).make_context(target.name, shlex.split(text))
    except (click.ClickException, ValueError) as error:
        told = error.format_message() if isinstance(error, click.ClickException) else str(error)
        told = " ".join(told.split()).rstrip(".")
        raise InputError(
            f"--target-extra-arg {target.name}", "", told[:1].lower() + told[1:], f"it takes {usage(target)}"
        ) from None
    return target.options(**context.params)


def flag_of(target: Target[Any], source: str) -> str | None:
    """The option of the target that an error's source names in back-ticks; None where it names none."""
    return {f"`{field.name}`": _flag(field) for field in target.option_fields}.get(source)


def command_of(target: Target[Any]) -> click.Command:
    """The target's extra arguments as a command's options."""
    return click.Command(target.name, params=list(_click_options(target)), add_help_option=False)


def usage(target: Target[Any]) -> str:
    """The extra arguments of a target in one line."""
    told = [_usage(field, kind) for field, kind in _fields(target)]
    return ", ".join(told) or "no extra arguments"


def described(target: Target[Any]) -> tuple[tuple[str, str, str], ...]:
    """(argument, default, what it is) of each option, for tables."""
    return tuple((_usage(field, kind), _default(field), field.metadata["told"]) for field, kind in _fields(target))


def _fields(target: Target[Any]) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Each field with the type that it takes, None left out."""
    hints = get_type_hints(target.options)
    return [(field, _plain(hints[field.name])) for field in target.option_fields]


def _plain(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    return hint


def _flag(field: dataclasses.Field[Any]) -> str:
    return "--" + field.name.replace("_", "-")


def _usage(field: dataclasses.Field[Any], kind: Any) -> str:
    if kind is bool:
        return _flag(field) if not field.default else f"{_flag(field)}/--no-{_flag(field)[2:]}"
    if get_origin(kind) is Literal:
        return f"{_flag(field)} {'|'.join(get_args(kind))}"
    return f"{_flag(field)} {'TEXT' if kind is str else 'N'}"


def _default(field: dataclasses.Field[Any]) -> str:
    return "" if field.default in (None, "", False) else str(field.default)


def _click_options(target: Target[Any]) -> list[click.Option]:
    made = []
    for field, kind in _fields(target):
        flag = _flag(field)
        if kind is bool:
            names = [field.name, f"{flag}/--no-{flag[2:]}"]
            made.append(click.Option(names, default=field.default))
            continue
        made.append(click.Option([field.name, flag], type=_click_type(field, kind), default=field.default))
    return made


def _click_type(field: dataclasses.Field[Any], kind: Any) -> Any:
    least, most = field.metadata["least"], field.metadata["most"]
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is int:
        return click.IntRange(least, most)
    if kind is float:
        return click.FloatRange(least, most)
    if kind is str:
        return click.STRING
    raise TypeError(f"an option can't be of {kind}; see bench.lab.target.option")
