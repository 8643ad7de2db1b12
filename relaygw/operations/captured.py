"""Captured mail: deleted for good, or let out of the sandbox to whom it was for or somebody else.

What was captured stays captured. A release is a delivery of its own on the same message: routed
by the configuration of now, looked at again at each attempt (policy.recipients), retried, limited
and logged like any other. Nobody but the target hears of it: the provider is asked for no
delivery reports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from relaygw.errors import InvalidAddress
from relaygw.mail.content import read_header
from relaygw.mail.dsn_request import NEVER
from relaygw.mail.envelope import NewDelivery, NewRecipient, Released
from relaygw.mail.state import CaptureCode, RecipientState, capture_code
from relaygw.mail.suppression import Action, Listed
from relaygw.operations.queue_actions import LeftAlone, Result, batches
from relaygw.policy.recipients import Judgement, Refusal, Screen, check_typed
from relaygw.policy.router import Router
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import QueueEntry, RecipientEntry
from relaygw.store.release import Release
from relaygw.store.store import Store

_REFUSALS = {
    Refusal.INVALID: "is not an address that can receive mail: {detail}; name another one",
    Refusal.BLOCKED: "is on recipients.block, which also applies to admins",
    Refusal.OUTSIDE: "is not on recipients.allow; {detail}",
    Refusal.WAITING: "is already going to receive this message; see relaygw queue show",
    Refusal.NO_ROUTE: "cannot be sent to: {detail}",
    Refusal.SUPPRESSED: "is {detail}",
}
_NO_ROUTE = "no route of the configuration matches; add a last one without a condition"
_NO_PROVIDER = "no provider is configured; add providers and routes"
_NOT_ADMIN = "only an admin may release to it anyway"
_NOT_ANYONE = (
    'to release to it anyway, use --anyone on the command line, "Anyone": true by the '
    "API, or tick the box on the page"
)
_NOT_CONFIRMED = (
    "it was not among the addresses that were confirmed; check the addresses and try again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """What somebody wants to be released.

    `to` None: to whom it was captured for. `only_for`: only what was captured for one of these.
    `anyone`: to addresses outside the allow list as well, which takes an admin; `confirmed`
    names those that were shown and confirmed, None: whichever there are.
    """

    to: str | None = None
    only_for: Collection[str] = ()
    is_admin: bool
    anyone: bool = False
    confirmed: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """One mail that a release sends."""

    queue_id: str
    captured: str  # whom the message was captured for
    address: str  # who gets it
    released: Released  # ANYONE: the address is not on the allow list
    route: str
    stream: str


@dataclass(frozen=True, slots=True)
class RefusedCopy:
    """One mail that a release does not send; `why` is for people and names the remedy."""

    queue_id: str
    captured: str
    address: str
    refusal: Refusal
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseResult:
    """What a release sends, or would send, and what it leaves alone."""

    copies: tuple[Copy, ...] = ()
    refused: tuple[RefusedCopy, ...] = ()
    left: tuple[LeftAlone, ...] = ()  # messages of which nothing can be released

    @property
    def changed(self) -> tuple[str, ...]:
        """The queue ids of the messages that somebody gets."""
        return tuple(dict.fromkeys(copy.queue_id for copy in self.copies))

    @property
    def outside(self) -> tuple[str, ...]:
        """The addresses, each once, that get mail although they are not on the allow list."""
        found = (copy.address for copy in self.copies if copy.released is Released.ANYONE)
        return tuple(dict.fromkeys(found))


def objection_to_delete(entry: QueueEntry) -> LeftAlone | None:
    """Return why a message is not deleted from the sandbox; None: it is captured."""
    if entry.captured_at_ms is not None:
        return None
    return LeftAlone(entry.queue_id, "it is not captured")


def delete_captured(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = ""
) -> Result:
    """Delete captured messages for good.

    One that still waits to be sent to somebody else only leaves the sandbox. Messages that
    are not captured are left alone.
    """
    changed: list[str] = []
    left: list[LeftAlone] = []
    for batch in batches(ids):
        entries = store.queue.entries(batch)
        left += filter(None, map(objection_to_delete, entries))
        captured = [
            queue_entry.queue_id
            for queue_entry in entries
            if queue_entry.captured_at_ms is not None
        ]
        if captured:
            entry = AuditEntry(
                at_ms=now_ms,
                actor=actor,
                action="sandbox.delete",
                target=" ".join(captured),
                affected=len(captured),
                detail=detail,
            )
            store.sandbox.delete_captured(captured, entry=entry)
            changed += captured
    return Result(changed=tuple(changed), left=tuple(left))


def plan_release(
    store: Store, settings: Settings, ids: Sequence[str], request: ReleaseRequest
) -> ReleaseResult:
    """Return the plan of `release_captured`; changes nothing."""
    planner = _Planner(store, settings, request)
    return _joined(planner.plan(batch) for batch in batches(ids))


def release_captured(
    store: Store,
    settings: Settings,
    ids: Sequence[str],
    request: ReleaseRequest,
    *,
    actor: str,
    now_ms: int,
    detail: str = "",
) -> ReleaseResult:
    """Send captured messages to those who may have them, due now; each message is audited.

    Who was shown `plan_release(...).outside` passes it as `request.confirmed`: nobody else is
    reached outside of the list, whatever became of the list meanwhile. What cannot be released
    is in the result.
    """
    planner, results = _Planner(store, settings, request), []
    for batch in batches(ids):
        planned = planner.plan(batch)
        by_message: defaultdict[str, list[Copy]] = defaultdict(list)
        for copy in planned.copies:
            by_message[copy.queue_id].append(copy)
        releases = []
        for queue_id, copies in by_message.items():
            entry = AuditEntry(
                at_ms=now_ms,
                actor=actor,
                action="sandbox.release",
                target=queue_id,
                affected=len(copies),
                detail="; ".join(filter(None, [*map(_audited, copies), detail])),
            )
            parts = tuple(_deliveries(copies))
            releases.append(Release(queue_id=queue_id, deliveries=parts, entry=entry))
        done = store.sandbox.release_captured(releases) if releases else frozenset()
        missed = (missed_id for missed_id in by_message if missed_id not in done)
        why = "it has just changed; check it and try again"
        sent = tuple(copy for copy in planned.copies if copy.queue_id in done)
        left = planned.left + tuple(
            LeftAlone(missed_id, why, is_temporary=True) for missed_id in missed
        )
        results.append(replace(planned, copies=sent, left=left))
    return _joined(results)


def _deliveries(copies: Iterable[Copy]) -> Iterator[NewDelivery]:
    """Yield a delivery for each route and each kind of release: one opens no list for another."""
    groups: defaultdict[tuple[Released, str, str], list[Copy]] = defaultdict(list)
    for copy in copies:
        groups[copy.released, copy.route, copy.stream].append(copy)
    for (released, route, stream), members in groups.items():
        recipients = tuple(
            NewRecipient(address=to, original=was if was != to else None, dsn_notify=NEVER)
            for to, was in ((member.address, member.captured) for member in members)
        )
        yield NewDelivery(released=released, route=route, stream=stream, recipients=recipients)


def _audited(copy: Copy) -> str:
    instead = "" if copy.address == copy.captured else f" for {copy.captured}"
    return f"to {copy.address} ({copy.released}){instead}"


def _joined(results: Iterable[ReleaseResult]) -> ReleaseResult:
    parts = list(results)
    return ReleaseResult(
        copies=tuple(copy for part in parts for copy in part.copies),
        refused=tuple(refused_copy for part in parts for refused_copy in part.refused),
        left=tuple(obstacle for part in parts for obstacle in part.left),
    )


class _Planner:
    """Decides for each message who gets it, by the configuration of now; changes nothing."""

    def __init__(self, store: Store, settings: Settings, request: ReleaseRequest) -> None:
        self._store = store
        self._request = request
        self._policy = Screen(settings)
        self._router = Router(settings.routes)
        self._no_route = _NO_ROUTE if settings.providers else _NO_PROVIDER
        self._only_for = frozenset(map(_folded, request.only_for))

    def plan(self, batch: Sequence[str]) -> ReleaseResult:
        return _joined(map(self._plan_one, self._store.queue.entries(batch)))

    def _plan_one(self, entry: QueueEntry) -> ReleaseResult:
        captured = [
            recipient
            for recipient in entry.recipients
            if recipient.state is RecipientState.CAPTURED
            and (not self._only_for or _folded(recipient.address) in self._only_for)
        ]
        obstacle = None
        if entry.captured_at_ms is None:
            obstacle = "it is not captured"
        elif not entry.chunk_count:
            obstacle = "its content is no longer kept"
        elif not captured:
            obstacle = f"it was not captured for {' or '.join(self._request.only_for)}"
        if obstacle is not None:
            return ReleaseResult(left=(LeftAlone(entry.queue_id, obstacle),))
        headers: Mapping[str, str] = {}
        if self._router.header_names:
            head = self._store.intake.read_chunk(entry.queue_id, 0) or b""
            headers = read_header(head, self._router.header_names).values
        if self._request.to is not None:
            targets = [(captured[0], self._request.to)]
        else:
            targets = [
                (recipient_entry, recipient_entry.address)
                for recipient_entry in _first_of_each(captured)
            ]
        found = [self._judge(entry, recipient, target, headers) for recipient, target in targets]
        return ReleaseResult(
            copies=tuple(copy for copy in found if isinstance(copy, Copy)),
            refused=tuple(copy for copy in found if isinstance(copy, RefusedCopy)),
        )

    def _judge(
        self, entry: QueueEntry, captured: RecipientEntry, target: str, headers: Mapping[str, str]
    ) -> Copy | RefusedCopy:
        judgement = self._judgement(entry, captured, target)
        queue_id, was = entry.queue_id, captured.address
        if judgement.released is not None:
            route = self._router.route_for(
                sender=entry.sender,
                recipient=target,
                headers=headers,
                listener=entry.source.listener,
                user=entry.source.user,
            )
            if route is not None:
                released, stream = judgement.released, route.stream.value
                listed = self._suppressed(entry, target, stream)
                if listed is not None:
                    why = _REFUSALS[Refusal.SUPPRESSED].format(detail=listed.sentence)
                    return RefusedCopy(queue_id, was, target, Refusal.SUPPRESSED, why)
                return Copy(queue_id, was, target, released, route.name, stream)
            judgement = Judgement(None, Refusal.NO_ROUTE, self._no_route)
        refusal = judgement.refusal or Refusal.INVALID
        why = _REFUSALS[refusal].format(detail=judgement.detail)
        return RefusedCopy(queue_id, was, target, refusal, why)

    def _suppressed(self, entry: QueueEntry, target: str, stream: str) -> Listed | None:
        """Return why an address gets no mail of this sender any more, None where it does."""
        look = self._store.suppressions.listed_for
        listed = look([target], sender=entry.sender, stream=stream).get(target)
        return listed if listed is not None and listed.action is Action.BLOCK else None

    def _judgement(self, entry: QueueEntry, captured: RecipientEntry, target: str) -> Judgement:
        request = self._request
        if request.to is None and capture_code(captured.reply) is CaptureCode.INVALID_ADDRESS:
            return Judgement(None, Refusal.INVALID, f"captured as such ({captured.reply})")
        if request.to is not None:
            try:
                check_typed(target)
            except InvalidAddress as error:
                return Judgement(None, Refusal.INVALID, str(error))
        is_confirmed = request.confirmed is None or target in request.confirmed
        judgement = self._policy.judge(
            target,
            source=entry.source,
            accepted_in=Mode(entry.mode),
            anyone=request.is_admin and request.anyone and is_confirmed,
        )
        is_waiting = any(
            recipient.state is RecipientState.PENDING
            and _folded(recipient.address) == _folded(target)
            for recipient in entry.recipients
        )
        if judgement.released is not None and is_waiting:
            return Judgement(None, Refusal.WAITING)
        if judgement.refusal is Refusal.OUTSIDE:
            lacking = _NOT_CONFIRMED if request.anyone else _NOT_ANYONE
            return replace(judgement, detail=lacking if request.is_admin else _NOT_ADMIN)
        return judgement


def _first_of_each(captured: Sequence[RecipientEntry]) -> list[RecipientEntry]:
    found: dict[str, RecipientEntry] = {}
    for recipient in captured:
        found.setdefault(_folded(recipient.address), recipient)
    return list(found.values())


def _folded(address: str) -> str:
    """Return one form of an address, valid or not; only ASCII has letters of one kind."""
    return address.lower() if address.isascii() else address
