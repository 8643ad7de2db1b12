"""Logins of the web pages; when one was last seen is not synced by itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select, update

from relaygw.store.database import Repository, Write
from relaygw.store.tables import web_session

_S = web_session.c


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSession:
    """A login of the web pages; the token itself is with the browser only."""

    token_hash: str
    user_name: str
    created_at_ms: int
    seen_at_ms: int
    expires_at_ms: int


class Sessions(Repository):
    """The logins that there are."""

    def put(self, session: WebSession) -> None:
        """Write a login that begins, or when it was last seen and when it expires."""
        with self._write(Write.UNSYNCED) as tx:
            times = {
                "seen_at_ms": tx.to_stored(session.seen_at_ms),
                "expires_at_ms": tx.to_stored(session.expires_at_ms),
            }
            is_it = _S.token_hash == session.token_hash
            seen = tx.execute(update(web_session).where(is_it).values(times))
            if session.seen_at_ms == session.created_at_ms and not seen.rowcount:
                times["created_at_ms"] = tx.to_stored(session.created_at_ms)
                tx.execute(insert(web_session).values(asdict(session) | times))

    def get(self, token_hash: str) -> WebSession | None:
        """Return a login, None when there is none; it may have expired."""
        query = select(web_session).where(_S.token_hash == token_hash)
        with self._read() as tx:
            found = tx.execute(query).one_or_none()
            times = ("created_at_ms", "seen_at_ms", "expires_at_ms")
            return None if found is None else tx.entry(WebSession, found, *times)

    def drop(self, token_hash: str) -> None:
        """End a login."""
        with self._write() as tx:
            tx.execute(delete(web_session).where(_S.token_hash == token_hash))
