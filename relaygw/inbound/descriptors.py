"""File descriptors: one for each connection, as many as the system allows."""

from __future__ import annotations

import resource

_OWN = 256
"""What a front needs besides its connections: the database, spool files, the maildrop, the log."""


def ensure_descriptors(connections: int) -> tuple[int, str | None]:
    """Raise this process's limit for so many connections.

    Returns how many may be open, and what is wrong if that is fewer: a quarter of what the
    system allows stays with the front, so that those who are connected can be served.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OWN
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections, None
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible >= wanted:
        return connections, None
    allowed = min(connections, possible - min(_OWN, possible // 4))
    return allowed, (
        f"{connections} connections need {wanted} open files, the system allows {possible}: "
        f"{allowed} are taken at once; raise LimitNOFILE of the service, or lower max_connections"
    )
