"""`python -m placement.trace`."""

from placement.cli.trace import main

if __name__ == "__main__":
    main()
