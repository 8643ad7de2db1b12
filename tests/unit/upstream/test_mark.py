"""Our mark of a mail: only whoever has the key makes and reads one."""

from __future__ import annotations

import re

from relaygw.mail.clock import clock_ms
from relaygw.mail.queue_id import QueueIdSource
from relaygw.upstream.mark import Marks
from tests.tables import each_of

MARKS = Marks(b"k" * 32)


def test_a_mark_is_read_by_whoever_shares_the_key_and_tells_nobody_else() -> None:
    ids = QueueIdSource()
    queue_ids = [ids.next_id(clock_ms()) for _ in range(1000)]
    made = [MARKS.mark_of(one) for one in queue_ids]
    assert [Marks(b"k" * 32).read(one) for one in made] == queue_ids
    assert made == [MARKS.mark_of(one) for one in queue_ids], "the same again on a retry"
    assert all(re.fullmatch("[A-Za-z0-9_-]{20,60}", one) for one in made)
    assert all(Marks(b"j" * 32).read(one) is None for one in made)
    assert len({one[:4] for one in made}) > 900, "ids of one second begin alike, marks do not"


def test_a_mark_that_was_changed_is_none() -> None:
    mark = MARKS.mark_of(QueueIdSource().next_id(clock_ms()))
    for at in range(len(mark) - 1):  # the last sign has bits that say nothing
        for sign in "Aa0-":
            if sign != mark[at]:
                assert MARKS.read(mark[:at] + sign + mark[at + 1 :]) is None


@each_of("text", ["", "x", "A" * 16, "A" * 17, "A" * 40, "A" * 4000, "é" * 30, "=" * 30, "\0" * 30])
def test_what_is_no_mark_is_none(text: str) -> None:
    assert MARKS.read(text) is None
