"""One row of the reply catalogue: which replies it knows, and what they mean.

The built-in catalogue and `providers.NAME.replies` have the same form. A row that could break
a promise is refused here: only a 5xx from MAIL on may bounce, and only a refusal (4xx or 5xx)
has a row at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from relaygw.mail.outcome import BEFORE_MAIL, Stage
from relaygw.settings.section import Conflict, Section
from relaygw.settings.units import Interval

StageName = Literal[
    "connect", "greeting", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data", "content"
]
"""`content` is the reply to the final dot."""

STAGES: dict[StageName, Stage] = {name: Stage[name.upper()] for name in get_args(StageName)}

_SCOPES = {
    "retry": ("recipient", "message", "credential", "provider"),
    "throttle": ("credential", "provider"),
    "hold": ("sender domain", "credential", "provider"),
    "bounce": ("recipient", "message"),
}
_OF_A_MESSAGE = ("recipient", "message", "sender domain")


def _check_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error}); correct it") from error
    return text


Expression = Annotated[str, AfterValidator(_check_expression)]


class ReplyRow(Section):
    """Conditions, all of which must hold (an empty one always does), and the meaning."""

    stages: tuple[StageName, ...] = ()  # empty: all; with verdict bounce, those from MAIL on
    code: Expression = ""  # the whole code: "421", "5.."
    status: Expression = ""  # the whole enhanced status; a reply without one does not match
    text: Expression = ""  # found anywhere in the text without addresses, case ignored
    verdict: Literal["retry", "throttle", "hold", "bounce"]
    scope: Literal["recipient", "message", "sender domain", "credential", "provider"] | None = None
    limit: Literal["rate", "connections"] | None = None  # of a throttle: what was exceeded
    wait: tuple[Interval, ...] = ()  # before the next try, the last one again and again
    explanation: str = ""
    remedy: str = ""
    source: str = ""  # where the text is documented

    def conflicts(self) -> Iterator[Conflict]:
        """Check that it breaks no promise."""
        early = next((name for name in self.stages if STAGES[name] in BEFORE_MAIL), None)
        yield from _condition_conflicts(self, early)
        yield from _meaning_conflicts(self, early)


def _condition_conflicts(row: ReplyRow, early: StageName | None) -> Iterator[Conflict]:
    if not (row.code or row.status or row.text):
        yield Conflict((), "matches every reply; give it a code, a status or a text")
    if row.code:
        matched = [code for code in range(200, 600) if re.fullmatch(row.code, str(code))]
        if not matched:
            problem = f'{row.code} matches no reply code; write e.g. "421" or "5.."'
            yield Conflict(("code",), problem)
        elif matched[0] < 400:
            yield Conflict(
                ("code",),
                f"{row.code} matches {matched[0]}, and only a 4xx or 5xx is a refusal; "
                'write e.g. "421" or "5.."',
            )
        elif matched[0] < 500 and row.verdict == "bounce":
            yield Conflict(
                ("code",), f'{row.code} matches {matched[0]}, and only a 5xx bounces; write "5.."'
            )
    if early and row.verdict == "bounce":
        yield Conflict(
            ("verdict",),
            f"bounce cannot be at stage {early}: a refusal before MAIL says nothing about a "
            "message; write hold or retry, or stages from mail on",
        )


def _meaning_conflicts(row: ReplyRow, early: StageName | None) -> Iterator[Conflict]:
    allowed = _SCOPES[row.verdict]
    if row.scope is not None and row.scope not in allowed:
        yield Conflict(
            ("scope",), f"{row.scope} does not go with {row.verdict}; write {' or '.join(allowed)}"
        )
    elif row.scope in _OF_A_MESSAGE and early and row.verdict != "bounce":
        yield Conflict(
            ("scope",),
            f"{row.scope} cannot be at stage {early}, where no message is known; write provider",
        )
    if row.limit is not None and row.verdict != "throttle":
        yield Conflict(("limit",), f"does not go with {row.verdict}; remove it, or write throttle")
    if row.wait and row.verdict == "bounce":
        yield Conflict(("wait",), "does not go with bounce, which is final; remove it")
