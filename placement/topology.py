"""`python -m placement.topology`."""

from placement.cli.topology import main

if __name__ == "__main__":
    main()
