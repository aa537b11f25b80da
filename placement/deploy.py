"""`python -m placement.deploy`."""

from placement.cli.deploy import main

if __name__ == "__main__":
    main()
