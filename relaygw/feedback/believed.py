"""What is believed of a bounce mail: that which names a mail and a recipient that we sent it to.

Anybody may write a bounce mail. What names nobody whom a provider took that mail for is kept as an
event of unknown mail, and has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relaygw.feedback import bounce_mail
from relaygw.mail.verdict import BOUNCE_MAIL, Event
from relaygw.store.feedback import StoredPost
from relaygw.store.mail_of_event import Found

Told = tuple[StoredPost, Event]
_ID_CHARACTERS = 40


def bounce_events(
    post: StoredPost, hostname: str, content_of: Callable[[str], bytes | None]
) -> list[Event]:
    """Return what a bounce mail tells, a recipient under each address that it has there.

    `content_of` returns the start of a message by its queue id; None: it was deleted meanwhile.
    """
    content = content_of(post.body.decode("ascii", "replace")[:_ID_CHARACTERS])
    if content is None:
        return []
    mentions = bounce_mail.read(content, received_at_ms=post.received_at_ms, hostname=hostname)
    return [event for mention in mentions for event in mention.events]


def believed(told: Sequence[Told], found: Sequence[Found]) -> tuple[list[Told], list[Found]]:
    """Return what counts: of a bounce mail each thing once, by the address that we sent to."""
    chosen: dict[object, tuple[Told, Found]] = {}
    for number, (one, its) in enumerate(zip(told, found, strict=True)):
        post, event = one
        if post.provider != BOUNCE_MAIL:
            chosen[number] = one, its
            continue
        key = (post.post_no, event.key)
        its = its if its.rcpt_nos else Found()
        if key not in chosen or (its.rcpt_nos and not chosen[key][1].rcpt_nos):
            chosen[key] = one, its
    return [one for one, _ in chosen.values()], [its for _, its in chosen.values()]
