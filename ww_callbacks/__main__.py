"""``python -m ww_callbacks``: the command ``ww-callbacks``."""

from ww_callbacks.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
