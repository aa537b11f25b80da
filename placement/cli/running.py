"""Runs a command: every outcome becomes one line on stderr and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import IntEnum

import click


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    BAD_INPUT = 2
    INFEASIBLE = 3
    NOTHING_FOUND = 4
    MISSING_EXTRA = 5
    CHECK_FAILED = 6
    INTERRUPTED = 130
    #: The reader of a pipe has gone (128 + SIGPIPE).
    PIPE_CLOSED = 141


def emit(text: str) -> None:
    """Writes `text` and a line end to stdout, whole. A reader that has gone ends the process quietly."""
    whole = text if text.endswith("\n") else text + "\n"
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(whole.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()
        raise SystemExit(int(Exit.PIPE_CLOSED)) from None


def note(text: str) -> None:
    """Writes one line to stderr."""
    click.echo(" ".join(text.split()), err=True)


def outcome(command: click.Command, name: str, args: Sequence[str] | None = None) -> int:
    """Runs `command` and gives its exit code; errors are told on stderr.

    Args:
        name: what the user calls it, for usage lines. args: arguments; None takes the process's.
    """
    try:
        code = command.main(list(args) if args is not None else None, prog_name=name, standalone_mode=False)
        return int(code) if isinstance(code, int) else int(Exit.DONE)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return int(Exit.BAD_INPUT)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else name
        note(f"error: {_usage_problem(error)}; see '{path} --help'")
        return int(Exit.BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        note("interrupted")
        return int(Exit.INTERRUPTED)
    except MemoryError:
        note("error: out of memory; plan a smaller model, cluster or trace, or use fewer --workers")
        return int(Exit.NOTHING_FOUND)
    except Exception as error:
        code = _code_of(error)
        if code is None:
            raise
        note(f"error: {error}")
        return int(code)


def run(command: click.Command, name: str) -> None:
    """Runs `command` as the process: exits with its code."""
    code = outcome(command, name)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()
        code = int(Exit.PIPE_CLOSED)
    raise SystemExit(code)


def _code_of(error: Exception) -> Exit | None:
    """The exit code of an expected outcome; None for anything else, which is a bug."""
    # Imported here, when something went wrong: --help stays quick.
    from placement.errors import CheckFailedError, InfeasibleError, InputError, MissingExtraError, NothingFoundError

    codes: tuple[tuple[type[Exception], Exit], ...] = (
        (InputError, Exit.BAD_INPUT),
        (InfeasibleError, Exit.INFEASIBLE),
        (NothingFoundError, Exit.NOTHING_FOUND),
        (MissingExtraError, Exit.MISSING_EXTRA),
        (CheckFailedError, Exit.CHECK_FAILED),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), None)


def _usage_problem(error: click.ClickException) -> str:
    text = error.format_message().strip().rstrip(".")
    return text[:1].lower() + text[1:]


def _close_stdout() -> None:
    """Points stdout at nothing, so that the interpreter's own flush at exit stays quiet."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
