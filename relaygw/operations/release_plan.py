"""What a release of captured messages would do: who gets each, by which route, and who does not.

Changes nothing. The rules are policy.recipients's; here they meet the messages as they are now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from relaygw.mail.content import read_header
from relaygw.mail.envelope import Released
from relaygw.mail.state import RecipientState
from relaygw.operations.queue_actions import LeftAlone
from relaygw.policy.recipients import Judgement, Refusal, Screen, was_invalid
from relaygw.policy.router import Router
from relaygw.settings.mode import Mode
from relaygw.settings.model import Settings
from relaygw.store.queue_entry import QueueEntry, RecipientEntry
from relaygw.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """What somebody wants to be released.

    `to` None: to whom it was captured for. `only_for`: only what was captured for one of these.
    `anyone`: to addresses outside of the allow list as well, which takes an admin; `confirmed`
    names those that were shown and confirmed, None: whichever there are.
    """

    to: str | None = None
    only_for: Collection[str] = ()
    is_admin: bool
    anyone: bool = False
    confirmed: Collection[str] | None = None

    def may_be_outside(self, address: str) -> bool:
        """True if an admin confirmed this very address."""
        is_confirmed = self.confirmed is None or address in self.confirmed
        return self.is_admin and self.anyone and is_confirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One mail that a release sends."""

    queue_id: str
    captured: str  # whom the message was captured for
    address: str  # who gets it
    released: Released  # ANYONE: the address is not on the allow list
    route: str
    stream: str


@dataclass(frozen=True, slots=True, kw_only=True)
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
        return tuple(dict.fromkeys(one.queue_id for one in self.copies))

    @property
    def outside(self) -> tuple[str, ...]:
        """The addresses, each once, that get mail although they are not on the allow list."""
        found = (one.address for one in self.copies if one.released is Released.ANYONE)
        return tuple(dict.fromkeys(found))


def joined(results: Iterable[ReleaseResult]) -> ReleaseResult:
    """Return several results as one."""
    copies: list[Copy] = []
    refused: list[RefusedCopy] = []
    left: list[LeftAlone] = []
    for one in results:
        copies += one.copies
        refused += one.refused
        left += one.left
    return ReleaseResult(copies=tuple(copies), refused=tuple(refused), left=tuple(left))


class ReleasePlanner:
    """Decides for each message who gets it, by the configuration of now."""

    def __init__(self, store: Store, settings: Settings, request: ReleaseRequest) -> None:
        self._store = store
        self._request = request
        self._policy = Screen(settings)
        self._router = Router(settings.routes)
        self._no_route = _NO_ROUTE if settings.providers else _NO_PROVIDER
        self._only_for = frozenset(map(_folded, request.only_for))

    def plan(self, entries: Iterable[QueueEntry]) -> ReleaseResult:
        """Return what a release does with each message."""
        return joined(map(self._plan_one, entries))

    def _plan_one(self, entry: QueueEntry) -> ReleaseResult:
        obstacle = self._obstacle(entry)
        if obstacle is not None:
            left = LeftAlone(queue_id=entry.queue_id, why=obstacle)
            return ReleaseResult(left=(left,))
        headers = self._headers(entry)
        found = [
            self._judge(entry, captured, target, headers)
            for captured, target in self._targets(entry)
        ]
        return ReleaseResult(
            copies=tuple(one for one in found if isinstance(one, Copy)),
            refused=tuple(one for one in found if isinstance(one, RefusedCopy)),
        )

    def _obstacle(self, entry: QueueEntry) -> str | None:
        if entry.captured_at_ms is None:
            return "it is not captured"
        if not entry.chunk_count:
            return "its content is no longer kept"
        if not self._captured(entry):
            return f"it was not captured for {' or '.join(self._request.only_for)}"
        return None

    def _captured(self, entry: QueueEntry) -> list[RecipientEntry]:
        return [
            one
            for one in entry.recipients
            if one.state is RecipientState.CAPTURED
            and (not self._only_for or _folded(one.address) in self._only_for)
        ]

    def _targets(self, entry: QueueEntry) -> Iterable[tuple[RecipientEntry, str]]:
        """Return who gets a message, each once, and the captured recipient each stands for."""
        captured = self._captured(entry)
        if self._request.to is not None:
            return [(captured[0], self._request.to)]
        return {_folded(one.address): (one, one.address) for one in captured}.values()

    def _headers(self, entry: QueueEntry) -> Mapping[str, str]:
        """Return the fields that conditions of routes look at."""
        if not self._router.header_names:
            return {}
        head = self._store.intake.read_chunk(entry.queue_id, 0) or b""
        return read_header(head, self._router.header_names).values

    def _judge(
        self, entry: QueueEntry, captured: RecipientEntry, target: str, headers: Mapping[str, str]
    ) -> Copy | RefusedCopy:
        judgement = self._judgement(entry, captured, target)
        if judgement.released is None:
            return self._refused(entry, captured, target, judgement)
        route = self._router.route_for(
            sender=entry.sender,
            recipient=target,
            headers=headers,
            listener=entry.source.listener,
            user=entry.source.user,
        )
        if route is None:
            nowhere = Judgement(None, Refusal.NO_ROUTE, self._no_route)
            return self._refused(entry, captured, target, nowhere)
        return Copy(
            queue_id=entry.queue_id,
            captured=captured.address,
            address=target,
            released=judgement.released,
            route=route.name,
            stream=route.stream.value,
        )

    def _judgement(self, entry: QueueEntry, captured: RecipientEntry, target: str) -> Judgement:
        if self._request.to is None and was_invalid(captured.reply):
            return Judgement(None, Refusal.INVALID, f"captured as such ({captured.reply})")
        judgement = self._policy.judge(
            target,
            source=entry.source,
            accepted_in=Mode(entry.mode),
            anyone=self._request.may_be_outside(target),
        )
        if judgement.released is not None and _folded(target) in _waiting(entry):
            return Judgement(None, Refusal.WAITING)
        return judgement

    def _refused(
        self, entry: QueueEntry, captured: RecipientEntry, target: str, judgement: Judgement
    ) -> RefusedCopy:
        refusal = judgement.refusal or Refusal.INVALID
        return RefusedCopy(
            queue_id=entry.queue_id,
            captured=captured.address,
            address=target,
            refusal=refusal,
            why=_WORDS[refusal].format(detail=judgement.detail),
        )


_WORDS = {
    Refusal.INVALID: "is not an address that mail can go to: {detail}; name another one",
    Refusal.BLOCKED: "is on recipients.block, which holds for everybody",
    Refusal.OUTSIDE: "is not on recipients.allow; only an admin may release to it all the same",
    Refusal.WAITING: "is to get this message already; relaygw queue show tells how far it is",
    Refusal.NO_ROUTE: "cannot be sent to: {detail}",
}
_NO_ROUTE = "no route of the configuration matches; add a last one without a condition"
_NO_PROVIDER = "no provider is configured; add providers and routes"


def _waiting(entry: QueueEntry) -> frozenset[str]:
    """Return the addresses that a message is still to be sent to."""
    pending = (one for one in entry.recipients if one.state is RecipientState.PENDING)
    return frozenset(_folded(one.address) for one in pending)


def _folded(address: str) -> str:
    """Return one form of an address, valid or not; only ASCII has letters of one kind."""
    return address.lower() if address.isascii() else address
