"""Making notices: mail to senders, or to `bounces.to`, about mail that failed, waits or went on.

A notice is an ordinary message from the null sender and goes the way of all that is accepted. It is
stored in one transaction with the mark that it was made. What goes wrong with one is told in the
log and tried again; it never touches the mail that it is about.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.address import canonical
from relaygw.mail.content import header_end, header_fields
from relaygw.mail.dsn_request import DELAY, FAILURE
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.notice import (
    Cause,
    DueNotice,
    NoticedRecipient,
    NoticeKind,
    Telling,
    compose_notice,
)
from relaygw.mail.outcome import Stage
from relaygw.mail.reply import SmtpReply
from relaygw.mail.state import RecipientState
from relaygw.mail.words import some_of
from relaygw.observe.events import Accepted
from relaygw.observe.observer import DeliveryObserver
from relaygw.observe.readings import ProcessReadings, Reader, unwatched
from relaygw.policy.retry import given_up_at_ms
from relaygw.settings.model import Settings
from relaygw.store.queue_entry import AttemptEntry
from relaygw.store.store import Store
from relaygw.upstream.classifier import Classifier

POLL_S = 1.0
_IDLE_POLLS = 4  # passed over while this worker tells of nothing: what others left has time
_BATCH = 20
_LATE_AT_ONCE = 200
_LADDER_S = (60.0, 300.0, 1800.0, 3600.0)  # after one could not be made, the last again and again
_OCCASIONS = {NoticeKind.FAILED: FAILURE, NoticeKind.DELAYED: DELAY}
_WORDS = {  # Postfix's, so that programs that read its log understand them
    NoticeKind.FAILED: "non-delivery notification",
    NoticeKind.DELAYED: "delay notification",
    NoticeKind.RELAYED: "delivery status notification",
}
NOBODY = "nobody wants to hear of it any more"


class Composer(Protocol):
    """Makes a message to be stored of the content of a notice: inbound.local_mail."""

    hostname: str
    has_space: Callable[[], bool]

    def compose(
        self, notice: DueNotice, target: str, content: bytes, drop_id: str
    ) -> AcceptedMessage:
        """Return it: from the null sender to `target`, as policy of now permits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    notice: DueNotice
    messages: Sequence[AcceptedMessage] = ()
    targets: Sequence[str] = ()
    why_not: str = ""  # why nobody is told
    error: str = ""


def audiences(notice: DueNotice, told: str) -> dict[str, tuple[NoticedRecipient, ...]]:
    """Return who is told of whom; `told` is `bounces.to`.

    The sender as it asked by NOTIFY, or as `told` says where it did not ask; an address of
    everything, whatever the sender asked, as Postfix's bounce_notice_recipient.
    """
    people = notice.recipients
    if notice.kind is NoticeKind.RELAYED:
        return {notice.sender: people}
    if notice.kind is NoticeKind.DELAYED:
        people = tuple(person for person in people if person.state is RecipientState.PENDING)
    occasion = _OCCASIONS[notice.kind]
    found = {}
    asked = tuple(
        person
        for person in people
        if (told == "sender" if person.dsn_notify is None else occasion in person.dsn_notify)
    )
    if asked:
        found[notice.sender] = asked
    if told not in ("none", "sender") and people:
        if canonical(told) == canonical(notice.sender):
            found.clear()
        found[told] = people
    return found


class Notices:
    """Runs beside the worker in the delivery role."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        observer: DeliveryObserver,
        *,
        composer: Composer,
        wake_workers: Callable[[], None],
        readings: ProcessReadings | None = None,
    ) -> None:
        self._readings = readings or unwatched()
        self._told, self._retry = settings.bounces.to, settings.retry
        self._classifiers = {
            name: Classifier(provider) for name, provider in settings.providers.items()
        }
        self._store = store
        self._observer = observer
        self._composer = composer
        self._wake_workers = wake_workers
        self._looked_until = ""  # a queue id: older mail was looked at
        self._is_full = False

    async def run(self) -> None:
        """Make what is due until cancelled."""
        while True:
            made: list[_Made] = []
            told = self._observer.told
            try:
                try:
                    await asyncio.to_thread(self.make_due, made)
                finally:
                    self.tell(made)
            except StoreUnavailable as error:
                self._note(f"warning: notices: {error}")
            except Exception as error:  # mail does not depend on it
                self._note(f"error: notices: {type(error).__name__}: {error}")
            await asyncio.sleep(POLL_S if len(made) < _BATCH else 0)
            for _ in range(_IDLE_POLLS):
                if made or self._observer.told != told:
                    break
                await asyncio.sleep(POLL_S)

    # --- in a thread ---------------------------------------------------------------------

    def make_due(self, made: list[_Made]) -> None:
        """Make some of what is due, and add what came of it. Raises StoreUnavailable."""
        if self._retry.warn_after is not None:
            self._looked_until = self._store.notices.note_delayed(
                int(self._retry.warn_after * 1000), start=self._looked_until, limit=_LATE_AT_ONCE
            )
        due = self._store.notices.due(limit=_BATCH)
        if due and not self._has_space():
            return
        random.shuffle(due)  # others look at the same ones
        for notice in due:
            result = self._make(notice)
            if result is not None:
                made.append(result)

    def _has_space(self) -> bool:
        is_full = not self._composer.has_space()
        if is_full and not self._is_full:
            self._note("warning: notices wait: the volume that holds the queue is nearly full")
        self._is_full = is_full
        return not is_full

    def _make(self, notice: DueNotice) -> _Made | None:
        try:
            what = f"message {notice.queue_id} for its notice"
            with self._readings.reading(Reader.NOTICES, what):
                made = self._composed(notice)
            detail = made.why_not or f"told {some_of(made.targets)}"
            return (
                made
                if self._store.notices.store_notice(notice, made.messages, detail=detail)
                else None
            )
        except Exception as error:
            if isinstance(error, StoreUnavailable) and not isinstance(error, Unstorable):
                raise
            wait_s = _LADDER_S[min(notice.tries, len(_LADDER_S) - 1)]
            self._store.notices.put_off(notice, wait_ms=int(wait_s * 1000))
            what = f"{type(error).__name__}: {error}; tried again in {wait_s:.0f} s"
            return _Made(notice=notice, error=what)

    def _composed(self, notice: DueNotice) -> _Made:
        head = self._store.intake.read_chunk(notice.queue_id, 0) or b""
        people = audiences(notice, self._told)
        why = NOBODY
        for target in list(people):
            found = objection(head, to_sender=target == notice.sender)
            if found:
                why = found
                del people[target]
        if not people:
            return _Made(notice=notice, why_not=f"none is sent: {why}")
        causes = self._causes(notice)
        messages = [
            self._message(notice, number, target, mine, causes, head)
            for number, (target, mine) in enumerate(people.items())
        ]
        return _Made(notice=notice, messages=messages, targets=tuple(people))

    def _message(
        self,
        notice: DueNotice,
        number: int,
        target: str,
        people: tuple[NoticedRecipient, ...],
        causes: dict[int, Cause],
        head: bytes,
    ) -> AcceptedMessage:
        until_ms = None
        if notice.kind is NoticeKind.DELAYED:
            until_ms = given_up_at_ms(notice.accepted_at_ms, 0, self._retry)
        mine = {person.rcpt_no for person in people}
        telling = Telling(
            notice=notice,
            target=target,
            recipients=people,
            causes={rcpt_no: cause for rcpt_no, cause in causes.items() if rcpt_no in mine},
            hostname=self._composer.hostname,
            boundary=f"relaygw-{secrets.token_hex(16)}",
            retry_until_ms=until_ms,
        )
        # each recipient is told of once: so no other notice has this id
        drop_id = f"notice-{notice.queue_id}-{notice.kind}-{min(mine)}-{number}"
        return self._composer.compose(notice, target, compose_notice(telling, head), drop_id)

    def _causes(self, notice: DueNotice) -> dict[int, Cause]:
        attempts = self._store.queue.attempts(notice.queue_id)
        return {
            recipient.rcpt_no: self.cause_of(recipient, list(_attempts_on(recipient, attempts)))
            for recipient in notice.recipients
        }

    def cause_of(self, recipient: NoticedRecipient, attempts: Sequence[AttemptEntry]) -> Cause:
        """Return why a recipient did not get it, as the last attempt tells."""
        if not attempts:
            return Cause()
        last = attempts[-1]
        classifier = self._classifiers.get(last.provider or "")
        code, _, text = last.reply.partition(" ")
        if classifier is None or not (code.isascii() and code.isdigit() and len(code) == 3):
            return Cause(relay=last.relay or "", attempted_at_ms=last.at_ms)
        meaning = classifier.meaning(Stage(last.stage), SmtpReply(int(code), (text,)))
        return Cause(
            explanation=meaning.explanation,
            remedy=meaning.remedy,
            relay=last.relay or "",
            said=last.reply,
            attempted_at_ms=last.at_ms,
        )

    # --- told ----------------------------------------------------------------------------

    def tell(self, made: Sequence[_Made]) -> None:
        """Write what came of notices into the log, count it, and have them sent."""
        for result in made:
            queue_id, kind = result.notice.queue_id, result.notice.kind
            if result.error:
                text = f"{queue_id}: warning: its {_WORDS[kind]} cannot be made: {result.error}"
                self._observer.noticed(kind.value, "error")
                self._note(text)
            elif result.why_not:
                self._observer.noticed(kind.value, "none")
                self._note(f"{queue_id}: no {_WORDS[kind]}: {result.why_not}")
            for target, message in zip(result.targets, result.messages, strict=True):
                whose = "sender" if target == result.notice.sender else "postmaster"
                self._note(f"{queue_id}: {whose} {_WORDS[kind]}: {message.queue_id}")
                self._observer.log.write([Accepted(message)])
                self._observer.noticed(kind.value, "made")
        if any(result.messages for result in made):
            self._wake_workers()

    def _note(self, text: str) -> None:
        self._observer.log.note("bounce", text)


def _attempts_on(
    recipient: NoticedRecipient, attempts: Sequence[AttemptEntry]
) -> Iterator[AttemptEntry]:
    """Yield the attempts on a recipient, oldest first."""
    for attempt in attempts:
        is_mine = attempt.rcpt_no in (None, recipient.rcpt_no)
        if attempt.delivery_no == recipient.delivery_no and is_mine:
            yield attempt


# --- which mail is never answered by a notice: RFC 3834, section 2 --------------------------


_TELLING = ("auto-submitted", "precedence", "content-type")
_BULK = frozenset({"bulk", "list", "junk"})
_IN_COMMENT = re.compile(r"\\.|[()]|[^\\()]+|\\", re.DOTALL)
_OUTSIDE = re.compile(r'"(?:[^"\\]|\\.)*"?|\\.|[()]|[^"\\()]+|\\', re.DOTALL)
_NO_WORD = bytes(range(0x21)) + b"\x7f"


def objection(head: bytes, *, to_sender: bool) -> str:
    """Return why mail with this header is not answered, "" if it may be.

    Not `to_sender`: to somebody who is told of everything. Only reports are not reported then.
    """
    for field in header_fields(head, 0, header_end(head)):
        name = field.name.decode("ascii").lower()
        if name not in _TELLING and not name.startswith("list-"):
            continue
        word = _first_word(head[field.value_start : field.value_end])
        if name == "content-type" and word == "multipart/report":
            return "it is a report itself"
        if not to_sender or name == "content-type":
            continue
        if name.startswith("list-"):
            return f"it has a field {field.name.decode('ascii')[:40]}"
        if word in _BULK if name == "precedence" else word != "no":
            said = f"is {word[:40]}" if word else "has no value"
            return f"its {field.name.decode('ascii')} {said}"
    return ""


def _first_word(value: bytes) -> str:
    """Return the value before the parameters, lower-case, without white space or comments."""
    text = "".join(_outside_comments(value.decode("ascii", "replace")))
    word = text.partition(";")[0].encode("ascii", "ignore")
    return word.translate(None, _NO_WORD).lower().decode()


def _outside_comments(text: str) -> Iterator[str]:
    """Yield the pieces that stand in no comment (RFC 5322, section 3.2.2: they nest)."""
    depth, at = 0, 0
    while match := (_IN_COMMENT if depth else _OUTSIDE).match(text, at):
        piece, at = match[0], match.end()
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(0, depth - 1)
        elif not depth:
            yield piece
