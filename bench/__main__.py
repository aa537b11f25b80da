"""Entry point of `python -m bench`."""

from bench.cli import cli
from placement.cli.running import run

if __name__ == "__main__":
    run(cli, "python -m bench")
