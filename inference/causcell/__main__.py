"""``python -m causcell``: the command line."""

from causcell.cli.main import main

if __name__ == "__main__":
    main()
