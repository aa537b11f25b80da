"""Runs commands with a broken stdout or stderr: `python -m tests.cli.streams CASES RESULTS`, both JSON.

A case is {"args", "stream", "how"}; it runs in a fork of one process that has all packages loaded and compiled. Its
result is [exit code, stdout, stderr].
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from tempfile import TemporaryFile

from bench.__main__ import cli as bench
from bench.alltoall.main import command as alltoall
from bench.experts.main import command as experts
from placement.cli import progress
from placement.cli.main import cli
from placement.cli.running import outcome, run

COMMANDS = {"placement": cli, "bench": bench, "bench.alltoall": alltoall, "bench.experts": experts}


def spoil(number: int, how: str) -> None:
    """Makes a file number of this process one that takes nothing."""
    if how == "closed":
        os.close(number)
    elif how == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    elif how == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, number)


def ended(program: str, args: list[str]) -> int:
    """Runs a command; its exit code. The streams' last flush is the interpreter's, which ends with 120 if it fails."""
    sys.argv[1:] = args
    try:
        run(COMMANDS[program], program)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = 120
    return code


def main() -> None:
    for words in json.loads(os.environ["WARM"]):
        outcome(cli, "placement", words)
    results = []
    for case in json.loads(Path(sys.argv[1]).read_text()):
        with TemporaryFile() as out, TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                if case["stream"] == 2:
                    # There is always something to tell.
                    progress.QUIET_S = progress.LINE_EVERY_S = -1.0
                spoil(case["stream"], case["how"])
                # Without tearing numba down, which takes most of a second.
                os._exit(ended(case["args"][0], case["args"][1:]))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = [os.pread(file.fileno(), 2**24, 0).decode() for file in (out, err)]
            results.append([code, *texts])
    Path(sys.argv[2]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
