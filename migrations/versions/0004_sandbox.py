"""Searches, tags and releases of captured mail; logins of the web pages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INDEXES = {
    "message_unread": ["captured_at_ms", "read_at_ms"],
    "message_unindexed": ["captured_at_ms"],
}
_CONDITIONS = {
    "message_unread": sa.text("captured_at_ms IS NOT NULL AND read_at_ms IS NULL"),
    "message_unindexed": sa.text("captured_at_ms IS NOT NULL AND indexed_at_ms IS NULL"),
}
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TEXTS = ("from", "to", "cc", "bcc", "reply_to", "subject", "message_id", "reason")
# detail full: a phrase is found by its positions; store/captured_index.py merges in steps
_FTS = """
    CREATE VIRTUAL TABLE captured_fts USING fts5 (
        search_text, content='', contentless_delete=1, tokenize='trigram case_sensitive 1'
    )
"""
_FTS_OPTIONS = {"automerge": 0, "crisismerge": 1000}
_FTS_SINCE = (3, 43)  # tables without content from which rows can be deleted
_TRIGRAMS = """
    CREATE INDEX captured_text_trigrams ON captured_text USING gin (search_text gin_trgm_ops)
"""


def _create_full_text_on_sqlite(connection: sa.Connection) -> None:
    """Create the table of trigrams if SQLite can; searches read all texts without it."""
    version = str(connection.exec_driver_sql("SELECT sqlite_version()").scalar())
    has_fts = connection.exec_driver_sql(
        "SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'"
    ).scalar()
    if not has_fts or tuple(map(int, version.split("."))) < _FTS_SINCE:
        return
    connection.exec_driver_sql(_FTS)
    for name, value in _FTS_OPTIONS.items():
        connection.exec_driver_sql(
            "INSERT INTO captured_fts (captured_fts, rank) VALUES (?, ?)", (name, value)
        )


def _create_full_text_on_postgres(connection: sa.Connection) -> None:
    """Create the index of trigrams if this user may; searches read all texts without it."""
    # a word that is in every message makes a search read every text: not to be unpacked each time
    connection.exec_driver_sql("ALTER TABLE captured_text ALTER search_text SET STORAGE EXTERNAL")
    connection.exec_driver_sql("ALTER TABLE captured_text SET (toast_tuple_target = 8160)")
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            connection.exec_driver_sql(_TRIGRAMS)
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise


def upgrade() -> None:
    op.add_column("delivery", sa.Column("released", sa.Text))
    op.add_column("message", sa.Column("indexed_at_ms", sa.BigInteger))
    for name, columns in _INDEXES.items():
        op.create_index(
            name,
            "message",
            columns,
            sqlite_where=_CONDITIONS[name],
            postgresql_where=_CONDITIONS[name],
        )
    op.create_table(
        "captured_index",
        sa.Column("index_no", _Number, primary_key=True),
        sa.Column("queue_id", sa.Text, nullable=False),
        sa.Column("captured_at_ms", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("is_unread", sa.Boolean, nullable=False),
        sa.Column("attachments", sa.Integer, nullable=False),
        sa.Column("inlines", sa.Integer, nullable=False),
        *(sa.Column(f"{name}_text", sa.Text, nullable=False) for name in _TEXTS),
        sa.UniqueConstraint("queue_id", name="captured_index_queue_id"),
    )
    op.create_table(
        "captured_text",
        sa.Column("index_no", _Number, primary_key=True, autoincrement=False),
        sa.Column("search_text", sa.Text, nullable=False),
    )
    op.create_table(
        "captured_facts",
        sa.Column("index_no", _Number, primary_key=True, autoincrement=False),
        sa.Column("facts", sa.Text, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        _create_full_text_on_sqlite(op.get_bind())
    else:
        _create_full_text_on_postgres(op.get_bind())
    op.create_table(
        "captured_tag",
        sa.Column("queue_id", sa.Text, primary_key=True),
        sa.Column("tag", sa.Text, primary_key=True),
        sa.Column("tag_key", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("captured_tag_key", "captured_tag", ["tag_key"])
    op.create_table(
        "web_session",
        sa.Column("token_hash", sa.Text, primary_key=True),
        sa.Column("user_name", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    )
