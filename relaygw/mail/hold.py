"""Why mail does not go: a code and a key for programs, and the sentence for people made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from relaygw.mail.address import split
from relaygw.mail.keys import packed, unpacked


class HoldCode(StrEnum):
    """What a delivery is held for; the last two put one off, and hold a provider."""

    MODE = "mode"  # the mode or the lists of the time of sending do not permit its recipients
    POISON = "poison"
    IN_DOUBT = "in_doubt"
    RECOVERED = "recovered"  # from a damaged queue, and may have been sent already
    RESTORED = "restored"  # from a backup, and may have been sent since
    SENDER_REFUSED = "sender_refused"  # by its providers, as long as their holds last
    NO_SENDER = "no_sender"  # no provider of its route may send as its sender
    OVER_QUOTA = "over_quota"
    NEEDS_8BITMIME = "needs_8bitmime"
    HEADER = "header"  # a field of it that names recipients, or has an idempotency key
    GUARD = "guard"  # its class of mail is held: see policy.guard
    STORM = "storm"  # the same mail to the same recipient, over and over
    CONTENT_CHECK = "content_check"  # what must not be mailed was found in it
    LOST_PROVIDER = "lost_provider"  # in doubt with one that its route has no more
    OPERATOR = "operator"
    STANDING = "standing"  # a standing hold: see mail.standing_hold
    OTHER = "other"
    PROVIDER_DOWN = "provider_down"
    REFUSED_ALIKE = "refused_alike"  # so many messages in a row, with the same words


OF_CONFIGURATION = frozenset(
    {
        HoldCode.SENDER_REFUSED,
        HoldCode.NO_SENDER,
        HoldCode.OVER_QUOTA,
        HoldCode.NEEDS_8BITMIME,
        HoldCode.HEADER,
    }
)
"""What another configuration may settle: a look at it again is worth while."""
SCREENED = frozenset({HoldCode.GUARD, HoldCode.STORM, HoldCode.CONTENT_CHECK})
"""What mail is held for at acceptance; the key is a word for what held it, and the reason."""
DOUBTFUL = frozenset({HoldCode.IN_DOUBT, HoldCode.LOST_PROVIDER})  # a provider may have it already
# `{}` stands for a part of the key, in its order; only the last one may have spaces
_SENTENCES = {
    HoldCode.MODE: "mode",
    HoldCode.POISON: "poison",
    HoldCode.IN_DOUBT: "in_doubt",
    HoldCode.RECOVERED: "recovered",
    HoldCode.RESTORED: "restored",
    HoldCode.SENDER_REFUSED: "sender domain {} is refused by {}",
    HoldCode.NO_SENDER: "no provider of route {} may send as {}",
    HoldCode.OVER_QUOTA: "no daily_quota of route {} covers its {} recipients",
    HoldCode.NEEDS_8BITMIME: "needs 8BITMIME, which no provider of route {} has for it: {}",
    HoldCode.LOST_PROVIDER: "in doubt with {}, which route {} has no more",
    HoldCode.GUARD: "held by the guard, {}: {}",
    HoldCode.STORM: "storm {}: {}",
    HoldCode.CONTENT_CHECK: "content check, {}: {}",
    HoldCode.OPERATOR: "operator: {}",
    HoldCode.STANDING: "standing hold {}: {}",
    HoldCode.PROVIDER_DOWN: "waits for provider {}",
    HoldCode.REFUSED_ALIKE: "{} messages in a row were refused alike: {}",
}
_IDENTITIES = re.compile(r"identities failed the check[^:]{0,200}:(.*)")  # as Amazon SES says it
_WORD = re.compile(r"[\w.-]+")  # what a domain is in a reply, beside others
OF_KEY = "its idempotency key"  # how the key of HEADER begins where the sender's own key is wrong
_OF_HEADER = ("field ", "its header ")  # see policy.recipient_fields and upstream.outgoing
SEVERAL = "several causes: "
"""How the sentence begins of mail that is held for more than one."""
_CODES = {code.value: code for code in HoldCode}
_BETWEEN_PROVIDERS = ", "


@dataclass(frozen=True, slots=True, order=True)
class HoldCause:
    """Why a delivery is held or put off, or a provider held; the key of OTHER is the sentence."""

    code: HoldCode
    key: str = ""

    @property
    def sentence(self) -> str:
        """What people read."""
        if self.code not in _SENTENCES:
            return self.key
        text = _SENTENCES[self.code]
        return text.format(*unpacked(self.key, text.count("{}") or 1))

    @property
    def words(self) -> str:
        """What was said: in what was refused alike, or as the reason."""
        if self.code is HoldCode.REFUSED_ALIKE:
            return unpacked(self.key)[1]
        return self.sentence

    @property
    def target(self) -> str:
        """The first part of the key: what holds it, such as an entry of the guard."""
        return unpacked(self.key)[0]

    @property
    def hold_id(self) -> str | None:
        """The standing hold that it waits for the end of, None of other causes."""
        return self.target if self.code is HoldCode.STANDING else None

    @property
    def is_of_several(self) -> bool:
        """True when it stands for several causes: see `several`."""
        return self.code is HoldCode.OTHER and self.key.startswith(SEVERAL)

    @property
    def domain(self) -> str:
        """The domain of a sender that is refused; "" of the null sender."""
        return self.target

    @property
    def providers(self) -> list[str]:
        """The providers that refuse a sender."""
        return unpacked(self.key)[1].split(_BETWEEN_PROVIDERS)

    def is_refused(self, provider: str, domain: str) -> bool:
        """True when it waits until this provider takes this sender's domain."""
        is_such = self.code is HoldCode.SENDER_REFUSED and self.domain == domain
        return is_such and provider in self.providers


SAID = HoldCause(HoldCode.OTHER)  # of a hold whose reason is what a provider said


def several(causes: Sequence[HoldCause]) -> HoldCause:
    """Return the cause that a delivery names that is held for all of these, one at least."""
    if len(causes) == 1:
        return causes[0]
    return HoldCause(HoldCode.OTHER, SEVERAL + "; ".join(cause.sentence for cause in causes))


def sender_refused(domain: str, providers: Iterable[str]) -> HoldCause:
    """Return the cause of mail that waits until a provider takes a sender's domain."""
    names = _BETWEEN_PROVIDERS.join(providers)
    return HoldCause(HoldCode.SENDER_REFUSED, packed(domain, names))


def probed_provider(code: str, key: str | None) -> str | None:
    """Return the provider whose hold of its sender a delivery probes, by the hold it was let of."""
    return unpacked(key or "")[1] if code == HoldCode.SENDER_REFUSED else None


def provider_down(provider: str) -> HoldCause:
    """Return the cause of mail that is put off, as only a provider in trouble may take it."""
    return HoldCause(HoldCode.PROVIDER_DOWN, provider)


@lru_cache(maxsize=1024)  # most mail is of few senders
def sender_domain(sender: str) -> str:
    """Return the domain that holds of senders are about; "" of the null sender."""
    domain = split(sender)[1] or ""
    return domain.lower() if domain.isascii() else domain


def refused_domain(said: str, domains: Sequence[str]) -> str | None:
    """Return which of a mail's `domains`, its sender's first, a refusal of its sender is about.

    None: it lists the identities at fault, and none of them is a domain of the mail.
    """
    said = said.lower()
    listed = _IDENTITIES.search(said)
    named = {word.rstrip(".") for word in _WORD.findall(said if listed is None else listed[1])}
    unnamed = domains[0] if listed is None else None
    return next((domain for domain in domains if domain in named), unnamed)


# --- sentences that have no code ----------------------------------------------------------

_PATTERNS = {
    code: re.compile(
        re.escape(text).replace(r"\{\}", r"(\S*)", text.count("{}") - 1).replace(r"\{\}", "(.*)"),
        re.DOTALL,
    )
    for code, text in _SENTENCES.items()
}


def cause_of(sentence: str) -> HoldCause:
    """Return the cause of what was held by a version before schema 0007."""
    for code, pattern in _PATTERNS.items():
        match = pattern.fullmatch(sentence)
        if match is not None:
            return HoldCause(code, " ".join(match.groups()))
    is_of_header = sentence.startswith(_OF_HEADER)
    return HoldCause(HoldCode.HEADER if is_of_header else HoldCode.OTHER, sentence)


def cause_in(code: str | None, key: str | None, sentence: str | None) -> HoldCause:
    """Return the cause of a hold as the queue keeps it.

    A version before schema 0007 writes the sentence alone: an older code counts if it is its own.
    """
    if code in _CODES:
        cause = HoldCause(_CODES[code], key or "")
        if cause.sentence == (sentence or ""):
            return cause
    return cause_of(sentence or "")
