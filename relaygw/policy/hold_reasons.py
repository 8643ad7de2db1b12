"""Why deliveries are held, and providers: words and sentences. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from relaygw.mail.address import split

REASON_IN_DOUBT = "in_doubt"
REASON_MODE = "mode"
REASON_POISON = "poison"
REASON_RECOVERED = "recovered"
_PARKED = re.compile(r"sender domain (\S*) is refused by (.+)")
_NO_SENDER = "no provider of route"
_OVER_QUOTA = "no daily_quota"
_NEEDS_8BITMIME = "needs 8BITMIME"
_IN_HEADER = ("field ", "its header ")  # see policy.recipient_fields and upstream.content
_LOST_PROVIDER = "in doubt with"
_OPERATOR = "operator: "


class Why(StrEnum):
    """Why a delivery is held, as a word; docs/states.md has a row for each."""

    MODE = "mode"  # the mode or the lists of the time of sending do not permit its recipients
    POISON = "poison"
    IN_DOUBT = "in_doubt"
    SENDER_REFUSED = "sender_refused"  # by its providers, as long as their holds last
    NO_SENDER = "no_sender"  # no provider of its route may send as its sender
    OVER_QUOTA = "over_quota"
    CONTENT = "content"  # no provider of its route can be given it as it is
    RECOVERED = "recovered"  # from a damaged queue, and may have been sent already
    OPERATOR = "operator"
    OTHER = "other"


def why_held(reason: str) -> Why:
    """Return the word for the reason of a held delivery."""
    if parked_for(reason) is not None:
        return Why.SENDER_REFUSED
    known = (
        (REASON_MODE, Why.MODE),
        (REASON_POISON, Why.POISON),
        (REASON_IN_DOUBT, Why.IN_DOUBT),
        (REASON_RECOVERED, Why.RECOVERED),
    )
    beginnings = (
        (_LOST_PROVIDER, Why.IN_DOUBT),
        (_NO_SENDER, Why.NO_SENDER),
        (_OVER_QUOTA, Why.OVER_QUOTA),
        (_OPERATOR, Why.OPERATOR),
        *((text, Why.CONTENT) for text in (_NEEDS_8BITMIME, *_IN_HEADER)),
    )
    exact = (why for text, why in known if reason == text)
    begun = (why for text, why in beginnings if reason.startswith(text))
    return next(exact, None) or next(begun, Why.OTHER)


def operator_reason(note: str) -> str:
    """Return the reason of what an operator holds."""
    return f"{_OPERATOR}{note}"


def held_sender_reason(providers: Iterable[str], domain: str) -> str:
    """Return the reason of deliveries that wait until a provider takes a sender's domain."""
    return f"sender domain {domain} is refused by {', '.join(providers)}"


def parked_for(reason: str) -> tuple[frozenset[str], str] | None:
    """Return the providers and the sender's domain of such a reason, None of another one."""
    match = _PARKED.fullmatch(reason)
    return (frozenset(match[2].split(", ")), match[1]) if match else None


def no_sender_reason(route: str, sender: str) -> str:
    """Return the reason of deliveries whose sender no provider of the route may send as."""
    return f"{_NO_SENDER} {route} may send as {sender}"


def over_quota_reason(route: str, recipients: int) -> str:
    """Return the reason of a delivery with more recipients than a day's quota."""
    return f"{_OVER_QUOTA} of route {route} covers its {recipients} recipients"


_REFUSED_ALIKE = " messages in a row were refused alike: "


def refused_alike(number: int, words: str) -> str:
    """Return the reason of a provider's hold that so many refusals in these words have set."""
    return f"{number}{_REFUSED_ALIKE}{words}"


def words_refused_alike(reason: str) -> str | None:
    """Return the words of such a hold, None for the reason of another one."""
    _, is_such, words = reason.partition(_REFUSED_ALIKE)
    return words if is_such else None


def waits_for_provider(provider: str) -> str:
    """Return the reason of deliveries that only a provider in trouble may take."""
    return f"waits for provider {provider}"


def needs_8bitmime_reason(route: str, why: str) -> str:
    """Return the reason of content that no provider of the route can be given as it is."""
    return f"{_NEEDS_8BITMIME}, which no provider of route {route} has for it: {why}"


def is_of_header(reason: str) -> bool:
    """True for what a field of the header that names recipients is the reason for."""
    return reason.startswith(_IN_HEADER)


def is_in_8_bit(reason: str) -> bool:
    """True for content that needs a provider with 8BITMIME."""
    return reason.startswith(_NEEDS_8BITMIME)


def lost_provider_reason(route: str, provider: str) -> str:
    """Return the reason of a delivery in doubt with a provider that its route has no more."""
    return f"{_LOST_PROVIDER} {provider}, which route {route} has no more"


def is_of_configuration(reason: str) -> bool:
    """True for what another configuration may settle: a look at it again is worth while."""
    return (
        reason.startswith((_NO_SENDER, _OVER_QUOTA, _NEEDS_8BITMIME, *_IN_HEADER))
        or parked_for(reason) is not None
    )


def sender_domain(sender: str) -> str:
    """Return the domain that holds of senders are about; "" of the null sender."""
    domain = split(sender)[1] or ""
    return domain.lower() if domain.isascii() else domain
