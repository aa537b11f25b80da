"""`python -m placement.scenario`."""

from placement.entry import enter

if __name__ == "__main__":
    enter("placement.cli.scenario")
