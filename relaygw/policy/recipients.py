"""Who receives: modes, lists and their patterns, at acceptance, at a release, at each attempt.

Fails closed: whatever is not clearly permitted is captured or held, never sent. What a release may
do: decision 12. `rewrite` and `recipients.refused` do not touch its target: what was shown and
confirmed stands in RCPT TO.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from typing import NamedTuple

from relaygw.errors import InvalidAddress
from relaygw.mail.address import (
    MAX_PATH_BYTES,
    canonical,
    check_address,
    folded,
    is_routable_elsewhere,
    mailbox,
    split,
)
from relaygw.mail.envelope import ClaimedDelivery, Recipient, Released, Source
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.standing_hold import StandingHold
from relaygw.mail.state import CaptureCode
from relaygw.mail.suppression import Action
from relaygw.policy.recipient_fields import NO_FIELDS, FieldRule
from relaygw.policy.standing_holds import StandingHolds
from relaygw.settings.addresses import Recipients
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode


@cache  # few combinations, and several looks for each message
def strictest(*modes: Mode | None) -> Mode:
    """Return the mode that lets least out; at least one must be given."""
    return max((mode for mode in modes if mode is not None), key=lambda mode: mode.strictness)


@cache
def _mode(text: str) -> Mode:
    return Mode(text)


class Modes:
    """The modes of a configuration, compiled once."""

    def __init__(self, settings: Settings) -> None:
        self._everywhere = settings.mode
        self._listeners: dict[str, Mode] = {}
        for listener in settings.listeners:
            name = str(listener.bind)  # two on "any port" have one name: the stricter holds
            self._listeners[name] = strictest(
                settings.mode, listener.mode, self._listeners.get(name)
            )
        self._users = {user.name: strictest(settings.mode, user.mode) for user in settings.users}

    def of(
        self, listener: str | None, user: str | None, *, accepted_in: Mode | None = None
    ) -> Mode:
        """Return the mode for what came in through `listener` from `user`; None is neither.

        A listener or user that is not configured any more leaves what held at acceptance.
        """
        of_listener = self._listeners.get(listener) if listener is not None else None
        of_user = self._users.get(user) if user is not None else None
        is_gone = (listener is not None and of_listener is None) or (
            user is not None and of_user is None
        )
        of_then = accepted_in if is_gone else None
        return strictest(self._everywhere, of_listener, of_user, of_then)


class AddressPatterns:
    """A set of patterns; no entry matches more than it says.

    `dev@a.test` matches that address, `@a.test` that domain only, `.a.test` the domain and its
    subdomains. Domains without regard to case, local parts exactly but for ASCII case.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._addresses: set[str] = set()
        self._domains: set[str] = set()
        self._suffixes: tuple[str, ...] = ()
        for entry in entries:
            lowered = entry.lower() if entry.isascii() else entry
            if entry.startswith("@"):
                self._domains.add(lowered[1:])
            elif entry.startswith("."):
                self._domains.add(lowered[1:])
                self._suffixes += (lowered,)
            else:
                self._addresses.add(canonical(entry))

    def matches_address(self, address: str) -> bool:
        """True if the whole address is an entry."""
        return canonical(address) in self._addresses

    def matches_domain(self, address: str) -> bool:
        """True if the domain of the address is covered by an entry."""
        _, domain = split(address)
        if domain is None:
            return False
        domain = domain.lower() if domain.isascii() else domain
        return domain in self._domains or domain.endswith(self._suffixes)

    def matches(self, address: str) -> bool:
        """True if any entry matches."""
        return self.matches_address(address) or self.matches_domain(address)


# --- at acceptance -------------------------------------------------------------------------


class Fate(StrEnum):
    """What happens to a recipient at acceptance."""

    DELIVER = "deliver"
    CAPTURE = "capture"
    DROP = "drop"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Decision:
    """The fate of a recipient, why, and the address to use instead of the given one."""

    fate: Fate
    reason: str | None = None
    redirect_to: str | None = None


_DELIVER = Decision(Fate.DELIVER)
_NOT_ALLOWED = Decision(Fate.CAPTURE, CaptureCode.NOT_ALLOWED.sentence())
_SANDBOX = Decision(Fate.CAPTURE, CaptureCode.SANDBOX.sentence())
_NO_DOMAIN = Decision(
    Fate.CAPTURE,
    CaptureCode.NO_DOMAIN.sentence("; set rewrite.recipients or rewrite.default_domain"),
)


class RecipientPolicy:
    """Mode and lists of a configuration, compiled once."""

    def __init__(self, mode: Mode, recipients: Recipients) -> None:
        self._mode = mode
        self._allow = AddressPatterns(recipients.allow)
        self._has_block = bool(recipients.block)
        self._block = AddressPatterns(recipients.block)
        self._block_folded = AddressPatterns(
            folded(f"x{entry}")[1:] if entry.startswith("@") else folded(entry)
            for entry in recipients.block
        )
        self._refused = recipients.refused
        self._blocked = Decision(Fate(recipients.blocked), CaptureCode.BLOCKED.sentence())

    def is_allowed(self, address: str) -> bool:
        """True if the address is on the allow list.

        By a domain entry none without a domain, or that may be routed on in its local part.
        """
        if split(address)[1] is None:
            return False
        if self._allow.matches_address(address):
            return True
        return self._allow.matches_domain(address) and not is_routable_elsewhere(address)

    def is_blocked(self, address: str) -> bool:
        """True if any spelling of the address is on the block list."""
        return self._has_block and (
            self._block.matches(address) or self._block_folded.matches(folded(address))
        )

    def decide(self, address: str, mode: Mode | None = None) -> Decision:
        """Return a recipient's fate at acceptance; the stricter of both modes counts."""
        mode = strictest(self._mode, mode)
        if self.is_blocked(address):
            return self._blocked
        if mode is Mode.SANDBOX:
            return _SANDBOX
        if split(address)[1] is None:
            return _NO_DOMAIN
        if mode is Mode.PRODUCTION or self.is_allowed(address):
            return _DELIVER
        return self._decide_refused()

    def decide_archive(self, address: str, mode: Mode | None = None) -> Decision:
        """Return the fate of what goes to an archive: captured, where others are redirected."""
        decision = self.decide(address, mode)
        return _NOT_ALLOWED if decision.redirect_to else decision

    def _decide_refused(self) -> Decision:
        reason = CaptureCode.NOT_ALLOWED.sentence()
        target = self._refused.redirect_to
        if self._refused.action == "drop":
            return Decision(Fate.DROP, reason)
        if self._refused.action == "redirect" and target and self.is_allowed(target):
            return Decision(Fate.DELIVER, f"{reason}, redirected", redirect_to=target)
        return _NOT_ALLOWED

    def obstacle_in(self, mode: Mode, address: str) -> str | None:
        """Return why a permitted recipient may not be sent to in a mode, "mode" or "blocked"."""
        if self.is_blocked(address):
            return "blocked"
        is_permitted = mode is Mode.PRODUCTION or (
            mode is Mode.STAGING and self.is_allowed(address)
        )
        return None if is_permitted else "mode"


# --- at a release --------------------------------------------------------------------------


class Refusal(StrEnum):
    """Why a release to an address is not made."""

    INVALID = "invalid"  # it is no address, or has no domain
    BLOCKED = "blocked"
    OUTSIDE = "outside"  # not on the allow list: the only one that an admin may overrule
    WAITING = "waiting"  # the message is still to be sent there anyway
    NO_ROUTE = "no route"
    SUPPRESSED = "suppressed"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whom a release reaches (`released`), or why it does not (`refusal`, `detail`)."""

    released: Released | None
    refusal: Refusal | None = None
    detail: str = ""


def check_target(target: str) -> None:
    """Raise InvalidAddress unless `target` is an address with a domain, strictly."""
    try:
        size_bytes = len(target.encode())
    except UnicodeEncodeError as error:
        raise InvalidAddress("the address is not valid UTF-8") from error
    if size_bytes > MAX_PATH_BYTES:
        raise InvalidAddress("address too long")
    check_address(target)
    if split(target)[1] is None:
        raise InvalidAddress("it has no domain")


def check_typed(target: str) -> None:
    """Raise InvalidAddress unless somebody may name `target` to send to: all of it is seen."""
    check_target(target)
    unseen = next((sign for sign in target if not sign.isprintable()), "")
    if unseen:
        raise InvalidAddress(f"it has an invisible character, U+{ord(unseen):04X}")


def read_address(text: str) -> str:
    """Return the mailbox of an address as people write it. Raises InvalidAddress."""
    address = text.strip().removeprefix("<").removesuffix(">")
    check_typed(address)
    return mailbox(address)


# --- what is queued ------------------------------------------------------------------------

BY_MODE = HoldCause(HoldCode.MODE)
"""The cause of what the mode or the allow list of now does not permit."""


class Screened(NamedTuple):
    """The recipients of a delivery by what may happen to them now, and what its header may name."""

    sendable: tuple[Recipient, ...]
    blocked: tuple[Recipient, ...]
    held: tuple[Recipient, ...]
    suppressed: tuple[Recipient, ...] = ()
    field_rule: FieldRule | None = NO_FIELDS
    held_for: HoldCause = BY_MODE  # or a standing hold: once it has ended they are looked at again

    def by_address(self) -> dict[str, list[int]]:
        """Return the addresses to send to, one of each mailbox, and which recipients each has."""
        found: dict[str, list[int]] = {}
        names: dict[str, str] = {}
        for recipient in self.sendable:
            address = names.setdefault(mailbox(recipient.address), recipient.address)
            found.setdefault(address, []).append(recipient.rcpt_no)
        return found


NOBODY = Screened((), (), ())


class Screen:
    """Who may receive what is queued, by the settings of now (mode flips hold); compiled once."""

    def __init__(self, settings: Settings) -> None:
        self._modes = Modes(settings)
        self._policy = RecipientPolicy(settings.mode, settings.recipients)
        has_blocked = bool(settings.recipients.block)
        self._in_production = FieldRule(is_blocked=self._policy.is_blocked) if has_blocked else None
        self._by_mode = {mode: FieldRule(f"mode {mode.value}") for mode in Mode}
        self._released, self._resent = FieldRule("released mail"), FieldRule("mail sent again")
        self.standing: StandingHolds | None = None  # the standing holds of now

    def sort(self, claimed: ClaimedDelivery) -> Screened:
        """Return the pending recipients by what may happen to them."""
        accepted_in, released = _mode(claimed.mode), claimed.released
        obstacle = self.obstacle_of(claimed.source, accepted_in, released)
        holds = {} if self.standing is None else self.holds_of(claimed)
        by_obstacle: dict[str | None, list[Recipient]] = {
            **{None: [], "blocked": [], "held": []},
            "suppressed": [],
        }
        for recipient in claimed.recipients:
            found = obstacle(recipient.address)
            listed = recipient.listed
            if listed is not None and found is None and listed.action is Action.BLOCK:
                found = "suppressed"
            if found == "mode" or (found is None and recipient.rcpt_no in holds):
                found = "held"
            by_obstacle[found].append(recipient)
        held = tuple(by_obstacle["held"])
        standing = next(
            (
                holds[held_recipient.rcpt_no]
                for held_recipient in held
                if held_recipient.rcpt_no in holds
            ),
            None,
        )
        return Screened(
            sendable=tuple(by_obstacle[None]),
            blocked=tuple(by_obstacle["blocked"]),
            held=held,
            suppressed=tuple(by_obstacle["suppressed"]),
            field_rule=self.field_rule(claimed.source, accepted_in, released),
            held_for=BY_MODE if standing is None else standing.cause,
        )

    def holds_of(self, claimed: ClaimedDelivery) -> dict[int, StandingHold]:
        """Return the standing holds that keep recipients of a delivery, by recipient."""
        if self.standing is None:
            return {}
        holds = self.standing.of_each(
            (recipient.address for recipient in claimed.recipients),
            route=claimed.route,
            sender=claimed.sender,
            subject=claimed.subject,
            client=claimed.source.client,
        )
        each = zip(claimed.recipients, holds, strict=True)
        return {recipient.rcpt_no: hold for recipient, hold in each if hold is not None}

    def obstacle_of(
        self, source: Source, accepted_in: Mode, released: str | None
    ) -> Callable[[str], str | None]:
        """Return a function that says why an address may not be sent to; None: it may."""
        if released is None:
            mode = self._modes.of(source.listener, source.user, accepted_in=accepted_in)
        elif released == Released.RESENT:
            mode = self._strictest(source, accepted_in)
        elif released == Released.ANYONE or self._strictest(source, accepted_in) is Mode.PRODUCTION:
            mode = Mode.PRODUCTION
        else:  # the allow list of now, in sandbox mode, too
            mode = Mode.STAGING
        return partial(self._policy.obstacle_in, mode)

    def holds_back(
        self, source: Source, accepted_in: str, released: str | None, addresses: Iterable[str]
    ) -> bool:
        """Return whether mail would be held at once, as the mode or the allow list permits none."""
        obstacle = self.obstacle_of(source, _mode(accepted_in), released)
        return all(obstacle(address) == "mode" for address in addresses)

    def field_rule(
        self, source: Source, accepted_in: Mode, released: str | None = None
    ) -> FieldRule | None:
        """Return the rule for the header of a mail; None: all fields may be sent."""
        if released is not None:  # to whom somebody was shown, and to nobody else
            return self._resent if released == Released.RESENT else self._released
        mode = self._strictest(source, accepted_in)
        return self._in_production if mode is Mode.PRODUCTION else self._by_mode[mode]

    def permits_reports(self, claimed: ClaimedDelivery) -> bool:
        """Return whether a provider may report to the envelope sender: where it may be mailed to.

        Nobody confirmed the sender of what was released.
        """
        if not claimed.sender:
            return True  # there is nobody to report to
        if claimed.released is not None and claimed.released != Released.RESENT:
            return False
        mode = self._strictest(claimed.source, _mode(claimed.mode))
        return self._policy.obstacle_in(mode, claimed.sender) is None

    def judge(
        self, target: str, *, source: Source, accepted_in: Mode, anyone: bool = False
    ) -> Judgement:
        """Return whether a message may be released to `target`; `anyone`: an admin confirmed it."""
        try:
            check_target(target)
        except InvalidAddress as error:
            return Judgement(None, Refusal.INVALID, str(error))
        obstacle = self.obstacle_of(source, accepted_in, Released.ALLOWED)(target)
        if obstacle is None:
            return Judgement(Released.ALLOWED)
        if obstacle == "blocked":
            return Judgement(None, Refusal.BLOCKED)
        return Judgement(Released.ANYONE) if anyone else Judgement(None, Refusal.OUTSIDE)

    def _strictest(self, source: Source, accepted_in: Mode) -> Mode:
        now = self._modes.of(source.listener, source.user, accepted_in=accepted_in)
        return strictest(now, accepted_in)
