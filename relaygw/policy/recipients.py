"""Who receives: block list, mode and allow list, at acceptance and again at each attempt.

Fails closed: whatever is not clearly permitted is captured or held, never sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relaygw.mail.address import folded, is_routable_elsewhere, split
from relaygw.policy.modes import strictest
from relaygw.policy.patterns import AddressPatterns
from relaygw.settings.mode import Mode
from relaygw.settings.model import Recipients


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


def _folded_entry(entry: str) -> str:
    return folded(f"x{entry}")[1:] if entry.startswith("@") else folded(entry)


_DELIVER = Decision(Fate.DELIVER)
_NO_DOMAIN = "local recipient without a rule; set rewrite.recipients or rewrite.default_domain"
_BLOCKED_FATES = {"drop": Fate.DROP, "reject": Fate.REJECT, "capture": Fate.CAPTURE}


class RecipientPolicy:
    """Mode and lists of a configuration, compiled once."""

    def __init__(self, mode: Mode, recipients: Recipients) -> None:
        self._mode = mode
        self._allow = AddressPatterns(recipients.allow)
        self._block = AddressPatterns(recipients.block)
        self._block_folded = AddressPatterns(map(_folded_entry, recipients.block))
        self._refused = recipients.refused
        self._blocked_fate = _BLOCKED_FATES[recipients.blocked]

    def is_allowed(self, address: str) -> bool:
        """True if the address is on the allow list.

        An address that a provider might route on within its local part is never allowed by
        a domain entry, nor is one without a domain.
        """
        if split(address)[1] is None:
            return False
        if self._allow.matches_address(address):
            return True
        return self._allow.matches_domain(address) and not is_routable_elsewhere(address)

    def is_blocked(self, address: str) -> bool:
        """True if any spelling of the address is on the block list."""
        return self._block.matches(address) or self._block_folded.matches(folded(address))

    def decide(self, address: str, mode: Mode | None = None) -> Decision:
        """Return what happens to a recipient when its message is accepted.

        `mode` is that of its listener or user, where it is stricter than the gateway's.
        """
        mode = strictest(self._mode, mode)
        if self.is_blocked(address):
            return Decision(self._blocked_fate, "on the block list")
        if mode is Mode.SANDBOX:
            return Decision(Fate.CAPTURE, "sandbox mode")
        if split(address)[1] is None:
            return Decision(Fate.CAPTURE, _NO_DOMAIN)
        if mode is Mode.PRODUCTION or self.is_allowed(address):
            return _DELIVER
        return self._decide_refused()

    def _decide_refused(self) -> Decision:
        reason = "staging: not on the allow list"
        target = self._refused.redirect_to
        if self._refused.action == "drop":
            return Decision(Fate.DROP, reason)
        if self._refused.action == "redirect" and target and self.is_allowed(target):
            return Decision(Fate.DELIVER, f"{reason}, redirected", redirect_to=target)
        return Decision(Fate.CAPTURE, reason)

    def obstacle(self, address: str, mode: Mode | None = None) -> str | None:
        """Return why a recipient that was permitted at acceptance may not be sent to now.

        `mode` (held, nothing is lost by a mistaken reload), `blocked`, or None. `mode` is as for
        `decide`.
        """
        mode = strictest(self._mode, mode)
        if self.is_blocked(address):
            return "blocked"
        if mode is Mode.SANDBOX:
            return "mode"
        if mode is Mode.STAGING and not self.is_allowed(address):
            return "mode"
        return None
