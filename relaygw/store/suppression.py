"""Suppressed addresses: looked up at each claim, written by verdicts, refusals and operators.

Whatever suppresses an address does so in the transaction of what it came of; from its commit on no
claim of any instance misses it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from relaygw.mail.address import mailbox
from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, Recipient
from relaygw.mail.suppression import (
    ANY,
    CAUSE_OF,
    PROMOTIONAL,
    Action,
    Cause,
    Suppression,
    SuppressionRules,
    domain_of,
    merged,
)
from relaygw.mail.verdict import BOUNCE_MAIL, Kind
from relaygw.mail.words import printable
from relaygw.store.database import BatchStatement, Row, Transaction, insert_into
from relaygw.store.reports import NewVerdict
from relaygw.store.rules import StoreRules

MAX_DETAIL = 300  # characters of what a provider said
SuppressionKey = tuple[str, str, str]
NAMES = (
    *("address", "sender_domain", "stream", "cause", "source", "detail", "queue_id"),
    *("created_at_ms", "expires_at_ms"),
)
_COLUMNS = ", ".join(f"suppression.{name}" for name in NAMES)
_LISTED = BatchStatement(
    f"""
    SELECT {_COLUMNS} FROM (VALUES {{rows}}) AS v
    JOIN suppression ON suppression.address = v.column1
        AND suppression.sender_domain IN ('', v.column2)
    WHERE suppression.expires_at_ms IS NULL OR suppression.expires_at_ms > {{?}}
    """,
    columns=2,
)
_TOLD = BatchStatement(
    f"""
    SELECT attempt.queue_id, attempt.rcpt_no FROM (VALUES {{rows}}) AS v
    JOIN attempt ON attempt.queue_id = v.column1 AND attempt.rcpt_no = v.column2
    WHERE attempt.state = '{AttemptState.WARNED.value}'
    """,
    columns=2,
)
_EXISTING = BatchStatement(
    f"""
    SELECT {_COLUMNS} FROM suppression
    WHERE (address, sender_domain, stream) IN (VALUES {{rows}})
    ORDER BY address, sender_domain, stream {{for_update}}
    """,
    columns=3,
)
_PUT = insert_into(
    "suppression",
    " ".join(NAMES),
    on_conflict="(address, sender_domain, stream) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in NAMES[3:]),
)
_ADD_REFUSALS = insert_into(
    "refusal", "address sender_domain queue_id refused_at_ms", on_conflict="DO NOTHING"
)
_FORGET_OLD_REFUSALS = BatchStatement(
    """
    DELETE FROM refusal WHERE (address, sender_domain) IN (VALUES {rows}) AND refused_at_ms < {?}
    """,
    columns=2,
)
_REFUSALS = BatchStatement(
    """
    SELECT address, sender_domain, queue_id FROM refusal
    WHERE (address, sender_domain) IN (VALUES {rows})
    """,
    columns=2,
)
_BOUNCED = BatchStatement(
    """
    SELECT recipient.queue_id, recipient.rcpt_no, message.sender, recipient.address,
        recipient.provider, recipient.reply
    FROM (VALUES {rows}) AS v
    JOIN recipient ON recipient.queue_id = v.column1 AND recipient.rcpt_no = v.column2
    JOIN message ON message.queue_id = v.column1
    WHERE recipient.state = 'bounced' AND recipient.changed_at_ms = {?}
    """,
    columns=2,
)
_SENDERS = BatchStatement(
    "SELECT queue_id, sender FROM message WHERE queue_id IN (VALUES {rows})", columns=1
)


def of_row(row: Row) -> Suppression:
    """Return a row of all columns."""
    values = dict(zip(NAMES, row, strict=True))
    return Suppression(**{**values, "cause": Cause(values["cause"])})


def local(tx: Transaction, suppression: Suppression) -> Suppression:
    """Return an entry of the database by the caller's clock."""
    if not tx.ahead_ms:
        return suppression
    ends_ms = tx.to_local(suppression.expires_at_ms)
    return replace(
        suppression, created_at_ms=tx.to_local(suppression.created_at_ms), expires_at_ms=ends_ms
    )


def stored(tx: Transaction, suppression: Suppression) -> Suppression:
    """Return an entry of a caller by the database's clock."""
    ends_ms = tx.to_stored(suppression.expires_at_ms)
    return replace(
        suppression, created_at_ms=tx.to_stored(suppression.created_at_ms), expires_at_ms=ends_ms
    )


def put(tx: Transaction, entries: Iterable[Suppression]) -> None:
    """Write entries over whatever was known of the same address."""
    rows = [
        tuple(entry.cause.value if name == "cause" else getattr(entry, name) for name in NAMES)
        for entry in sorted(
            entries, key=lambda entry: entry.key
        )  # two who write wait for each other
    ]
    _PUT.run(tx, rows)


def join(tx: Transaction, entries: Sequence[Suppression], now_ms: int) -> list[Suppression]:
    """Add entries to what is known; return what is new or has changed."""
    return [new for old, new in joined(tx, entries, now_ms) if new != old]


def joined(
    tx: Transaction, entries: Sequence[Suppression], now_ms: int
) -> list[tuple[Suppression | None, Suppression]]:
    """Add entries to what is known; return what was there before, and what is now."""
    if not entries:
        return []
    wanted: dict[SuppressionKey, Suppression] = {}
    for entry in entries:
        wanted[entry.key] = merged(wanted.get(entry.key), entry, now_ms=now_ms)
    known = {
        suppression.key: suppression
        for suppression in map(of_row, _EXISTING.fetch(tx, sorted(wanted)))
    }
    results = [
        (known.get(key), merged(known.get(key), suppression, now_ms=now_ms))
        for key, suppression in wanted.items()
    ]
    put(tx, [new for old, new in results if new != old])
    return results


# --- looked up at a claim ------------------------------------------------------------------


def with_suppressions(
    tx: Transaction, claimed: Sequence[ClaimedDelivery], rules: SuppressionRules, *, now_ms: int
) -> list[ClaimedDelivery]:
    """Return deliveries with what holds for their recipients; one statement for 50 of these."""
    pairs = {
        (mailbox(who.address), domain_of(delivery.sender))
        for delivery in claimed
        for who in delivery.recipients
    }
    known: dict[str, list[Suppression]] = defaultdict(list)
    for row in _LISTED.fetch(tx, list(pairs), now_ms):
        known[row[0]].append(local(tx, of_row(row)))
    if not known:
        return [_cleared(delivery) for delivery in claimed]
    found = [_with_known(delivery, known, rules) for delivery in claimed]
    return _with_told(tx, found)


def _cleared(delivery: ClaimedDelivery) -> ClaimedDelivery:
    if not any(who.listed for who in delivery.recipients):
        return delivery
    return replace(
        delivery, recipients=tuple(replace(who, listed=None) for who in delivery.recipients)
    )


def _with_known(
    claimed: ClaimedDelivery, known: dict[str, list[Suppression]], rules: SuppressionRules
) -> ClaimedDelivery:
    domain = domain_of(claimed.sender)

    def look(who: Recipient) -> Recipient:
        entries = known.get(mailbox(who.address), ())
        mine = (entry for entry in entries if entry.sender_domain in (ANY, domain))
        listed = rules.listed(mine, claimed.stream)
        return who if listed is who.listed else replace(who, listed=listed)

    return replace(claimed, recipients=tuple(map(look, claimed.recipients)))


def _with_told(tx: Transaction, claimed: list[ClaimedDelivery]) -> list[ClaimedDelivery]:
    """Note of whom the log and the story have a warning already."""
    warned = [
        (delivery.queue_id, who.rcpt_no)
        for delivery in claimed
        for who in delivery.recipients
        if who.listed is not None and who.listed.action is Action.WARN
    ]
    told = set(_TOLD.fetch(tx, warned))
    if not told:
        return claimed

    def note(queue_id: str, who: Recipient) -> Recipient:
        if who.listed is None or (queue_id, who.rcpt_no) not in told:
            return who
        return replace(who, listed=who.listed._replace(is_told=True))

    return [
        replace(
            delivery, recipients=tuple(note(delivery.queue_id, who) for who in delivery.recipients)
        )
        for delivery in claimed
    ]


# --- written beside verdicts and outcomes --------------------------------------------------


def note_verdicts(
    tx: Transaction, verdicts: Sequence[NewVerdict], rules: StoreRules
) -> list[Suppression]:
    """Suppress whom hard bounces, complaints and unsubscribes are about; return what is new.

    What may be about others suppresses nobody: many providers hide who complained, and who got a
    mail can write a bounce mail in the name of its other recipients.
    """
    telling = [
        verdict
        for verdict in verdicts
        if verdict.kind in CAUSE_OF
        and not _may_be_about_others(verdict)
        and mailbox(verdict.address) != rules.suppression.spared
    ]
    if not telling or not rules.suppression.is_on:
        return []
    senders: dict[str, str] = dict(
        _SENDERS.fetch(tx, sorted({(new_verdict.queue_id,) for new_verdict in telling}))
    )
    now_ms = tx.now_ms()
    entries = [
        _of_verdict(new_verdict, senders[new_verdict.queue_id], rules.suppression, now_ms)
        for new_verdict in telling
        if new_verdict.queue_id in senders
    ]
    return [local(tx, suppression) for suppression in join(tx, entries, now_ms)]


def _may_be_about_others(verdict: NewVerdict) -> bool:
    is_vague = verdict.kind is Kind.COMPLAINED or verdict.provider == BOUNCE_MAIL
    return is_vague and verdict.others > 0


def _of_verdict(
    verdict: NewVerdict, sender: str, rules: SuppressionRules, now_ms: int
) -> Suppression:
    cause = CAUSE_OF[verdict.kind]
    return Suppression(
        address=mailbox(verdict.address),
        sender_domain=domain_of(sender),
        stream=PROMOTIONAL if cause is Cause.UNSUBSCRIBE else ANY,
        cause=cause,
        source=verdict.provider,
        detail=_said(verdict.dsn, verdict.detail),
        queue_id=verdict.queue_id,
        created_at_ms=now_ms,
        expires_at_ms=rules.expiry(cause, now_ms),
    )


def _said(dsn: str | None, detail: str) -> str:
    words = printable(" ".join(detail.split()))[:MAX_DETAIL]
    return words if not dsn or dsn in words else f"{dsn} {words}".strip()


def note_refusals(
    tx: Transaction, updates: Sequence[DeliveryUpdate], rules: SuppressionRules, now_ms: int
) -> list[Suppression]:
    """Note recipients that SMTP refused as dead addresses; the second message suppresses one.

    After the outcomes were written, in their transaction; those that were not leave nothing.
    """
    refused = [
        (entry.queue_id, recipient.rcpt_no)
        for entry in updates
        for recipient in entry.recipients
        if recipient.is_dead_address
    ]
    if not refused or not rules.is_on:
        return []
    told: dict[tuple[str, str], dict[str, tuple[str, str]]] = defaultdict(dict)
    bounced = sorted(_BOUNCED.fetch(tx, refused, now_ms))
    for queue_id, _, sender, address, provider, reply in bounced:
        if mailbox(address) != rules.spared:
            told[mailbox(address), domain_of(sender)].setdefault(queue_id, (provider, reply))
    keys = sorted(told)
    if rules.expire_ms is not None:
        _FORGET_OLD_REFUSALS.run(tx, keys, now_ms - rules.expire_ms)
    _ADD_REFUSALS.run(tx, [(*key, min(told[key]), now_ms) for key in keys])
    first = {(address, domain): queue_id for address, domain, queue_id in _REFUSALS.fetch(tx, keys)}
    entries = []
    for address, domain in keys:
        second = [
            refused_id
            for refused_id in told[address, domain]
            if refused_id != first.get((address, domain))
        ]
        if second:
            provider, reply = told[address, domain][second[-1]]
            entry = Suppression(
                address=address,
                sender_domain=domain,
                cause=Cause.REFUSED,
                source=provider or "",
                detail=_said(None, reply or ""),
                queue_id=second[-1],
                created_at_ms=now_ms,
                expires_at_ms=rules.expiry(Cause.REFUSED, now_ms),
            )
            entries.append(entry)
    return [local(tx, suppression) for suppression in join(tx, entries, now_ms)]
