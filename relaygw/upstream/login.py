"""What goes into AUTH, and every form in which it could come back."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from relaygw.mail.reply import SmtpReply

_SHORTEST = 6
"""Characters of what is masked at all. Less guards nothing, stands in ordinary words ("limit"), and
whoever knows the words would read the password from the gap."""
_LONG = 12
"""From here on it is masked wherever it stands, and so is a word that begins like it; what is
shorter only as a word of its own: "exceed" is none in "exceeded"."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Login:
    """A user name with a password, or with an access token for XOAUTH2.

    `material` is all that was read to get there; `is_kept` says that some of it comes from an
    earlier reading, so that reading again may bring something else.
    """

    username: str
    secret: str
    is_token: bool = False
    is_kept: bool = False
    material: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Login {self.username}>"


class Mask:
    """Takes a login's secret out of what is shown of a provider: plain, base64, percent-encoded.

    A word that begins with a good part of it goes, too: who echoes a command may cut it. For what
    is shown, logged and stored only: what a reply means is asked of the reply as it came.
    """

    def __init__(self, login: Login) -> None:
        # the longest first: one is a part of another
        forms = {form for form in _forms(login) if len(form) >= _SHORTEST}
        self._forms = sorted(forms, key=len, reverse=True)
        heads = (form[:_LONG] for form in self._forms if len(form) >= _LONG)
        self._heads = list(dict.fromkeys(heads))

    def __call__(self, text: str) -> str:
        """Return `text` without the secret."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, "***") if len(form) >= _LONG else _without(form, text)
        for head in self._heads:
            if head in text:
                text = re.sub(re.escape(head) + r"\S*", "***", text)
        return text

    def reply(self, reply: SmtpReply) -> SmtpReply:
        """Return a reply without the secret."""
        return SmtpReply(reply.code, tuple(map(self, reply.lines)))


def _without(word: str, text: str) -> str:
    """Return `text` without `word` where neither letter nor digit goes on on either side."""
    before = r"(?<![^\W_])" if word[0].isalnum() else ""
    after = r"(?![^\W_])" if word[-1].isalnum() else ""
    return re.sub(f"{before}{re.escape(word)}{after}", "***", text)


def masked(text: str, login: Login) -> str:
    """Return `text` without the login's secret; see Mask."""
    return Mask(login)(text)


def _forms(login: Login) -> Iterator[str]:
    """Yield what a provider may have seen."""
    name, secret = login.username, login.secret
    for text in (f"\0{name}\0{secret}", f"user={name}\1auth=Bearer {secret}\1\1", secret):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            coded = encode(text.encode()).decode()
            yield from (coded, coded.rstrip("="), quote(coded, safe=""))
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret, safe=""))
