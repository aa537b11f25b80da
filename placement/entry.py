"""Where a process of a command begins: an interrupt is heard while the command is still imported, too."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Any


def enter(module: str = "placement.cli.main") -> None:
    """Imports a module of placement.cli and runs its `main`; placement.cli.running.run says how the process ends.

    Args:
        module: by default that of the console script `placement`.
    """
    heard: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if listens:
            signal.signal(signal.SIGINT, interrupt)
        main = import_module(module).main
        if listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except BaseException as error:
        # Packages may make an error of their own of it.
        if not heard and not isinstance(error, KeyboardInterrupt):
            raise
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
