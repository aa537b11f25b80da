"""`python -m placement.compare`."""

from placement.cli.compare import main

if __name__ == "__main__":
    main()
