"""`python -m placement` is the console script `placement`."""

from placement.cli.main import main

if __name__ == "__main__":
    main()
