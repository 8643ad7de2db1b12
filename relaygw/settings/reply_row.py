"""One row of the reply catalogue: which replies it knows, and what they mean.

The built-in catalogue and `providers.NAME.replies` have the same form.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from relaygw.settings.section import Section
from relaygw.settings.units import Duration

StageName = Literal[
    "connect", "greeting", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data", "content"
]
"""`content` is the reply to the final dot."""


def _check_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error}); correct it") from error
    return text


Expression = Annotated[str, AfterValidator(_check_expression)]


class ReplyRow(Section):
    """Conditions, all of which must hold (an empty one always does), and the meaning."""

    stages: tuple[StageName, ...] = ()
    code: Expression = ""  # the whole code: "421", "5.."
    status: Expression = ""  # the whole enhanced status; a reply without one does not match
    text: Expression = ""  # found anywhere in the text, case ignored
    verdict: Literal["retry", "throttle", "hold", "bounce"]
    scope: Literal["recipient", "message", "sender domain", "credential", "provider"] | None = None
    limit: Literal["rate", "connections"] | None = None  # of a throttle: what was exceeded
    wait: tuple[Duration, ...] = ()  # before the next try, the last one again and again
    explanation: str = ""
    remedy: str = ""
    source: str = ""  # where the text is documented
