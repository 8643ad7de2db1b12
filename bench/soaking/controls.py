"""`python -m bench.soaking.controls`: relaygw that leaks for each message, which has to be found.

Front and worker keep 4 KiB of each message and a descriptor of every twentieth; the rig has it keep
finished mail for ever, too.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

_KEPT_BYTES = 4096
_DESCRIPTOR_EACH = 20
_kept: list[bytes] = []
_numbers = itertools.count(1)


def _leak() -> None:
    _kept.append(os.urandom(_KEPT_BYTES))
    if next(_numbers) % _DESCRIPTOR_EACH == 0:
        os.dup(2)


def leak() -> None:
    """Plant it in front and worker."""
    from relaygw.inbound.committer import GroupCommitter
    from relaygw.store.instances import Lifeline

    accept, begin = GroupCommitter._accept, Lifeline.begin

    def accept_and_keep(self: Any, messages: Any) -> Any:
        for _ in messages:
            _leak()
        return accept(self, messages)

    def begin_and_keep(self: Any, *words: Any) -> Any:
        _leak()
        return begin(self, *words)

    GroupCommitter._accept = accept_and_keep  # type: ignore[method-assign]
    Lifeline.begin = begin_and_keep  # type: ignore[method-assign, assignment]


def main() -> None:
    """Plant the leak, which forked roles inherit, and be `relaygw`."""
    leak()
    from relaygw.cli import main as relaygw

    relaygw()


if __name__ == "__main__":
    main()
