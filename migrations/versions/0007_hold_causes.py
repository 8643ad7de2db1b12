"""Why a delivery is held: a code and a key beside the sentence, which had to be read before."""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SENTENCES = {
    "mode": "mode",
    "poison": "poison",
    "in_doubt": "in_doubt",
    "recovered": "recovered",
    "sender_refused": r"sender domain (\S*) is refused by (.*)",
    "no_sender": r"no provider of route (\S*) may send as (.*)",
    "over_quota": r"no daily_quota of route (\S*) covers its (.*) recipients",
    "needs_8bitmime": r"needs 8BITMIME, which no provider of route (\S*) has for it: (.*)",
    "lost_provider": r"in doubt with (\S*), which route (.*) has no more",
    "operator": r"operator: (.*)",
}
HEADER = ("field ", "its header ")
PUT_OFF = "waits for provider "


def cause_of(sentence: str) -> tuple[str, str]:
    for code, pattern in SENTENCES.items():
        match = re.fullmatch(pattern, sentence, re.DOTALL)
        if match is not None:
            return code, " ".join(match.groups())
    return "header" if sentence.startswith(HEADER) else "other", sentence


def upgrade() -> None:
    op.add_column("delivery", sa.Column("hold_code", sa.Text))
    op.add_column("delivery", sa.Column("hold_key", sa.Text))
    names = ("queue_id", "state", "reason", "hold_code", "hold_key")
    delivery = sa.table(
        "delivery",
        sa.column("delivery_no", sa.Integer),
        *(sa.column(one, sa.Text) for one in names),
    )
    has_cause = sa.or_(
        # held, or held before it was put into the trash
        delivery.c.state.in_(["held", "deleted"]),
        sa.and_(delivery.c.state == "deferred", delivery.c.reason.startswith(PUT_OFF)),
    )
    connection = op.get_bind()
    found = connection.execute(
        sa.select(delivery.c.queue_id, delivery.c.delivery_no, delivery.c.state, delivery.c.reason)
        .where(has_cause, delivery.c.reason.is_not(None))
        .order_by(delivery.c.queue_id, delivery.c.delivery_no)
    ).all()
    changes = []
    for queue_id, number, state, reason in found:
        code, key = cause_of(reason)
        if state == "deferred":
            code, key = "provider_down", reason.removeprefix(PUT_OFF)
        changes.append({"id": queue_id, "number": number, "code": code, "key": key})
    if changes:
        connection.execute(
            sa.update(delivery)
            .where(
                delivery.c.queue_id == sa.bindparam("id"),
                delivery.c.delivery_no == sa.bindparam("number"),
            )
            .values(hold_code=sa.bindparam("code"), hold_key=sa.bindparam("key")),
            changes,
        )


def downgrade() -> None:
    op.drop_column("delivery", "hold_key")
    op.drop_column("delivery", "hold_code")
