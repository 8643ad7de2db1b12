"""How many connections a PostgreSQL server grants, and how the processes of a gateway share them.

Each has a pool that keeps what it has used. So none may open more than its share: else the first
ones take all, and there is a front without a worker.
"""

from __future__ import annotations

from relaygw.mail.words import counted
from relaygw.store.database import MAX_CONNECTIONS, Database, Statement

HINTED_FROM = 3
"""With fewer a process has none to spare for hints of other gateways: it finds mail by polling."""
_NEEDED_EACH = 10  # a busy process seldom has more in use
_SPARE = 2  # for commands, and for what is done beside the roles at a start
# a superuser is not limited by role and database, and nothing is reserved for others
_GRANTED = Statement(
    """
    WITH me AS (SELECT * FROM pg_roles WHERE rolname = current_user)
    SELECT current_setting('max_connections')::int - CASE WHEN rolsuper THEN 0 ELSE
        current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true)::int, 0) END,
        'set max_connections = {} at least, and restart PostgreSQL'
    FROM me
    UNION ALL SELECT rolconnlimit, format('run: ALTER ROLE %I CONNECTION LIMIT {}', rolname)
    FROM me WHERE rolconnlimit >= 0 AND NOT rolsuper
    UNION ALL SELECT datconnlimit, format('run: ALTER DATABASE %I CONNECTION LIMIT {}', datname)
    FROM me, pg_database
    WHERE datname = current_database() AND datconnlimit >= 0 AND NOT rolsuper
    ORDER BY 1 LIMIT 1
    """
)


def share_out(database: Database, *, gateways: int, processes: int) -> tuple[int, str | None]:
    """Return how many connections a process may open, of so many on each of several gateways.

    Also that they are too few, in words with the remedy; None where they are not.
    """
    with database.read() as tx:
        ((granted, remedy),) = _GRANTED.fetch(tx)
    each = max(1, min(MAX_CONNECTIONS, (granted // gateways - _SPARE) // processes))
    needed = gateways * processes * _NEEDED_EACH
    if granted >= needed:
        return each, None
    return each, (
        f"PostgreSQL grants {counted(granted, 'connection')}, and {counted(gateways, 'gateway')} "
        f"of {counted(processes, 'process', 'processes')} should have {needed}: each process opens "
        f"{each} at most, and mail may wait; {remedy.format(needed)}"
    )
