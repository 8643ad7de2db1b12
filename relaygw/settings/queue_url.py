"""The URL of the queue: a SQLite file by its path, or a PostgreSQL database."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_SQLITE = "sqlite:////var/lib/relaygw/queue.db"
_POSTGRES = "postgresql://relaygw@db.example.com/relaygw"


def check_queue_url(url: str) -> str:
    """Return `url`; raises ValueError for what names no database, or holds a password."""
    if url.startswith(("postgres:", "postgresql+")):
        raise ValueError(f"has another scheme than postgresql; write e.g. {_POSTGRES}")
    if url.startswith("postgresql:"):
        return _check_postgres(url)
    path = url.removeprefix("sqlite:///")
    if url and (path == url or not path.startswith("/") or path.endswith("/") or "?" in path):
        raise ValueError(
            f"is not the URL of a SQLite file with an absolute path; write e.g. {_SQLITE} "
            f"with four slashes, or {_POSTGRES}"
        )
    return url


def _check_postgres(url: str) -> str:
    url = _with_hosts_apart(url)
    try:
        parts = urlsplit(url)
        has_database = bool(parts.path.strip("/"))
        has_password = parts.password is not None or "password" in parts.query.lower()
        _ = parts.port
    except ValueError:
        has_database = has_password = False
    if not has_database:
        raise ValueError(f"names no database; write e.g. {_POSTGRES}")
    if has_password:
        raise ValueError(
            "holds a password; take it out and write queue.password: file:PATH (or env:NAME), or "
            "use PGPASSFILE"
        )
    return url


_HOSTS = re.compile(r"(postgresql://(?:[^@/?#]*@)?)([^@/?#]*,[^@/?#]*)(/[^?#]*)(?:\?(.*))?")
_HOST = re.compile(r"([^\[\]:]+|\[[^\]]*\])(?::(\d+))?")


def _with_hosts_apart(url: str) -> str:
    """Return the URL of several servers with their ports in the one form that all parsers know."""
    found = _HOSTS.fullmatch(url)
    if found is None or ":" not in found[2]:
        return url
    hosts = [_HOST.fullmatch(one) for one in found[2].split(",")]
    if not all(hosts):
        return url
    names = ",".join(one[1].strip("[]") for one in hosts if one)
    ports = ",".join(one[2] or "5432" for one in hosts if one)
    rest = f"&{found[4]}" if found[4] else ""
    return f"{found[1]}{found[3]}?host={names}&port={ports}{rest}"
