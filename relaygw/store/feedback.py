"""What providers tell after their 250: posts as they came, and what they say, each thing once.

A post is durable before it is answered, and goes in the transaction that takes what it says. So
nothing is lost or counted twice, however often, in whatever order and to whomever it is told.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from relaygw.mail.verdict import BOUNCE_MAIL, Event, Kind
from relaygw.store import doubts, suppression, webhooks
from relaygw.store.database import (
    BatchStatement,
    Repository,
    Row,
    Statement,
    Transaction,
    Write,
    insert_into,
)
from relaygw.store.mail_of_event import Clue, Found, find_mail
from relaygw.store.outcomes import Settled
from relaygw.store.reports import NewVerdict, clean, past, put_verdicts, short_key

People = dict[tuple[str | None, int | None], str]
"""Addresses of recipients by queue id and number."""
_CLAIM_BYTES = 2 * 2**20
_MAX_DETAIL_CHARACTERS = 1_000
_MAX_RAW_CHARACTERS = 65_536
_MAX_WORD_CHARACTERS = 1_000

_ADD_POST = insert_into("event_post", "provider received_at_ms due_at_ms body", tries=0)
_ADD_TOKEN = insert_into(
    "event_token", "provider token expires_at_ms", on_conflict="DO NOTHING RETURNING token"
)
_IS_DUE = f"due_at_ms <= {{?}} AND (provider = '{BOUNCE_MAIL}') = {{?}}"
_HAS_DUE = Statement(f"SELECT 1 FROM event_post WHERE {_IS_DUE} LIMIT 1")
_DUE = Statement(
    f"""
    SELECT post_no, length(body) FROM event_post WHERE {_IS_DUE}
    ORDER BY due_at_ms LIMIT {{?}} {{skip_locked}}
    """
)
_POSTS = BatchStatement(
    """
    SELECT post_no, provider, received_at_ms, tries, body FROM event_post
    WHERE post_no IN (VALUES {rows}) ORDER BY post_no
    """,
    columns=1,
)
_COUNT = Statement(
    f"""
    SELECT count(*) FROM (
        SELECT 1 FROM event_post WHERE provider <> '{BOUNCE_MAIL}' LIMIT {{?}}
    ) AS waiting
    """
)
_LEASE = BatchStatement(
    """
    UPDATE event_post SET due_at_ms = v.column2, tries = tries + 1 FROM (VALUES {rows}) AS v
    WHERE event_post.post_no = v.column1
    """,
    columns=2,
)
_PUT_OFF = Statement(
    "UPDATE event_post SET due_at_ms = {?}, tries = tries - {?} WHERE post_no = {?}"
)
_REMOVE = BatchStatement("DELETE FROM event_post WHERE post_no IN (VALUES {rows})", columns=1)
_ADD_EVENT = insert_into(
    "provider_event",
    "provider event_key kind at_ms received_at_ms queue_id rcpt_no address provider_id dsn detail"
    " raw",
    on_conflict="(provider, event_key) DO NOTHING RETURNING provider, event_key",
)
# locked against the janitor until this transaction ends
_KEEP = BatchStatement(
    "SELECT queue_id FROM message WHERE queue_id IN (VALUES {rows}) ORDER BY queue_id {key_share}",
    columns=1,
)
_PEOPLE = BatchStatement(
    """
    SELECT queue_id, rcpt_no, address FROM recipient
    WHERE (queue_id, rcpt_no) IN (VALUES {rows})
    """,
    columns=2,
)
_NEWEST = 20_000  # events that are looked through for the last one of a provider
_TOLD_AT = Statement(
    """
    SELECT max(received_at_ms) FROM (
        SELECT provider, received_at_ms FROM provider_event ORDER BY event_no DESC LIMIT {?}
    ) AS newest WHERE provider = {?}
    """
)
_FORGET_TOKENS = Statement(
    """
    DELETE FROM event_token WHERE (provider, token) IN (
        SELECT provider, token FROM event_token WHERE expires_at_ms < {?} LIMIT {?}
    )
    """
)
_FORGET_POSTS = Statement(
    """
    DELETE FROM event_post WHERE post_no IN (
        SELECT post_no FROM event_post WHERE received_at_ms < {?} LIMIT {?}
    )
    """
)
_FORGET_UNMATCHED = Statement(
    """
    DELETE FROM provider_event WHERE event_no IN (
        SELECT event_no FROM provider_event
        WHERE queue_id IS NULL AND received_at_ms < {?} LIMIT {?}
    )
    """
)
_HAS_OLD = Statement(
    """
    SELECT 1 WHERE EXISTS (SELECT 1 FROM event_token WHERE expires_at_ms < {?})
        OR EXISTS (SELECT 1 FROM event_post WHERE received_at_ms < {?})
        OR EXISTS (
            SELECT 1 FROM provider_event WHERE queue_id IS NULL AND received_at_ms < {?}
        )
    """
)
_KEY = Statement("SELECT value FROM gateway_key WHERE name = {?}")
_ADD_KEY = insert_into("gateway_key", "name value", on_conflict="DO NOTHING")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPost:
    """A verified post; `token` is used once, and remembered until `until_ms`."""

    provider: str
    body: bytes
    token: str | None = None
    until_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPost:
    """A post that is to be read; `tries` counts this one."""

    post_no: int
    provider: str
    received_at_ms: int
    tries: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedEvent:
    """An event with the mail that it is about; `queue_id` None: none was found."""

    provider: str
    event: Event
    queue_id: str | None = None
    rcpt_no: int | None = None  # None: it does not tell which recipient
    same: tuple[int, ...] = ()  # more recipients of it with the same address
    verdicts: tuple[NewVerdict, ...] = ()  # once it is taken: what is new of recipients
    settled: tuple[str, ...] = ()  # addresses whose doubt it ended


class Feedback(Repository):
    """Posts of providers, and the events that they tell of."""

    def receive(self, posts: Sequence[NewPost]) -> list[bool]:
        """Keep posts until they are read; False for those whose token was used before."""
        with self._write() as tx:
            now_ms = tx.now_ms()
            are_new = [_use_token(tx, post) for post in posts]
            rows = [
                (post.provider, now_ms, now_ms, post.body)
                for post, is_new in zip(posts, are_new, strict=True)
                if is_new
            ]
            _ADD_POST.run(tx, rows)
        return are_new

    def claim_posts(
        self, *, limit: int, lease_ms: int, is_of_mail: bool = False
    ) -> list[StoredPost]:
        """Return posts that are due, for this caller alone until `lease_ms` are over.

        `is_of_mail`: those of bounce mails, which are expensive to read; else all others.

        They take turns by when they are due, so that none stands in the way of others. Of large
        ones there are fewer. Who forgets a lease reads a post twice, which counts once.
        """
        with self._read() as tx:
            if not _HAS_DUE.fetch(tx, tx.now_ms(), is_of_mail):
                return []
        with self._write(Write.LEASE) as tx:
            now_ms = tx.now_ms()
            chosen = _first_ones(_DUE.fetch(tx, now_ms, is_of_mail, limit))
            _LEASE.run(tx, [(post_no, now_ms + lease_ms) for (post_no,) in chosen])
            return [
                StoredPost(
                    post_no=post_no,
                    provider=provider,
                    received_at_ms=tx.to_local(received_at_ms),
                    tries=tries,
                    body=bytes(body),
                )
                for post_no, provider, received_at_ms, tries, body in _POSTS.fetch(tx, chosen)
            ]

    def count_posts(self, most: int) -> int:
        """Return how many posts of providers wait to be read, `most` for that or more."""
        with self._read() as tx:
            return int(_COUNT.fetch(tx, most)[0][0])

    def put_off(self, post_no: int, *, wait_ms: int, counts: bool = True) -> None:
        """Have a post read again after a time; `counts`: this one was one of its tries."""
        with self._write() as tx:
            _PUT_OFF.run(tx, tx.now_ms() + wait_ms, int(not counts), post_no)

    def match(self, clues: Sequence[Clue]) -> list[Found]:
        """Return the mail and the recipients that events are about; changes nothing."""
        with self._read() as tx:
            return find_mail(tx, clues)

    def take(
        self, events: Sequence[MatchedEvent], *, read: Sequence[int] = ()
    ) -> list[MatchedEvent]:
        """Write what is new, with all that follows of it, and remove the posts `read`.

        Return the events that nobody told before, with their verdicts. What follows is written for
        these alone.
        """
        with self._write() as tx:
            now_ms = tx.now_ms()
            there, people = _still_there(tx, events)
            new = _add_events(tx, there, people, now_ms)
            new = _judge(tx, new, people, now_ms)
            verdicts = [verdict for event in new for verdict in event.verdicts]
            if verdicts:
                # delivered first, then what became of it
                new = _with_settled(new, doubts.settle(tx, verdicts, self._rules))
                webhooks.add_verdicts(tx, verdicts, self._rules)
                # messages are locked before addresses, as by those who record outcomes
                suppression.note_verdicts(tx, verdicts, self._rules)
            _REMOVE.run(tx, [(post_no,) for post_no in read])
        return new

    def told_at_ms(self, provider: str) -> int | None:
        """Return when a provider last told anything, None if that is long ago or was never."""
        with self._read() as tx:
            at_ms: int | None = _TOLD_AT.fetch(tx, _NEWEST, provider)[0][0]
            return tx.to_local(at_ms)

    def forget_feedback(self, older_than_ms: int, *, limit: int) -> int:
        """Delete so old posts and events without mail, and tokens that are over; return how many.

        Events of mail go with it.
        """
        with self._read() as tx:
            now_ms = tx.now_ms()
            before_ms = now_ms - older_than_ms
            if not _HAS_OLD.fetch(tx, now_ms, before_ms, before_ms):
                return 0
        with self._write(Write.UNSYNCED) as tx:
            now_ms = tx.now_ms()
            before_ms = now_ms - older_than_ms
            return (
                _FORGET_TOKENS.run(tx, now_ms, limit)
                + _FORGET_POSTS.run(tx, before_ms, limit)
                + _FORGET_UNMATCHED.run(tx, before_ms, limit)
            )

    def shared_key(self, name: str) -> bytes:
        """Return a secret that all instances of this queue share, made by the first who asks."""
        with self._read() as tx:
            found = _KEY.fetch(tx, name)
        if not found:
            with self._write() as tx:
                _ADD_KEY.run(tx, [(name, secrets.token_hex(32))])
                found = _KEY.fetch(tx, name)
        return bytes.fromhex(found[0][0])


def _first_ones(rows: Sequence[Row]) -> list[Row]:
    """Return the keys of the first rows, until their bodies are large together."""
    chosen: list[Row] = []
    size_bytes = 0
    for post_no, body_bytes in rows:
        size_bytes += body_bytes
        if chosen and size_bytes > _CLAIM_BYTES:
            break
        chosen.append((post_no,))
    return chosen


def _with_settled(new: Sequence[MatchedEvent], settled: Sequence[Settled]) -> list[MatchedEvent]:
    ended: dict[Row, tuple[str, ...]]
    ended = {(entry.queue_id, entry.rcpt_no): (entry.address,) for entry in settled}
    return [replace(event, settled=ended.get((event.queue_id, event.rcpt_no), ())) for event in new]


def _use_token(tx: Transaction, post: NewPost) -> bool:
    if post.token is None:
        return True
    row = (post.provider, short_key(post.token), tx.to_stored(post.until_ms))
    return bool(_ADD_TOKEN.fetch(tx, [row]))


def _add_events(
    tx: Transaction, events: Sequence[MatchedEvent], people: People, now_ms: int
) -> list[MatchedEvent]:
    """Write those that nobody told before, and return them."""
    by_key: dict[Row, MatchedEvent] = {}
    for event in events:
        by_key.setdefault((event.provider, short_key(event.event.key)), event)
    # in one order, so that two who do this at once do not wait for each other
    rows = [(*key, *_told(by_key[key], people, now_ms)) for key in sorted(by_key)]
    new = {tuple(key) for key in _ADD_EVENT.fetch(tx, rows)}
    return [new_event for key, new_event in by_key.items() if key in new]


def _told(matched_event: MatchedEvent, people: People, now_ms: int) -> Row:
    event = matched_event.event
    address = people.get((matched_event.queue_id, matched_event.rcpt_no), event.address)
    words = (address, event.provider_id, event.dsn)
    return (
        *(
            event.kind.value,
            past(event.at_ms, now_ms),
            now_ms,
            matched_event.queue_id,
            matched_event.rcpt_no,
        ),
        *(word and clean(word)[:_MAX_WORD_CHARACTERS] for word in words),
        *(clean(event.detail)[:_MAX_DETAIL_CHARACTERS], clean(event.raw)[:_MAX_RAW_CHARACTERS]),
    )


def _judge(
    tx: Transaction, new: Sequence[MatchedEvent], people: People, now_ms: int
) -> list[MatchedEvent]:
    """Note the last word on each recipient; return the events with what is new of them."""
    keys = [
        [
            (event.queue_id, rcpt_no)
            for rcpt_no in (event.rcpt_no, *event.same)
            if event.queue_id is not None and rcpt_no is not None
            if (event.queue_id, rcpt_no) in people
        ]
        for event in new
    ]
    told = [
        (*key, event.event.kind, past(event.event.at_ms, now_ms))
        for event, its in zip(new, keys, strict=True)
        for key in its
    ]
    last_words = put_verdicts(tx, told)
    return [
        replace(
            event, verdicts=tuple(_verdict(event, key, people, last_words, now_ms) for key in its)
        )
        for event, its in zip(new, keys, strict=True)
    ]


def _verdict(
    matched_event: MatchedEvent,
    key: tuple[str, int],
    people: People,
    last_words: Mapping[tuple[str, int, str], Kind | None],
    now_ms: int,
) -> NewVerdict:
    event, word = matched_event.event, (*key, matched_event.event.kind.value)
    return NewVerdict(
        queue_id=key[0],
        rcpt_no=key[1],
        address=people[key],
        kind=event.kind,
        at_ms=past(event.at_ms, now_ms),
        provider=matched_event.provider,
        dsn=event.dsn and clean(event.dsn)[:_MAX_WORD_CHARACTERS],
        detail=clean(event.detail)[:_MAX_DETAIL_CHARACTERS],
        others=event.others,
        before=last_words.get(word),
        is_last_word=word in last_words,
    )


def _still_there(
    tx: Transaction, events: Sequence[MatchedEvent]
) -> tuple[list[MatchedEvent], People]:
    """Return events without the mail and recipients that are gone; and the recipients."""
    queue_ids = sorted({event.queue_id for event in events if event.queue_id is not None})
    known = {queue_id for (queue_id,) in _KEEP.fetch(tx, [(queue_id,) for queue_id in queue_ids])}
    wanted = {
        (event.queue_id, rcpt_no)
        for event in events
        if event.rcpt_no is not None
        for rcpt_no in (event.rcpt_no, *event.same)
    }
    found = _PEOPLE.fetch(tx, sorted(key for key in wanted if key[0] in known))
    people: People = {(queue_id, rcpt_no): address for queue_id, rcpt_no, address in found}
    there = [
        replace(
            event,
            queue_id=event.queue_id if event.queue_id in known else None,
            rcpt_no=event.rcpt_no if (event.queue_id, event.rcpt_no) in people else None,
        )
        for event in events
    ]
    return there, people
