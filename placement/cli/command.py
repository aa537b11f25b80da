"""Commands whose errors name options: the library names its parameters in back-ticks."""

from __future__ import annotations

import os
import re
from typing import Any

import click


class Command(click.Command):
    """A command that calls the library with its parameters under the same names."""

    def invoke(self, ctx: click.Context) -> Any:
        """As click's own; back-ticked parameters in messages of expected errors become this command's options."""
        try:
            _refuse_empty(ctx)
            _keep_inputs(ctx)
            return super().invoke(ctx)
        except Exception as error:
            # Imported here, when something went wrong: --help stays quick.
            from placement.errors import InputError, PlacementError

            if isinstance(error, OSError) and _is_given(error.filename, ctx):
                problem = f"can't be used: {error.strerror or type(error).__name__}"
                raise InputError(str(error.filename)[:200], "", problem, "check the path") from None
            if isinstance(error, InputError | PlacementError) and error.args:
                error.args = (self.with_options(str(error)),)
            raise

    def with_options(self, text: str) -> str:
        """The text with `parameter` written as this command's --option."""
        options = {each.name: each.opts[0] for each in self.params if isinstance(each, click.Option)}
        return re.sub(r"`(\w+)`", lambda match: options.get(match[1], match[0]), text)


def _refuse_empty(ctx: click.Context) -> None:
    """Refuses an empty word, such as that of a shell's unset variable, by the option or argument that it was given to.

    Raises:
        InputError: One is.
    """
    for each in ctx.command.params:
        given = ctx.get_parameter_source(str(each.name)) is click.core.ParameterSource.COMMANDLINE
        if given and any(not text.strip() for text in _texts(ctx.params.get(str(each.name)))):
            from placement.errors import InputError

            name = each.opts[0] if isinstance(each, click.Option) else each.make_metavar(ctx).strip("[].")
            raise InputError(name, "", "is empty", "give it a value, or leave it out")


def _keep_inputs(ctx: click.Context) -> None:
    """Refuses to write a result over a file that the command reads.

    Raises:
        ParameterError: `out` is one of the other arguments.
    """
    out = ctx.params.get("out")
    if not isinstance(out, str) or not os.path.isfile(out):
        return
    from placement.errors import ParameterError

    given = (each for name, value in ctx.params.items() if name != "out" for each in _texts(value))
    for text in given:
        # `FILE::KEY` names an array of a file.
        path = text.split("::")[0]
        if os.path.isfile(path) and os.path.samefile(path, out):
            raise ParameterError("out", f"{path} is read by this command", "name another file")


def _is_given(file: object, ctx: click.Context) -> bool:
    """Whether a file is one that an argument names, or lies below one: what is wrong with it is no bug."""
    given = (text.split("::")[0] for value in ctx.params.values() for text in _texts(value))
    return isinstance(file, str | os.PathLike) and any(text and os.fspath(file).startswith(text) for text in given)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, tuple) else []
