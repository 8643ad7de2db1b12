"""What people and files say of suppressions: fields are read, and entries made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from relaygw.errors import InvalidAddress
from relaygw.mail.suppression import ANY, Cause, Suppression, SuppressionRules, as_promotional

Read = TypeVar("Read")


def read_field(
    read: Callable[[str], Read], text: str, wrong: Callable[[object], Exception]
) -> Read:
    """Return the value that `read` makes of a text. Raises `wrong` with the reason if it cannot."""
    try:
        return read(text)
    except (InvalidAddress, ValueError) as error:
        raise wrong(error) from error


def entries_of(
    mailboxes: Iterable[str],
    *,
    sender_domain: str,
    stream: str | None,
    cause: Cause,
    source: str,
    note: str,
    rules: SuppressionRules,
    now_ms: int,
    lasts_s: float | None = None,
) -> list[Suppression]:
    """Return suppressions of mailboxes as an operator names them; `lasts_s` None: as the rules."""
    return [
        as_promotional(
            Suppression(
                address=address,
                sender_domain=sender_domain,
                stream=stream or ANY,
                cause=cause,
                source=source,
                detail=note,
                created_at_ms=now_ms,
                expires_at_ms=rules.expiry(cause, now_ms, lasts_s),
            )
        )
        for address in mailboxes
    ]
