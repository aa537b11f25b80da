"""`python -m placement` is the console script `placement`."""

from placement.cli import main

if __name__ == "__main__":
    main()
