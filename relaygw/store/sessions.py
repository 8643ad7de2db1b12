"""Logins of the web pages: who may log in since when, and who is logged in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select, update

from relaygw.store.database import Repository, Write, insert_into
from relaygw.store.side_tables import login, web_session

_S = web_session.c
_NOTE = insert_into(
    "login",
    "kind name mark since_ms",
    on_conflict="""(kind, name) DO UPDATE SET mark = excluded.mark, since_ms =
    CASE WHEN login.mark = '' THEN login.since_ms ELSE excluded.since_ms END
    WHERE login.mark <> excluded.mark""",
)
_NOTE_USED = insert_into(
    "login",
    "kind name mark since_ms used_at_ms",
    on_conflict="""(kind, name) DO UPDATE SET used_at_ms = excluded.used_at_ms
    WHERE login.used_at_ms IS NULL OR login.used_at_ms < excluded.used_at_ms""",
)
LoginKey = tuple[str, str]  # its kind and name


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSession:
    """A login of the web pages; the token itself is with the browser only."""

    token_hash: str
    user_name: str
    created_at_ms: int
    seen_at_ms: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLogin:
    """Who may log in, or could once."""

    kind: str
    name: str
    since_ms: int  # when it, or its present password, was seen first
    used_at_ms: int | None


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

    def note_known(self, marks: Mapping[LoginKey, str], *, now_ms: int) -> None:
        """Write who is new, or has another mark, which stands for the password."""
        with self._write() as tx:
            at_ms = tx.to_stored(now_ms)
            _NOTE.run(tx, [(*key, mark, at_ms) for key, mark in sorted(marks.items())])

    def note_used(self, used: Mapping[LoginKey, int]) -> None:
        """Write when names were last used."""
        with self._write(Write.UNSYNCED) as tx:
            times = ((key, tx.to_stored(at_ms)) for key, at_ms in sorted(used.items()))
            _NOTE_USED.run(tx, [(*key, "", at_ms, at_ms) for key, at_ms in times])

    def known(self) -> list[KnownLogin]:
        """Return all that were noted."""
        columns = (login.c.kind, login.c.name, login.c.since_ms, login.c.used_at_ms)
        with self._read() as tx:
            rows = tx.execute(select(*columns).order_by(login.c.kind, login.c.name))
            return [tx.entry(KnownLogin, row, "since_ms", "used_at_ms") for row in rows]
