"""Entry point of `python -m bench.alltoall`."""

from bench.alltoall.main import command
from placement.cli.running import run

if __name__ == "__main__":
    run(command, "python -m bench.alltoall")
