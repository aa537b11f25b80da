"""Runs a command: every outcome becomes one line on stderr and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import gc
import io
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from solvers.stop import Interrupt


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


#: Seconds after which an interrupt that nobody has heard is raised again: cleaning up takes less.
INSIST_S = 1.5


def emit(text: str) -> None:
    """Writes `text` and a line end to stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Writes one line to stderr."""
    click.echo(" ".join(text.split()), err=True)


def outcome(command: click.Command, name: str, args: Sequence[str] | None = None) -> int:
    """Runs `command` and gives its exit code; errors are told on stderr.

    Args:
        name: what the user calls it, for usage lines. args: arguments; None takes the process's.
    """
    try:
        code = command.main(
            list(args) if args is not None else None, prog_name=name, standalone_mode=False,
            help_option_names=["-h", "--help"],
        )  # fmt: skip
        sys.stdout.flush()
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
        return _interrupted()
    except MemoryError:
        note("error: out of memory; plan a smaller model, cluster or trace, or use fewer --workers")
        return int(Exit.NOTHING_FOUND)
    except Exception as error:
        if _unheard():
            # A package has made an error of its own of it.
            return _interrupted()
        code = _code_of(error)
        if code is None:
            raise
        note(f"error: {error}")
        return int(code)


def run(command: click.Command, name: str) -> None:
    """Runs `command` as the process: exits with its code."""
    _guard_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGALRM, _interrupt)
    # Packages make most objects, and these stay: looking for cycles among them takes a twentieth of a short command,
    # and a fifth where all goes at the end.
    gc.set_threshold(20_000, 20, 20)
    code = outcome(command, name)
    gc.freeze()
    raise SystemExit(code)


def _unheard() -> bool:
    """Whether an interrupt was raised in this process that nobody has heard."""
    return signal.getsignal(signal.SIGALRM) is _interrupt and signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _interrupted() -> int:
    """Says so; the exit code."""
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    note("interrupted")
    return int(Exit.INTERRUPTED)


def _interrupt(*_: Any) -> None:
    """Raises KeyboardInterrupt, and again until it is heard: callbacks of a compiler may swallow it."""
    signal.setitimer(signal.ITIMER_REAL, INSIST_S)
    raise KeyboardInterrupt


@contextmanager
def keeping_best(interrupt: Interrupt) -> Iterator[None]:
    """Ctrl-C during a search ends it, and what was found by then is kept; a second one ends the command."""

    def told(number: int, _: Any) -> None:
        # An alarm: what was raised has not ended the search.
        if interrupt.searching if number == signal.SIGALRM else interrupt.ask():
            _interrupt()

    if signal.getsignal(signal.SIGINT) is not _interrupt:  # in another's process
        yield
        return
    try:
        for number in (signal.SIGINT, signal.SIGALRM):
            signal.signal(number, told)
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGALRM):
            signal.signal(number, _interrupt)
        if interrupt.heard:
            signal.setitimer(signal.ITIMER_REAL, 0.0)


class _Stderr(io.FileIO):
    """A standard stream that is given up at the first failed write: what is written later goes nowhere, in silence."""

    lost = False

    def write(self, data: Any, /) -> int:
        """The bytes written, all of them where nobody can have them."""
        size = memoryview(data).nbytes
        try:
            while not self.lost:
                written = super().write(data)
                if written is not None:
                    return written
                select.select([], [self], [])  # a pipe that does not block, and is full
        except OSError as error:
            self.lost = True
            self._tell(error)
        return size

    def _tell(self, error: OSError) -> None:
        """Nobody hears of it: progress and errors are words, and their loss changes no answer."""


class _Stdout(_Stderr):
    """Data, whose loss is an error, save where the reader of a pipe has had enough."""

    def _tell(self, error: OSError) -> None:
        from placement.errors import InputError

        if isinstance(error, BrokenPipeError):
            raise SystemExit(int(Exit.PIPE_CLOSED)) from None
        problem = f"can't be written: {error.strerror}"
        raise InputError("stdout", "", problem, "send it to a file or program that takes it") from None


def _guard_streams() -> None:
    """Makes stdout and stderr streams that fail in a defined way, whatever the process was started with."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # No file that is opened later may take the number of a closed stream. Writes to stdout still fail.
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    streams: tuple[tuple[str, type[_Stderr]], ...] = (("stdout", _Stdout), ("stderr", _Stderr))
    for number, (name, kind) in enumerate(streams, start=1):
        old = getattr(sys, name)
        encoding = "utf-8" if old is None else old.encoding
        raw = kind(number, "w", closefd=False)
        whole = number == 1 and not raw.isatty()
        new = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=not whole)
        setattr(sys, name, new)


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
