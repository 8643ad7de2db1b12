"""`python -m relaygw`: the same as the command `relaygw`."""

from __future__ import annotations

from relaygw.cli import main

if __name__ == "__main__":
    main()
