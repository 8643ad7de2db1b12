"""Which mail, and which recipient of it, a provider's event is about.

Our own mark names the mail. Without one it is found by the provider's id, which its reply told, or
by the Message-ID: among the words of all mail, so some seconds after it was sent.

Either way a provider is believed only about recipients whom it, or another of its service, was sent
mail for. While a worker has a mail in hand nobody knows yet to whom it goes: its events wait.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from relaygw.errors import InvalidAddress
from relaygw.mail.address import folded
from relaygw.mail.reply import provider_id
from relaygw.mail.search_words import split_words
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.database import BatchStatement, Statement, Transaction
from relaygw.store.find_index import FULL_TEXT

_MOST = 20  # messages that have the words of an id, the newest; more than one is rare
_LEAST_ID = 10  # letters and digits of what is an id: what is shorter is in much mail
_IN_SQLITE = Statement(
    """
    SELECT mail_search.queue_id FROM mail_fts
    JOIN mail_search ON mail_search.search_no = mail_fts.rowid
    WHERE mail_fts MATCH {?} ORDER BY mail_fts.rowid DESC LIMIT {?}
    """
)
# a sum, so that nobody goes through all rows in the order of their numbers
_IN_POSTGRES = Statement(
    """
    SELECT queue_id FROM mail_search
    WHERE words::tsvector @@ CAST({?} AS tsquery) AND position({?} IN words) > 0
    ORDER BY search_no + 0 DESC LIMIT {?}
    """
)
_RECIPIENTS = BatchStatement(
    """
    SELECT recipient.queue_id, recipient.rcpt_no, recipient.address, recipient.provider,
        recipient.reply, recipient.state, delivery.state, delivery.provider,
        delivery.doubts > 0 OR delivery.reclaims > 0
    FROM recipient LEFT JOIN delivery ON delivery.queue_id = recipient.queue_id
        AND delivery.delivery_no = recipient.delivery_no
    WHERE recipient.queue_id IN (VALUES {rows}) ORDER BY recipient.queue_id, recipient.rcpt_no
    """,
    columns=1,
)
_DOUBTED = BatchStatement(
    """
    SELECT recipient.queue_id, recipient.rcpt_no, attempt.provider
    FROM recipient JOIN attempt ON attempt.queue_id = recipient.queue_id
        AND (attempt.rcpt_no = recipient.rcpt_no
            OR (attempt.rcpt_no IS NULL AND attempt.delivery_no = recipient.delivery_no))
    WHERE recipient.queue_id IN (VALUES {rows}) AND attempt.state IN ('in doubt', 'interrupted')
    """,
    columns=1,
)
_MESSAGE_IDS = BatchStatement(
    "SELECT queue_id, message_id FROM message WHERE queue_id IN (VALUES {rows})", columns=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """What an event tells of its mail."""

    queue_id: str | None = None  # by our own mark
    provider_id: str | None = None
    message_id: str | None = None  # without angle brackets
    address: str | None = None
    providers: frozenset[str] = frozenset()  # whose mail it may be
    was_sent: bool = False  # only recipients whom a provider took it for
    archive: str | None = None  # our own, which is a recipient of all mail: nobody there lies


class Found(NamedTuple):
    """The mail of an event, and its recipients: several where one address stands several times."""

    queue_id: str | None = None
    rcpt_nos: tuple[int, ...] = ()
    may_come: bool = False  # a worker has it in hand: soon it is known who was sent it
    is_shared: bool = False  # others have the mail, too, or one that is named alike


class _Person(NamedTuple):
    rcpt_no: int
    address: str
    provider: str | None
    reply: str | None
    state: str
    stage: str | None  # of its delivery
    last_provider: str | None  # that its delivery was tried at
    is_doubted: bool | None
    doubted_at: frozenset[str | None] = frozenset()

    @property
    def is_in_hand(self) -> bool:
        """True while its outcome may be about to be written."""
        return self.state == RecipientState.PENDING and self.stage == DeliveryState.ACTIVE

    def may_be_with(self, providers: frozenset[str]) -> bool:
        """True when one of these was sent its mail, or may have been."""
        if self.state == RecipientState.CAPTURED:
            return False
        tried_at = {self.provider, *self.doubted_at}
        if self.state == RecipientState.PENDING and self.is_doubted:
            tried_at.add(self.last_provider)
            if tried_at == {None}:  # nobody knows at whom
                return True
        return not tried_at.isdisjoint(providers)


def find_mail(tx: Transaction, clues: Sequence[Clue]) -> list[Found]:
    """Return the mail of each event."""
    marked = {clue.queue_id for clue in clues if clue.queue_id is not None}
    people = _with_doubts(tx, _people(tx, marked))
    found = [
        _by_mark(clue, clue.queue_id, people[clue.queue_id]) if clue.queue_id in people else Found()
        for clue in clues
    ]
    return [
        mail if mail.queue_id is not None or mail.may_come else _by_id(tx, clue)
        for mail, clue in zip(found, clues, strict=True)
    ]


def _by_mark(clue: Clue, queue_id: str | None, people: Sequence[_Person]) -> Found:
    """Return who of a mail it is about; nothing where another provider was sent that."""
    if clue.was_sent:
        found = _by_address(queue_id, _asked_for(clue, people), clue.address)
        return found._replace(is_shared=_are_several(people, clue))
    named = _named(people, clue.address)
    its = [person for person in people if person.may_be_with(clue.providers)]
    if not set(its).isdisjoint(named):
        return _by_address(queue_id, its, clue.address)
    if any(person.is_in_hand for person in named):
        return Found(may_come=True)
    return Found(queue_id if its and not named else None)


def _named(people: Sequence[_Person], address: str | None) -> Sequence[_Person]:
    """Return recipients with an address, or all if it is not told."""
    if address is None:
        return people
    wanted = _folded(address)
    return [person for person in people if wanted and _folded(person.address) == wanted]


def _asked_for(clue: Clue, people: Sequence[_Person]) -> Sequence[_Person]:
    """Return the recipients that an event may be about."""
    return [
        person for person in people if not clue.was_sent or person.state == RecipientState.DELIVERED
    ]


def _by_address(queue_id: str | None, people: Sequence[_Person], address: str | None) -> Found:
    if address is None:
        is_one = len({person.address for person in people}) == 1
        return Found(queue_id, tuple(person.rcpt_no for person in people) if is_one else ())
    return Found(queue_id, tuple(person.rcpt_no for person in _named(people, address)))


def _are_several(people: Sequence[_Person], clue: Clue) -> bool:
    """Return whether somebody else knows the mail; the archive counts where nobody is named."""
    addresses = {_folded(person.address) for person in people}
    if clue.address is not None and clue.archive is not None:
        addresses.discard(_folded(clue.archive))
    return len(addresses) > 1


def _folded(address: str) -> str | None:
    try:
        return folded(address)
    except (InvalidAddress, ValueError):
        return None


def _people(tx: Transaction, queue_ids: Iterable[str]) -> dict[str, list[_Person]]:
    people: dict[str, list[_Person]] = defaultdict(list)
    for queue_id, *row in _RECIPIENTS.fetch(tx, [(key,) for key in sorted(queue_ids)]):
        people[queue_id].append(_Person(*row))
    return dict(people)


def _with_doubts(tx: Transaction, people: dict[str, list[_Person]]) -> dict[str, list[_Person]]:
    """Return recipients with the providers that may have had their mail once, or twice."""
    at: dict[tuple[str, int], set[str | None]] = defaultdict(set)
    for queue_id, rcpt_no, provider in _DOUBTED.fetch(tx, [(person,) for person in sorted(people)]):
        at[queue_id, rcpt_no].add(provider)
    return {
        queue_id: [
            person._replace(doubted_at=frozenset(at[queue_id, person.rcpt_no])) for person in its
        ]
        for queue_id, its in people.items()
    }


# --- without a mark ------------------------------------------------------------------------


def _by_id(tx: Transaction, clue: Clue) -> Found:
    """Return the newest mail of these ids, one with that recipient first."""
    candidates = [*_by_provider_id(tx, clue), *_by_message_id(tx, clue)]
    return next(
        (candidate for candidate in candidates if candidate.rcpt_nos),
        next(iter(candidates), Found()),
    )


def _by_provider_id(tx: Transaction, clue: Clue) -> Iterator[Found]:
    wanted = clue.provider_id
    if wanted is None:
        return
    # some report a longer one than their reply told: it goes on behind a dot
    for text in dict.fromkeys((wanted, wanted.partition(".")[0])):
        people = _people(tx, ids := _with_words(tx, text))
        for queue_id in ids:
            its = [
                person
                for person in _asked_for(clue, people.get(queue_id, ()))
                if person.provider in clue.providers and _is_id(wanted, person.reply)
            ]
            if its:
                found = _by_address(queue_id, its, clue.address)
                yield found._replace(is_shared=_are_several(people[queue_id], clue))


def _is_id(wanted: str, reply: str | None) -> bool:
    known = provider_id(reply) if reply else None
    if known is None:
        return False
    bare = known.strip("<>")
    return wanted.strip("<>") == bare or (len(bare) >= _LEAST_ID and wanted.startswith(f"{bare}."))


def _by_message_id(tx: Transaction, clue: Clue) -> Iterator[Found]:
    if clue.message_id is None:
        return
    ids = _with_words(tx, clue.message_id)
    rows = _MESSAGE_IDS.fetch(tx, [(key,) for key in ids])
    known = {queue_id: str(told) for queue_id, told in rows}
    people = _people(tx, ids)
    alike = [
        queue_id
        for queue_id in ids
        if known.get(queue_id, "").strip("<> ") == clue.message_id.strip("<> ")
    ]
    # one message may come as a copy for each recipient
    everybody = [person for queue_id in alike for person in people.get(queue_id, ())]
    is_shared = _are_several(everybody, clue)
    for queue_id in alike:
        those = _asked_for(clue, people.get(queue_id, ()))
        its = [person for person in those if person.provider in clue.providers]
        if its:
            yield _by_address(queue_id, its, clue.address)._replace(is_shared=is_shared)


def _with_words(tx: Transaction, text: str) -> list[str]:
    """Return messages that have the words of an id, the newest first."""
    words = split_words(text)
    if sum(map(len, words)) < _LEAST_ID:
        return []
    phrase = " ".join(words)
    if tx.is_postgres:
        query = " & ".join(f"'{word}'" for word in words)
        rows = _IN_POSTGRES.fetch(tx, query, f" {phrase} ", _MOST)
    elif FULL_TEXT.is_there(tx):
        rows = _IN_SQLITE.fetch(tx, f'"{phrase}"', _MOST)
    else:
        rows = []
    return [queue_id for (queue_id,) in rows]
