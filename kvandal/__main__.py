"""`python -m kvandal`."""

from kvandal.cli import main

if __name__ == "__main__":
    main()
