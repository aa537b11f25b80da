"""`python -m placement.migrate`."""

from placement.cli.migrate import main

if __name__ == "__main__":
    main()
