"""`python -m placement.verify`."""

from placement.cli.verify import main

if __name__ == "__main__":
    main()
