"""`python -m placement.export`."""

from placement.entry import enter

if __name__ == "__main__":
    enter("placement.cli.export")
