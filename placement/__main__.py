"""`python -m placement` is the console script `placement`."""

from placement.entry import enter

if __name__ == "__main__":
    enter()
