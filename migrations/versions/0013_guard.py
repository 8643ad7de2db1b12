"""Who sends what, and what is watched for: a function for each subject."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _sources()
    _guard()
    _silence()
    _gateway()
    _digest()
    _storms()


def _text(*names: str, null: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=null) for name in names]


def _numbers(*names: str, null: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer, nullable=null) for name in names]


def _times(*names: str, null: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=null) for name in names]


def _sources() -> None:
    op.create_table(
        "mail_class",
        sa.Column("class_id", sa.Text, primary_key=True),
        *_text("source_id", "host", "listener", "user_name", "script", "sender_domain"),
        *_text("template", "stream"),
        *_times("uid", null=True),
        *_times("first_seen_ms", "last_seen_ms", "messages"),
        sqlite_with_rowid=False,
    )
    op.create_index("mail_class_source", "mail_class", ["source_id"])
    op.create_table(
        "class_hour",
        sa.Column("class_id", sa.Text, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True),
        *_numbers("messages", "recipients", "refused"),
        *_times("gap_ms"),
        sqlite_with_rowid=False,
    )
    op.create_index("class_hour_hour", "class_hour", ["hour"])


def _guard() -> None:
    op.create_table(
        "guard_entry",
        sa.Column("target", sa.Text, primary_key=True),
        *_text("source_id", "action", "label", "reason", "actor"),
        *_times("per_hour", "new_since_ms", null=True),
        *_times("at_ms"),
        sqlite_with_rowid=False,
    )


def _silence() -> None:
    op.create_table(
        "mail_kind",
        sa.Column("kind_id", sa.Text, primary_key=True),
        *_text("sender_domain", "stream"),
        *_text("template", null=True),
        *_times("first_seen_ms", "last_seen_ms", "messages"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "kind_hour",
        sa.Column("kind_id", sa.Text, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True),
        *_numbers("messages"),
        *_times("gap_ms"),
        sqlite_with_rowid=False,
    )
    op.create_index("kind_hour_hour", "kind_hour", ["hour"])


def _gateway() -> None:
    op.create_table(
        "home",
        sa.Column("name", sa.Text, primary_key=True),
        *_text("mark", "hostname"),
        *_times("since_ms"),
        sqlite_with_rowid=False,
    )
    keys = {"token_use": ("token", "kind", "value"), "throttled": ("listener", "client", "cause")}
    for name, key in keys.items():
        more = ("times",) if name == "throttled" else ()
        op.create_table(
            name,
            *(sa.Column(one, sa.Text, primary_key=True) for one in key),
            *_times("first_seen_ms", "last_seen_ms", *more),
            sqlite_with_rowid=False,
        )


def _digest() -> None:
    op.create_table(
        "digest",
        sa.Column("way", sa.Text, primary_key=True),
        *_times("until_ms", "again_at_ms"),
        *_numbers("tries"),
        sqlite_with_rowid=False,
    )


def _storms() -> None:
    op.create_table(
        "storm",
        sa.Column("storm_id", sa.Text, primary_key=True),
        sa.Column("slice_at_ms", sa.BigInteger, primary_key=True),
        sa.Column("front", sa.Text, primary_key=True),
        *_numbers("messages", "held", "same_ids"),
        *_text("host", "script", "template", "recipient_domain", "first_id", "last_id"),
        *_times("first_ms"),
        sqlite_with_rowid=False,
    )
    op.create_index("storm_slice", "storm", ["slice_at_ms"])
    op.create_table(
        "repeated_mail",
        sa.Column("queue_id", sa.Text, primary_key=True),
        *_numbers("number"),
        *_text("first_id"),
        *_text("earlier_id", null=True),
        *_numbers("again"),
        *_times("again_ms", null=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "recent_mail",
        sa.Column("mail_key", sa.Text, primary_key=True),
        *_text("queue_id"),
        *_times("at_ms"),
        sqlite_with_rowid=False,
    )
    op.create_index("recent_mail_at", "recent_mail", ["at_ms"])
