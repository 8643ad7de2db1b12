"""Words of all mail, for searches; lists of mail by a rare outcome."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_OUTCOME = sa.text("state IN ('bounced', 'expired', 'blocked', 'cancelled')")
# the words are made by mail/search.py: letters and digits, in small letters, with blanks between
_FTS = """
    CREATE VIRTUAL TABLE mail_fts USING fts5 (
        search_text, content='', contentless_delete=1, tokenize='ascii'
    )
"""
_FTS_OPTIONS = {"automerge": 0, "crisismerge": 1000}
_FTS_SINCE = (3, 43)  # tables without content from which rows can be deleted
# a short list of what is not in order yet: each search reads all of it
_WORDS_ON_POSTGRES = """
    CREATE INDEX mail_search_words ON mail_search USING gin ((words::tsvector))
    WITH (gin_pending_list_limit = 256)
"""
# Mail that somebody else writes is searchable, too: an older version, or who recovers a queue.
# Outcomes within this time are there when the words of new mail are read, which is later.
_AT_ONCE_MS = 2000
_AFTER_ALL = "Z" * 21  # greater than every queue id, in every order of letters
_LATE = f"""
    NEW.state = 'delivered'
    AND (OLD.reply IS NOT NULL OR NEW.changed_at_ms > OLD.changed_at_ms + {_AT_ONCE_MS})
"""
_ADD_NEW = "INSERT INTO search_todo (queue_id, since_ms)"
_ON_SQLITE = (
    f"""
    CREATE TRIGGER message_search AFTER INSERT ON message BEGIN
        {_ADD_NEW} VALUES (NEW.queue_id, NEW.accepted_at_ms);
    END
    """,
    f"""
    CREATE TRIGGER recipient_search AFTER UPDATE OF state ON recipient WHEN {_LATE} BEGIN
        {_ADD_NEW} VALUES (NEW.queue_id, 0);
    END
    """,
)
_ON_POSTGRES = (
    f"""
    CREATE FUNCTION message_search() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        {_ADD_NEW} SELECT queue_id, accepted_at_ms FROM added;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER message_search AFTER INSERT ON message REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION message_search()
    """,
    f"""
    CREATE FUNCTION recipient_search() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        {_ADD_NEW} VALUES (NEW.queue_id, 0);
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE TRIGGER recipient_search AFTER UPDATE OF state ON recipient
    FOR EACH ROW WHEN ({_LATE}) EXECUTE FUNCTION recipient_search()
    """,
)


def _create_full_text_on_sqlite(connection: sa.Connection) -> None:
    """Create the table of words if SQLite can; searches read the words themselves without it."""
    version = str(connection.exec_driver_sql("SELECT sqlite_version()").scalar())
    has_fts = connection.exec_driver_sql(
        "SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'"
    ).scalar()
    if not has_fts or tuple(map(int, version.split("."))) < _FTS_SINCE:
        return
    connection.exec_driver_sql(_FTS)
    for name, value in _FTS_OPTIONS.items():
        connection.exec_driver_sql(
            "INSERT INTO mail_fts (mail_fts, rank) VALUES (?, ?)", (name, value)
        )


def upgrade() -> None:
    connection = op.get_bind()
    is_postgres = connection.dialect.name == "postgresql"
    op.create_table(
        "mail_search",
        sa.Column("search_no", _Number, primary_key=True),
        sa.Column("queue_id", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.UniqueConstraint("queue_id", name="mail_search_queue_id"),
    )
    op.create_table(
        "search_todo",
        sa.Column("todo_no", _Number, primary_key=True),
        sa.Column("queue_id", sa.Text, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "search_backfill",
        sa.Column("search_no", _Number, primary_key=True),
        sa.Column("before_id", sa.Text, nullable=False),
    )
    if is_postgres:
        connection.exec_driver_sql(_WORDS_ON_POSTGRES)
    else:
        _create_full_text_on_sqlite(connection)
    for statement in _ON_POSTGRES if is_postgres else _ON_SQLITE:
        connection.exec_driver_sql(statement)
    # from now on all that is accepted is in search_todo: what is there now, and nothing else, is
    # looked at from the newest on
    mail = f"SELECT 0, '{_AFTER_ALL}' WHERE EXISTS (SELECT 1 FROM message)"
    connection.exec_driver_sql(f"INSERT INTO search_backfill (search_no, before_id) {mail}")
    has_recipients = connection.exec_driver_sql("SELECT 1 FROM recipient LIMIT 1").first()
    if is_postgres and has_recipients:
        return  # store/migrate.py makes the index beside those who write
    op.create_index(
        "recipient_outcome",
        "recipient",
        ["state", "changed_at_ms", "queue_id"],
        sqlite_where=_OUTCOME,
        postgresql_where=_OUTCOME,
    )
