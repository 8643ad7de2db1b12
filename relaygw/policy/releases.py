"""Who may get captured mail that somebody lets go: asked at the release, and at each attempt.

A release takes nothing back of what held when the message was accepted. What was captured in
staging or sandbox mode reaches the allow list of now, in whatever mode the gateway is now; only
an admin may name others, one by one. The block list holds for everybody. `rewrite` and
`recipients.refused` do not touch a target: what was shown and confirmed stands in RCPT TO.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relaygw.errors import InvalidAddress
from relaygw.mail.address import MAX_PATH_BYTES, check_address, split
from relaygw.mail.envelope import Released, Source
from relaygw.policy.modes import Modes, strictest
from relaygw.policy.recipients import RecipientPolicy
from relaygw.settings.mode import Mode
from relaygw.settings.model import Settings

CAPTURED_AS_INVALID = "invalid address"
"""How the reason begins of a recipient that is kept in a readable form, which may be another's."""


class Refusal(StrEnum):
    """Why a release to an address is not made."""

    INVALID = "invalid"  # it is no address, or has no domain
    BLOCKED = "blocked"
    OUTSIDE = "outside"  # not on the allow list: the only one that an admin may overrule
    WAITING = "waiting"  # the message is still to be sent there anyway
    NO_ROUTE = "no route"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whom a release reaches (`released`), or why it does not (`refusal`, `detail`)."""

    released: Released | None
    refusal: Refusal | None = None
    detail: str = ""


class ReleasePolicy:
    """Mode and lists of a configuration as they hold for releases, compiled once."""

    def __init__(self, settings: Settings) -> None:
        self._modes = Modes(settings)
        self._recipients = RecipientPolicy(settings.mode, settings.recipients)

    def _asks_list(self, source: Source, accepted_in: Mode) -> bool:
        """True unless the message was accepted in production mode, and that holds now, too."""
        now = self._modes.of(source.listener, source.user, accepted_in=accepted_in)
        return strictest(now, accepted_in) is not Mode.PRODUCTION

    def judge(
        self, target: str, *, source: Source, accepted_in: Mode, anyone: bool = False
    ) -> Judgement:
        """Return whether a message may be released to `target`.

        `anyone`: an admin has confirmed that this very address gets it although it is not on the
        allow list.
        """
        try:
            check_target(target)
        except InvalidAddress as error:
            return Judgement(None, Refusal.INVALID, str(error))
        if self._recipients.is_blocked(target):
            return Judgement(None, Refusal.BLOCKED)
        if not self._asks_list(source, accepted_in) or self._recipients.is_allowed(target):
            return Judgement(Released.ALLOWED)
        return Judgement(Released.ANYONE) if anyone else Judgement(None, Refusal.OUTSIDE)

    def obstacle(
        self, address: str, *, released: str, source: Source, accepted_in: Mode
    ) -> str | None:
        """Return why a released recipient may not be sent to now; see RecipientPolicy.obstacle."""
        if self._recipients.is_blocked(address):
            return "blocked"
        if released == Released.ANYONE or not self._asks_list(source, accepted_in):
            return None
        return None if self._recipients.is_allowed(address) else "mode"


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


def was_invalid(reason: str | None) -> bool:
    """True of a recipient that was captured because nobody can read it as an address."""
    return (reason or "").startswith(CAPTURED_AS_INVALID)
