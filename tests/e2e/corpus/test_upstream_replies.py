"""Replies that no provider should give: mail waits or bounces as they deserve, never vanishes.

Each case has a provider of its own, which misbehaves once and then works. So a deferral shows
twice: the first try is not `status=sent`, the second one delivers, once. A mess after the final
dot leaves the mail in doubt: it waits, and nobody says that it was sent.
RFC 5321 sections 4.2 and 4.5.3.1.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from relaygw.mail.state import RecipientState
from tests.e2e.corpus.rig import MARGIN_KIB, Rig, memory_bounded, running_rig
from tests.fakes.scripted_provider import DEFAULT_EXTENSIONS, Action, Script, ThreadedProvider

_SMALL = b"Subject: t\r\n\r\nA\r\n"
_LARGE = b"Subject: t\r\n\r\n" + (b"x" * 76 + b"\r\n") * 100_000
_DEFERRED, _DOUBTED, _BOUNCED, _SENT = "deferred", "in doubt", "bounced", "sent"

# verbs at which a garbled reply is tried; after the final dot it means doubt
_STAGES = {
    "greeting": _DEFERRED,
    "EHLO": _DEFERRED,
    "MAIL": _DEFERRED,
    "RCPT": _DEFERRED,
    "DATA": _DEFERRED,
    "CONTENT": _DOUBTED,
}
_CODES = {"greeting": b"220", "DATA": b"354"}
_GARBAGE = {
    "U1": b"250-more\r\n" * 200_000,
    "U2": b"250 " + b"x" * 2**20,
    "U3": b"abc\r\n",
    "U4-two-digits": b"99 x\r\n",
    "U4-out-of-range": b"999 x\r\n",
    "U4-underscore": b"250_ok\r\n",
    "U5": b"250-a\r\n550 b\r\n",
    "U6": b"250 ok\n",
}


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One row: what the provider says at which verb, and what becomes of the mail."""

    id: str
    verb: str = ""
    says: Script = b""
    outcome: str
    log: str = ""  # pattern in the record of the first attempt
    content: bytes = _SMALL
    extensions: tuple[str, ...] = DEFAULT_EXTENSIONS
    is_content_sent: bool = True  # by the end

    @property
    def domain(self) -> str:
        return f"{self.id.lower()}.test"


# greeting and EHLO reply are read more kindly, and a 5xx to EHLO leads to HELO: no mail is at stake
_FORGIVEN = {
    *("U4-underscore-greeting", "U4-underscore-EHLO"),
    "U5-EHLO",
    *("U6-greeting", "U6-EHLO"),
}


def _garbled(name: str, verb: str) -> Trouble:
    row = f"{name}-{verb}"
    outcome = _SENT if row in _FORGIVEN else _STAGES[verb]
    code = _CODES.get(verb, b"250")  # garbled, but with the digits that would be right
    return Trouble(id=row, verb=verb, says=_GARBAGE[name].replace(b"250", code), outcome=outcome)


TROUBLES = (
    *(_garbled(name, verb) for name in _GARBAGE for verb in _STAGES),
    # a code without text is legal, and clients must take it (RFC 5321 section 4.2)
    Trouble(id="U4-bare-MAIL", verb="MAIL", says=b"250\r\n", outcome=_SENT),
    Trouble(id="U4-bare-CONTENT", verb="CONTENT", says=b"250\r\n", outcome=_SENT),
    Trouble(
        id="U7-bounce",
        verb="RCPT",
        says=b"550 5.1.1 \x1b[31mred b\xe4d \xc2\x9b1m\x07 end\r\n",
        outcome=_BOUNCED,
        log=r"dsn=5\.1\.1, status=bounced \(550 5\.1\.1 \?\[31mred .* end\)",
        is_content_sent=False,
    ),
    Trouble(
        id="U7-sent",
        verb="CONTENT",
        says=b"250 2.0.0 \x1b]0;owned\x07 b\xe4d\r\n",
        outcome=_SENT,
        log=r"status=sent \(250 2\.0\.0 \?\]0;owned\? b.d\)",
    ),
    Trouble(id="U8-greeting", verb="greeting", says=b"220 a\r\n250 b\r\n", outcome=_DEFERRED),
    Trouble(id="U8-EHLO", verb="EHLO", says=b"250 a\r\n250 b\r\n", outcome=_DEFERRED),
    Trouble(id="U8-MAIL", verb="MAIL", says=b"250 a\r\n250 b\r\n", outcome=_DEFERRED),
    Trouble(id="U8-RCPT", verb="RCPT", says=b"250 a\r\n250 b\r\n", outcome=_DEFERRED),
    Trouble(id="U8-DATA", verb="DATA", says=b"354 a\r\n250 b\r\n", outcome=_DEFERRED),
    Trouble(id="U9", verb="MAIL", says=b"354 go\r\n", outcome=_DEFERRED),
    Trouble(id="U10", verb="DATA", says=b"250 2.0.0 Ok\r\n", outcome=_DEFERRED),
    Trouble(id="U11-DATA", verb="DATA", says=b"354 go\r\n354 go\r\n", outcome=_DEFERRED),
    Trouble(id="U11-CONTENT", verb="CONTENT", says=b"354 go\r\n", outcome=_DOUBTED),
    Trouble(id="U12", verb="EHLO", says=b"500 5.5.2 what?\r\n", outcome=_SENT),
    Trouble(
        id="U13",
        outcome=_BOUNCED,
        extensions=("PIPELINING", "SIZE 1"),
        log=r"dsn=5\.3\.4, status=bounced",
        is_content_sent=False,
    ),
    Trouble(
        id="U14",
        verb="DATA",
        says=(b"354 go\r\n", b"550 5.6.0 no\r\n", Action.DROP),
        outcome=_BOUNCED,
        content=_LARGE,
        log=r"dsn=5\.6\.0, status=bounced \(550 5\.6\.0 no\)",
        is_content_sent=False,
    ),
)


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, ThreadedProvider]]:
    with ExitStack() as stack:
        yield {
            trouble.domain: stack.enter_context(ThreadedProvider(extensions=trouble.extensions))
            for trouble in TROUBLES
        }


@pytest.fixture(scope="module")
def rig(
    tmp_path_factory: pytest.TempPathFactory, providers: dict[str, ThreadedProvider]
) -> Iterator[Rig]:
    others = {
        domain.removesuffix(".test"): (provider, f"@{domain}")
        for domain, provider in providers.items()
    }
    with running_rig(tmp_path_factory.mktemp("replies"), others=others) as rig:
        yield rig


@dataclass
class FirstTries:
    """The mail of each case, sent once: its queue id and the record of the first attempt."""

    rig: Rig
    providers: dict[str, ThreadedProvider]
    records: dict[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, trouble: Trouble) -> tuple[str, str]:
        if trouble.id not in self.records:
            if trouble.verb:
                self.providers[trouble.domain].script(trouble.verb, trouble.says)
            gateway, start = self.rig.gateway, len(self.rig.gateway.lines)
            recipient = f"r@{trouble.domain}"
            with memory_bounded(self.rig.pid("delivery"), growth_kib=1024 + MARGIN_KIB):
                queue_id = gateway.send("s@ok.test", [recipient], trouble.content)
                (first, *_) = gateway.wait_for_log(rf"{queue_id}: to=.*status=", start=start)
            self.records[trouble.id] = queue_id, first
        return self.records[trouble.id]


@pytest.fixture(scope="module")
def first_tries(rig: Rig, providers: dict[str, ThreadedProvider]) -> FirstTries:
    return FirstTries(rig, providers)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.id)
def test_upstream_replies(first_tries: FirstTries, trouble: Trouble) -> None:
    _, first = first_tries.of(trouble)
    status = "deferred" if trouble.outcome is _DOUBTED else trouble.outcome
    assert f"status={status} (" in first, first
    assert re.search(trouble.log, first), first
    assert ("may be sent more than once" in first) == (trouble.outcome is _DOUBTED), first


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.id)
def test_end(rig: Rig, first_tries: FirstTries, trouble: Trouble) -> None:
    queue_id, _ = first_tries.of(trouble)
    provider = first_tries.providers[trouble.domain]
    if trouble.outcome is _DOUBTED:
        (recipient,) = rig.gateway.entry(queue_id).recipients
        assert recipient.state is RecipientState.PENDING
        provider.wait_until(lambda: provider.connections[0].is_closed)
        assert len(provider.connections) == 1
        return
    rig.gateway.wait_for_log(rf"{queue_id}: removed")
    provider.run(provider.note())
    assert len(provider.messages) == trouble.is_content_sent
    (recipient,) = rig.gateway.entry(queue_id).recipients
    assert (recipient.reply or "").isprintable()
    if trouble.outcome is _DEFERRED:
        assert provider.messages[0].connection_no > 0, "a connection out of step was used again"
    if trouble.id == "U13":
        assert "MAIL" not in provider.connections[0].verbs()


def test_reply_too_many_at_the_end(rig: Rig) -> None:
    """U8: one reply more than asked for, behind a good one: that connection is not used again."""
    start = len(rig.provider.messages)
    rig.provider.script("CONTENT", b"250 2.0.0 Ok\r\n250 2.0.0 and more\r\n")
    for _ in range(2):
        queue_id = rig.gateway.send("s@ok.test", ["r@rd.test"], _SMALL)
        rig.gateway.wait_for_log(rf"{queue_id}: removed")
    rig.provider.run(rig.provider.note())
    first, second = rig.provider.messages[start:]
    assert first.connection_no != second.connection_no
