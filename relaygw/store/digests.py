"""Which digests were sent: a row for each way, so that of a fleet one tells, and once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update

from relaygw.mail.envelope import AcceptedMessage
from relaygw.store.database import Repository, insert_into
from relaygw.store.guard_tables import digest
from relaygw.store.intake import insert_messages

# another instance may write the first one at this moment
_BEGIN = insert_into("digest", "way until_ms tries again_at_ms", on_conflict="DO NOTHING")


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestState:
    """How far digests have come by one way."""

    until_ms: int  # the end of the last period that was told, or left out
    tries: int  # in vain, for the next one
    again_at_ms: int  # when it is tried again


class Digests(Repository):
    """What was sent by mail and to the webhook; periods are in the queue's own time."""

    def digest_state(self, way: str, *, until_ms: int) -> DigestState:
        """Return how far it has come; what never was begins at `until_ms`, which is not told."""
        with self._read() as tx:
            row = tx.execute(select(digest).where(digest.c.way == way)).one_or_none()
        if row is None:
            with self._write() as tx:
                _BEGIN.run(tx, [(way, until_ms, 0, 0)])
            return DigestState(until_ms=until_ms, tries=0, again_at_ms=0)
        return DigestState(until_ms=row.until_ms, tries=row.tries, again_at_ms=row.again_at_ms)

    def pass_digest(
        self, way: str, *, state: DigestState, until_ms: int, mail: Sequence[AcceptedMessage] = ()
    ) -> bool:
        """Note that a period is told from now on, and store its mail; False if it is not `state`.

        Whoever is told True may tell it, and nobody else, also if that one is killed now.
        """
        with self._write() as tx:
            is_it = (digest.c.way == way) & (digest.c.until_ms == state.until_ms)
            changed = update(digest).where(is_it)
            values = {"until_ms": until_ms, "tries": 0, "again_at_ms": 0}
            if tx.execute(changed.values(values)).rowcount == 0:
                return False
            insert_messages(tx, mail)
            return True

    def put_off_digest(self, way: str, *, state: DigestState, until_ms: int, wait_ms: int) -> None:
        """Let what surely was not told be tried again after a while, as it was before."""
        with self._write() as tx:
            is_it = (digest.c.way == way) & (digest.c.until_ms == until_ms)
            again_at_ms = tx.now_ms() + wait_ms
            values = {"until_ms": state.until_ms, "tries": state.tries + 1}
            tx.execute(update(digest).where(is_it).values(again_at_ms=again_at_ms, **values))
