"""`python -m placement.export`."""

from placement.cli.export import main

if __name__ == "__main__":
    main()
