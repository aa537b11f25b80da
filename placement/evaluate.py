"""`python -m placement.evaluate`."""

from placement.cli.evaluate import main

if __name__ == "__main__":
    main()
