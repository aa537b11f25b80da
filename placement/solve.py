"""`python -m placement.solve`."""

from placement.cli.solve import main

if __name__ == "__main__":
    main()
