"""What a provider's last reply for one recipient tells: its own queue id, or why it refused.

The queue keeps a reply without its stage, so the stage is the first one at which a row knows the
reply and means what was done about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.mail.state import RecipientState
from relaygw.mail.taken_as import provider_id

if TYPE_CHECKING:
    from relaygw.mail.outcome import Meaning
    from relaygw.settings.model import Settings
    from relaygw.store.protocol import RecipientEntry

_REPLY = re.compile(r"([2-5]\d\d)(?: (.*))?")
_STAGES = (
    Stage.CONTENT,
    Stage.RCPT,
    Stage.MAIL,
    Stage.DATA,
    Stage.AUTH,
    Stage.GREETING,
    Stage.EHLO,
    Stage.STARTTLS,
)
_UNDECIDED = frozenset({Verdict.RETRY, Verdict.THROTTLE, Verdict.HOLD})


def reply_story(settings: Settings, one: RecipientEntry) -> Iterator[str]:
    """Yield lines about the last reply for `one`; none when it tells nothing more."""
    match = _REPLY.fullmatch(one.reply or "")
    if match is None or one.provider is None:
        return
    reply = SmtpReply(int(match[1]), (match[2] or "",))
    if one.state is RecipientState.DELIVERED:
        own_id = provider_id(str(reply))
        if own_id is not None:
            yield f"queue id at {one.provider}: {own_id}"
        return
    meaning = _meaning(settings, one, reply)
    if meaning is not None and meaning.explanation:
        yield f"meaning: {meaning.explanation}"
    if meaning is not None and meaning.remedy:
        yield f"remedy: {meaning.remedy}"


def _meaning(settings: Settings, one: RecipientEntry, reply: SmtpReply) -> Meaning | None:
    from relaygw.upstream.classifier import Classifier

    provider = settings.providers.get(one.provider or "")
    if provider is None:
        return None
    classifier = Classifier(provider)
    done = {Verdict.BOUNCE} if one.state is RecipientState.BOUNCED else _UNDECIDED
    meanings = [classifier.meaning(stage, reply) for stage in _STAGES]
    found = [meaning for meaning in meanings if meaning.verdict in done]
    return next((one for one in found if one.rule != "none"), found[0] if found else None)
