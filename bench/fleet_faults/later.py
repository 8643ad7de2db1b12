"""`python -m bench.fleet_faults.later`: relaygw of a later version, which needs a later schema.

The later schema is this one with what an additive step brings: a nullable column in each table of
the hot path, a new table, an index, and another revision number.
"""

from __future__ import annotations

import subprocess

LATER = "9999"
PROGRAM = ("-m", "bench.fleet_faults.later")
_TRIES = 20
_TABLES = ("message", "delivery", "recipient", "chunk", "instance", "hold", "permit")
# several statements that are handed over as one are one transaction
_CHANGES = "; ".join(
    (
        *(f"ALTER TABLE {table} ADD COLUMN later TEXT" for table in _TABLES),
        "CREATE TABLE later (id BIGINT PRIMARY KEY, note TEXT)",
        "CREATE INDEX later_due ON delivery (provider, due_at_ms)",
        f"UPDATE alembic_version SET version_num = '{LATER}'",
    )
)


def upgrade(url: str) -> int:
    """Do what a later `relaygw db upgrade` does, again after a deadlock; return its tries."""
    from bench.rig.postgres import rows_of

    for tries in range(1, _TRIES):
        try:
            rows_of(url, _CHANGES, patience_s=60.0)
        except subprocess.CalledProcessError as error:
            if "deadlock detected" not in error.stderr:
                raise
        else:
            return tries
    raise TimeoutError(f"a deadlock at each of {_TRIES} tries to change the schema")


def main() -> None:
    """Need the later schema, and be `relaygw`."""
    from relaygw.store import migrate

    vars(migrate)["SCHEMA_REVISION"] = LATER
    from relaygw.cli import main as relaygw

    relaygw()


if __name__ == "__main__":
    main()
