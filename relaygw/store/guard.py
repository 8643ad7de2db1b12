"""What the guard goes by: what is held or allowed, and counts and mail of sources."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.errors import InvalidAddress
from relaygw.mail.clock import DAY_MS, HOUR_MS
from relaygw.mail.hold import HoldCode, sender_domain
from relaygw.mail.mail_class import (
    LOCAL_HOST,
    OTHER_SCRIPTS,
    OTHER_SUBJECTS,
    MailClass,
    MailSource,
    short_text,
    shown_source,
)
from relaygw.mail.queue_id import first_id_at
from relaygw.mail.state import CLAIMABLE, DeliveryState
from relaygw.mail.subject_template import subject_template
from relaygw.mail.words import printable
from relaygw.policy.mail_counts import HourCount, program_of
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.database import Repository, Statement, Transaction, insert_into
from relaygw.store.held_causes import is_held_for, is_lifted
from relaygw.store.queue_tables import HAS_RARE_OUTCOME, IS_OPEN, delivery, message, recipient
from relaygw.store.side_tables import class_hour, guard_entry, mail_class
from relaygw.store.sources import SeenClass, seen_class

_WAITING = [state.value for state in CLAIMABLE | {DeliveryState.HELD}]
_PROMOTIONAL = "promotional"
_ENTRY = "target source_id action label reason actor per_hour new_since_ms at_ms"
_PUT = insert_into("guard_entry", _ENTRY, on_conflict="DO NOTHING")
# each front and each watch asks so every few seconds, as long as nothing happens
_ENTRIES = Statement(
    f"SELECT {_ENTRY.replace(' ', ', ')} FROM guard_entry ORDER BY at_ms DESC, target"
)
_SOURCE_SUMS = Statement(
    """
    SELECT mail_class.source_id, sum(class_hour.messages), sum(class_hour.recipients),
        sum(class_hour.refused)
    FROM mail_class JOIN class_hour ON class_hour.class_id = mail_class.class_id
    WHERE class_hour.hour >= {?}
    GROUP BY mail_class.source_id
    """
)
_COUNTING_SINCE = Statement("SELECT min(first_seen_ms) FROM mail_class")
_SOURCE_NAMES = """message.source_host, message.source_client, message.source_listener,
    message.source_user, message.source_uid, message.source_script"""
_BOUNCED = Statement(
    f"""
    SELECT {_SOURCE_NAMES}, count(*)
    FROM recipient JOIN message ON message.queue_id = recipient.queue_id
    WHERE {HAS_RARE_OUTCOME} AND recipient.state = 'bounced' AND recipient.changed_at_ms >= {{?}}
    GROUP BY {_SOURCE_NAMES}
    """
)
_SOURCE = (
    *(message.c.source_host, message.c.source_client, message.c.source_listener),
    *(message.c.source_user, message.c.source_uid, message.c.source_script),
)
_LOOKED_AT = 500  # messages
GUARD = "guard"
"""The actor of what the guard does by itself."""


class GuardAction(StrEnum):
    """What happens to mail of a source or class."""

    HOLD = "hold"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardEntry:
    """A source or class of mail that is held, or may send more than others."""

    target: str  # the id of a class, or of a source
    source_id: str
    action: GuardAction
    label: str  # what it is, for people
    reason: str
    actor: str
    at_ms: int
    per_hour: int | None = None  # what may come; of ALLOW
    new_since_ms: int | None = None  # only transactional classes that were first seen since then


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldMailScope:
    """What an entry holds."""

    target: str
    source_id: str
    reason: str
    is_of_new: bool  # of templates that are new, of the transactional stream
    excepted: frozenset[str]  # classes of the source
    at_ms: int  # since then, by the database's clock
    known_mail: frozenset[tuple[str, str]]  # sender's domain and template: excepted as well

    def holds_mail(self, mail: MailClass) -> bool:
        """Return whether mail of a class is held."""
        if self.target != self.source_id:
            return mail.class_id == self.target
        if mail.source_id != self.source_id or mail.class_id in self.excepted:
            return False
        if (mail.sender_domain, mail.template) in self.known_mail:
            return False
        return not self.is_of_new or mail.stream != _PROMOTIONAL


class MailSender(NamedTuple):
    """A source that sent some mail, the program that it is, and for how long."""

    source_id: str
    program: str
    first_ms: int
    last_ms: int
    class_id: str


class Guards(Repository):
    """Entries of the guard, and what it looks at."""

    def guard_entries(self) -> list[GuardEntry]:
        """Return the entries, the latest first."""
        with self._read() as tx:
            return [_entry(tx, row) for row in _ENTRIES.fetch_named(tx)]

    def put_guard_entry(
        self, new: GuardEntry, *, entry: AuditEntry, is_renewing: bool = False
    ) -> bool:
        """Add an entry, audited; False where its target has one, unless that is renewed."""
        with self._write() as tx:
            if is_renewing:
                tx.execute(delete(guard_entry).where(guard_entry.c.target == new.target))
            times = (tx.to_stored(new.new_since_ms), tx.to_stored(new.at_ms))
            what = (new.target, new.source_id, new.action.value, new.label, new.reason)
            if not _PUT.run(tx, [(*what, new.actor, new.per_hour, *times)]):
                return False
            add_audit(tx, entry, 1)
            return True

    def drop_guard_entry(self, target: str, *, entry: AuditEntry) -> bool:
        """Remove an entry, audited; False if there was none."""
        with self._write() as tx:
            gone = tx.execute(delete(guard_entry).where(guard_entry.c.target == target)).rowcount
            if gone:
                add_audit(tx, entry, 1)
            return bool(gone)

    def held_scopes(self) -> list[HeldMailScope]:
        """Return the entries that hold, classes before sources."""
        with self._read() as tx:
            entries = _ENTRIES.fetch_named(tx)
            allowed = {entry.target for entry in entries if entry.action == GuardAction.ALLOW}
            held = [entry for entry in entries if entry.action == GuardAction.HOLD]
            held.sort(key=lambda row: row.target == row.source_id)
            return [_scope(tx, row, allowed) for row in held]

    def scope_of(self, wanted: GuardEntry) -> HeldMailScope:
        """Return the scope of an entry that is not stored yet."""
        is_allowed = guard_entry.c.action == GuardAction.ALLOW.value
        stored = {name: getattr(wanted, name) for name in ("at_ms", "new_since_ms")}
        with self._read() as tx:
            allowed = set(tx.execute(select(guard_entry.c.target).where(is_allowed)).scalars())
            times = {name: tx.to_stored(at_ms) for name, at_ms in stored.items()}
            return _scope(tx, replace(wanted, **times), allowed)

    # --- counts --------------------------------------------------------------------------

    def counting_since_ms(self) -> int | None:
        """Return when the first mail was counted that is still known; None without any."""
        with self._read() as tx:
            first_ms: int | None = _COUNTING_SINCE.fetch(tx)[0][0]
            return tx.to_local(first_ms)

    def source_sums(self, since_ms: int) -> dict[str, HourCount]:
        """Return the mail accepted since the hour of a time, by source."""
        with self._read() as tx:
            rows = _SOURCE_SUMS.fetch(tx, tx.to_stored(since_ms) // HOUR_MS)
            return {source_id: HourCount(*map(int, counts)) for source_id, *counts in rows}

    def busiest_hour(self, source_id: str, until_ms: int) -> int:
        """Return how much a source sent in its busiest hour before the hour of a time."""
        is_its = class_hour.c.class_id == mail_class.c.class_id
        with self._read() as tx:
            hours = (
                select(func.sum(class_hour.c.messages).label("messages"))
                .join(mail_class, is_its)
                .where(mail_class.c.source_id == source_id)
                .where(class_hour.c.hour < tx.to_stored(until_ms) // HOUR_MS)
                .group_by(class_hour.c.hour)
                .subquery()
            )
            return int(tx.execute(select(func.max(hours.c.messages))).scalar() or 0)

    def known_mail(self, before_ms: int) -> dict[tuple[str, str], list[MailSender]]:
        """Return who sent mail first before a time, by sender's domain and template."""
        names = ("sender_domain", "template", "source_id", "user_name", "uid", "script")
        seen = mail_class.c["first_seen_ms", "last_seen_ms", "class_id"]
        query = select(*mail_class.c[names], *seen).where(mail_class.c.template != OTHER_SUBJECTS)
        found: dict[tuple[str, str], list[MailSender]] = defaultdict(list)
        with self._read() as tx:
            is_older = mail_class.c.first_seen_ms < tx.to_stored(before_ms)
            for domain, template, source_id, *program, first_ms, last_ms, class_id in tx.execute(
                query.where(is_older)
            ):
                times = tx.to_local(first_ms), tx.to_local(last_ms)
                sender = MailSender(source_id, program_of(*program), *times, class_id)
                found[domain, template].append(sender)
        return dict(found)

    def classes_of(self, ids: Collection[str]) -> list[SeenClass]:
        """Return the classes with these ids, or of sources with these ids."""
        is_it = or_(mail_class.c.source_id.in_(ids), mail_class.c.class_id.in_(ids))
        query = select(mail_class).where(is_it).order_by(mail_class.c.messages.desc())
        with self._read() as tx:
            return [seen_class(tx, row) for row in tx.execute(query)]

    # --- mail ----------------------------------------------------------------------------

    def bounced_since(self, since_ms: int) -> Counter[str]:
        """Count the recipients that bounced since a time, by source."""
        found: Counter[str] = Counter()
        with self._read() as tx:
            for *source, number in _BOUNCED.fetch(tx, tx.to_stored(since_ms)):
                found[_class_of(source, "", "", "").source_id] += number
        return found

    def waiting_of(
        self, scope: HeldMailScope, source: MailSource, *, is_any: bool = False, after: str = ""
    ) -> tuple[list[str], str]:
        """Return messages behind an id that wait and a scope covers, and where to go on, or "".

        Whatever else holds them. None that is held for it, or that somebody released from it,
        unless it is any.
        """
        is_new = ~is_held_for(HoldCode.GUARD, scope.target)
        if not is_any:
            is_new &= ~is_lifted(HoldCode.GUARD, scope.target, scope.at_ms)
        waits = (delivery.c.state.in_(_WAITING), is_new)
        with self._read() as tx:
            return _covered(tx, scope.holds_mail, source, waits, after)

    def held_of(self, mail: MailClass, *, after: str = "") -> tuple[list[str], str]:
        """Return messages of a class that are held for its source, and where to go on, or ""."""
        is_held = (
            delivery.c.state == DeliveryState.HELD.value,
            is_held_for(HoldCode.GUARD, mail.source_id),
        )
        with self._read() as tx:
            return _covered(tx, mail.__eq__, mail.source, is_held, after)

    def recipient_domains(
        self, source: MailSource, class_ids: Collection[str], *, since_ms: int
    ) -> list[str]:
        """Return domains that mail of these classes went to since a time, the most usual first."""
        query = (
            select(message.c.queue_id, message.c.sender, message.c.subject, delivery.c.stream)
            .add_columns(*_SOURCE)
            .join(delivery, delivery.c.queue_id == message.c.queue_id)
            .where(message.c.queue_id >= first_id_at(since_ms))
            .where(*_is_of(source))
            .order_by(message.c.queue_id.desc())
            .limit(_LOOKED_AT)
        )
        with self._read() as tx:
            found = [
                (queue_id, _class_of(parts, sender, subject, stream))
                for queue_id, sender, subject, stream, *parts in tx.execute(query)
            ]
            is_of_all = source[4] == OTHER_SCRIPTS
            own = [
                (queue_id, mail)
                for queue_id, mail in found
                if mail.source == source or (is_of_all and mail.source[:4] == source[:4])
            ]
            wanted = [queue_id for queue_id, mail in own if mail.class_id in class_ids]
            ids = wanted or [queue_id for queue_id, _ in own]  # which are counted as one class
            addresses = select(recipient.c.address).where(recipient.c.queue_id.in_(ids))
            domains = Counter(
                _domain_of(address) for (address,) in tx.execute(addresses.limit(_LOOKED_AT))
            )
        return [printable(domain[:100]) for domain, _ in domains.most_common()]


def _entry(tx: Transaction, row: Any) -> GuardEntry:
    action = GuardAction(row.action)
    return tx.entry(GuardEntry, row, "at_ms", "new_since_ms", action=action)


def _scope(tx: Transaction, held: Any, allowed: Collection[str]) -> HeldMailScope:
    return HeldMailScope(
        target=held.target,
        source_id=held.source_id,
        reason=held.reason,
        at_ms=held.at_ms,
        is_of_new=held.new_since_ms is not None,
        excepted=frozenset({*allowed, *_older_classes(tx, held)}),
        known_mail=_known_mail(tx, held),
    )


def _older_classes(tx: Transaction, held: Any) -> Iterator[str]:
    """Yield the classes of a source that are not new: they flow on."""
    if held.new_since_ms is not None:
        query: Select[Any] = select(mail_class.c.class_id)
        is_old = mail_class.c.first_seen_ms < held.new_since_ms
        yield from tx.execute(
            query.where(mail_class.c.source_id == held.source_id, is_old)
        ).scalars()


def _domain_of(recipient: str) -> str:
    """Return the domain of a stored recipient; "" of one that was captured as no address."""
    try:
        return sender_domain(recipient)
    except InvalidAddress:
        return ""


def _known_mail(tx: Transaction, held: Any) -> frozenset[tuple[str, str]]:
    """Return the mail that other sources had sent for a day when the guard held this one."""
    if held.target != held.source_id or (held.actor != GUARD and held.new_since_ms is None):
        return frozenset()
    first_ms = func.min(mail_class.c.first_seen_ms)
    rows = tx.execute(
        select(mail_class.c.sender_domain, mail_class.c.template)
        .group_by(mail_class.c.sender_domain, mail_class.c.template)
        .having(func.max(mail_class.c.last_seen_ms) - first_ms >= DAY_MS)
        .having(first_ms < held.at_ms - DAY_MS)
        .where(mail_class.c.source_id != held.source_id, mail_class.c.template != OTHER_SUBJECTS)
    )
    return frozenset((domain, template) for domain, template in rows)


def _class_of(source: Sequence[Any], sender: str, subject: str, stream: str) -> MailClass:
    """Return the class of stored mail, as the front says it; see inbound.sources."""
    host, client, listener, user, uid, script = source
    parts = (host or client or LOCAL_HOST, listener or "", user or "", uid, script or "")
    return MailClass.of(
        shown_source(parts),
        sender_domain=short_text(sender_domain(sender)),
        template=printable(subject_template(subject)),
        stream=stream,
    )


def _is_of(source: MailSource) -> Iterator[ColumnElement[bool]]:
    """Yield what holds of mail of a source; `_class_of` says whether it is."""
    *_, uid, script = source
    is_as_written = script.isascii() and "?" not in script and script != OTHER_SCRIPTS
    yield message.c.source_uid.is_(None) if uid is None else message.c.source_uid == uid
    if not script:
        yield or_(message.c.source_script.is_(None), message.c.source_script == "")
    elif is_as_written:
        yield message.c.source_script.startswith(script, autoescape=True)


def _covered(
    tx: Transaction,
    covers: Callable[[MailClass], bool],
    source: MailSource,
    conditions: Iterable[ColumnElement[bool]],
    after: str,
) -> tuple[list[str], str]:
    query = (
        select(message.c.queue_id, message.c.sender, message.c.subject, delivery.c.stream)
        .add_columns(*_SOURCE)
        .join(delivery, delivery.c.queue_id == message.c.queue_id)
        .where(IS_OPEN, delivery.c.queue_id > after, *conditions)
        .where(*_is_of(source))
        .order_by(delivery.c.queue_id)
        .limit(_LOOKED_AT)
    )
    rows = tx.execute(query).all()
    found = [
        queue_id
        for queue_id, sender, subject, stream, *parts in rows
        if covers(_class_of(parts, sender, subject, stream))
    ]
    return list(dict.fromkeys(found)), rows[-1].queue_id if len(rows) == _LOOKED_AT else ""
