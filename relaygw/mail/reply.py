"""Replies of SMTP servers (RFC 5321, RFC 3463)."""

from __future__ import annotations

import re
from typing import NamedTuple

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)")


class EnhancedStatus(NamedTuple):
    """An enhanced status code, class.subject.detail."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"


class SmtpReply(NamedTuple):
    """One complete reply: its code and its text lines, without the code in front."""

    code: int
    lines: tuple[str, ...] = ("",)

    @property
    def text(self) -> str:
        """The lines joined by a space, as log lines and reports show them."""
        return " ".join(filter(None, self.lines))

    @property
    def status(self) -> EnhancedStatus | None:
        """The enhanced status of the first line, if its class fits the code (RFC 2034)."""
        match = _ENHANCED.match(self.lines[0]) if self.lines else None
        if match is None or int(match[1]) != self.code // 100:
            return None
        return EnhancedStatus(int(match[1]), int(match[2]), int(match[3]))

    @property
    def dsn(self) -> str:
        """The enhanced status, or the generic one of the reply's class (x.0.0)."""
        status = self.status
        if status is not None:
            return str(status)
        klass = self.code // 100
        return f"{klass if klass in (2, 4, 5) else 4}.0.0"

    @property
    def is_positive(self) -> bool:
        """True for 2xx."""
        return 200 <= self.code < 300

    @property
    def is_temporary(self) -> bool:
        """True for 4xx."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """True for 5xx."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return f"{self.code} {self.text}".rstrip()


_ID = r"<?([!-;=?-~]*[A-Za-z0-9])>?"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"\bqueued as {_ID}",  # Postfix and who talks like it: SendGrid, Mailjet, relaygw
        rf"\bids?={_ID}",  # Exim (SMTP2GO), KumoMTA
        r"\[InternalId=(\d+)",  # Exchange
        r"\bOK +\d{9,} +(\S+) +- +gsmtp\b",  # Gmail: the time, then the id
        rf"^{_ID} +message accepted for delivery",  # sendmail, OpenSMTPD
        r"\bqp +(\d+)$",  # qmail
        # the text is the id: SES, SparkPost; a word of letters alone is none
        r"^(?:message +)?OK:? +<?((?=\S*\d)[!-;=?-~]{8,})>?(?: +\[\S+)?$",
    )
)


def provider_id(reply: str) -> str | None:
    """Return the id that a provider gave a message, None when its 2xx reply names none.

    RFC 5321 section 4.2 leaves the text free; these are the forms in use. An id is what the
    provider's support and its own log ask for. `reply` is the reply to the content on one line.
    """
    text = re.sub(r"^2\d\d(?: |$)", "", reply.strip())
    text = re.sub(r"^2\.\d{1,3}\.\d{1,3}(?: |$)", "", text).strip()
    for form in _FORMS:
        match = form.search(text)
        if match is not None:
            return match[1]
    return None
