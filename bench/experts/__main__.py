"""Entry point of `python -m bench.experts`."""

from bench.experts.main import command
from placement.cli.running import run

if __name__ == "__main__":
    run(command, "python -m bench.experts")
