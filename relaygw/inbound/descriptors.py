"""File descriptors: one for each connection, as many as the system allows."""

from __future__ import annotations

import resource

_OWN = 256
"""What a front needs besides its connections: the database, spool files, the log."""


def ensure_descriptors(connections: int) -> str | None:
    """Raise this process's limit for so many connections; return what is wrong if that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OWN
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible >= wanted:
        return None
    return (
        f"{connections} connections need {wanted} open files, the system allows {possible}; "
        "raise LimitNOFILE of the service, or lower max_connections"
    )
