"""Logins of the web pages: the hash of a token, whose it is, and until when."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, select, update

from relaygw.store.captured import WebSession
from relaygw.store.tables import web_session

_S = web_session.c


def put(connection: Connection, session: WebSession) -> None:
    """Write a login that begins, or when one was last seen."""
    seen = connection.execute(
        update(web_session)
        .where(_S.token_hash == session.token_hash)
        .values(seen_at_ms=session.seen_at_ms, expires_at_ms=session.expires_at_ms)
    )
    is_new = session.seen_at_ms == session.created_at_ms
    if is_new and not seen.rowcount:
        connection.execute(insert(web_session).values(**asdict(session)))


def get(connection: Connection, token_hash: str) -> WebSession | None:
    """Return a login, None when there is none."""
    found = connection.execute(select(web_session).where(_S.token_hash == token_hash)).one_or_none()
    return None if found is None else WebSession(**found._mapping)


def drop(connection: Connection, token_hash: str) -> None:
    """End a login."""
    connection.execute(delete(web_session).where(_S.token_hash == token_hash))


def drop_all_of(connection: Connection, user_name: str) -> int:
    """End the logins of a user; return how many."""
    return connection.execute(delete(web_session).where(_S.user_name == user_name)).rowcount


def has_expired(connection: Connection, now_ms: int) -> bool:
    """True when there is a login that has expired."""
    expired = select(_S.token_hash).where(_S.expires_at_ms <= now_ms).limit(1)
    return connection.execute(expired).scalar() is not None


def drop_expired(connection: Connection, now_ms: int) -> None:
    """Delete the logins that have expired."""
    connection.execute(delete(web_session).where(_S.expires_at_ms <= now_ms))
