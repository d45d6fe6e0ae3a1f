"""`python -m bayesreg`: the command line."""

from bayesreg.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
