"""Why mail and providers are held: a code and a key beside the sentence, which was read before."""

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
OF_PROVIDERS = {
    "operator": r"operator: (.*)",
    "refused_alike": r"(\S*) messages in a row were refused alike: (.*)",
}
HEADER = ("field ", "its header ")
PUT_OFF = "waits for provider "


def cause_of(sentence: str, patterns: dict[str, str]) -> tuple[str, str]:
    for code, pattern in patterns.items():
        match = re.fullmatch(pattern, sentence, re.DOTALL)
        if match is not None:
            return code, " ".join(match.groups())
    return "other", sentence


def upgrade() -> None:
    for table in ("delivery", "hold"):
        op.add_column(table, sa.Column("hold_code", sa.Text))
        op.add_column(table, sa.Column("hold_key", sa.Text))
    code_deliveries()
    code_providers()


def code_deliveries() -> None:
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
        code, key = cause_of(reason, SENTENCES)
        if state == "deferred":
            code, key = "provider_down", reason.removeprefix(PUT_OFF)
        elif code == "other" and reason.startswith(HEADER):
            code = "header"
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


def code_providers() -> None:
    names = ("hold_id", "reason", "hold_code", "hold_key")
    hold = sa.table(
        "hold",
        sa.column("released_at_ms", sa.BigInteger),
        *(sa.column(one, sa.Text) for one in names),
    )
    connection = op.get_bind()
    in_force = sa.select(hold.c.hold_id, hold.c.reason).where(hold.c.released_at_ms.is_(None))
    for hold_id, reason in connection.execute(in_force).all():
        code, key = cause_of(reason, OF_PROVIDERS)
        connection.execute(
            sa.update(hold).where(hold.c.hold_id == hold_id).values(hold_code=code, hold_key=key)
        )
