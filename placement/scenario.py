"""`python -m placement.scenario`."""

from placement.cli.scenario import main

if __name__ == "__main__":
    main()
