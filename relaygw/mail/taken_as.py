"""The id that a provider gave a message, read from its reply to the content.

There is no rule for where it stands (RFC 5321 section 4.2 leaves the text free); these are the
forms in use. An id is what the provider's support and its own log ask for.
"""

from __future__ import annotations

import re

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
    """Return the queue id in the text of a 2xx reply, None when it names none.

    `reply` is the whole reply on one line; code and enhanced status are passed over.
    """
    text = re.sub(r"^2\d\d(?: |$)", "", reply.strip())
    text = re.sub(r"^2\.\d{1,3}\.\d{1,3}(?: |$)", "", text).strip()
    for form in _FORMS:
        match = form.search(text)
        if match is not None:
            return match[1]
    return None
