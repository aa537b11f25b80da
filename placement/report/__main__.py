"""`python -m placement.report`."""

from placement.cli.report import main

if __name__ == "__main__":
    main()
