"""`python -m tenfold` is the console script `tenfold`."""

from tenfold.cli import main

if __name__ == "__main__":
    main()
