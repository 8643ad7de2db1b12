"""`rewrite` does what a real Postfix does with the same entries: envelope and header."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from relaygw.policy.rewriting import Rewriter
from relaygw.settings.addresses import Rewrite
from tests.fakes.scripted_provider import ThreadedProvider
from tests.real_postfix import PostfixInstance

SENDERS = {"boss@old.test": "chief@new.test", "@old.test": "@new.test"}
STAR = {"x@keep.test": "x@keep.test"}  # of static: Postfix finds whole addresses before it alone
RECIPIENTS = {
    "user@old.test": "reader@new.test",
    "user+known@old.test": "known@new.test",
    "list@old.test": ["a@new.test", "b@new.test"],
    "@old.test": "@new.test",
    "@one.test": "all@new.test",
}
WAYS: dict[str, dict[str, Any]] = {
    "entries": SENDERS,
    "every sender": {**STAR, "*": "shop@new.test", "<>": "shop@new.test"},
}
HEADER = (
    b'From: "Ann ann@any.test" <ann@any.test> (or joe@any.test)\r\n'
    b"Sender: boss+x@old.test\r\nReply-To: x@keep.test\r\nReturn-Receipt-To: y@any.test\r\n"
    b"Errors-To: z@any.test\r\nResent-From: r@old.test\r\nTo: user@old.test\r\n"
    b"Subject: ann@any.test\r\nMessage-ID: <1@any.test>\r\n"
    b"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n\r\n"
)
MAILS = [
    ("ann@any.test", ["user@old.test", "list@old.test", "a@new.test"]),
    ("boss+x@old.test", ["user+ext@old.test", "user+known@old.test"]),
    ("a+b@old.test", ["list+x@old.test", "other+y@old.test"]),
    ("x@keep.test", ["any+z@one.test", "user+@old.test"]),
    ("", ["+z@old.test", "USER+Ext@OLD.test"]),
]


Sent = list[tuple[str, set[str], bytes]]


def _table(entries: dict[str, Any]) -> str:
    texts = {key: ", ".join([to] if isinstance(to, str) else to) for key, to in entries.items()}
    return "".join(f"{key} {text}\n" for key, text in texts.items())


@pytest.fixture(scope="module")
def sent() -> Iterator[dict[str, Sent]]:
    """What Postfix sends of `MAILS`, in their order, by the way that senders are written."""
    with ThreadedProvider() as provider:
        main = (
            f"relayhost = [127.0.0.1]:{provider.port}\nrecipient_delimiter = +\n"
            "virtual_alias_maps = hash:{base}/conf/virtual\n"
            "sender_canonical_maps = hash:{base}/conf/entries\n"
        )
        tables: dict[str, dict[str, Any]] = {
            "virtual": RECIPIENTS,
            "entries": SENDERS,
            "star": STAR,
        }
        files = {name: _table(entries) for name, entries in tables.items()}
        with PostfixInstance(main, files=files) as postfix:
            found = {"entries": _sent_by(postfix, provider)}
            postfix.stop()
            every = f"hash:{postfix.conf}/star, static:shop@new.test"
            postfix.set(sender_canonical_maps=every)
            postfix.start()
            found["every sender"] = _sent_by(postfix, provider)
            yield found


def _sent_by(postfix: PostfixInstance, provider: ThreadedProvider) -> Sent:
    before = len(provider.messages)
    for number, (sender, recipients) in enumerate(MAILS, 1):
        with smtplib.SMTP("127.0.0.1", postfix.port) as client:
            client.sendmail(sender, recipients, HEADER + b"hello\r\n")
        provider.wait_for_messages(before + number)
    mails = provider.messages[before:]
    return [(one.sender, set(one.recipients), one.content) for one in mails]


def _rewriter(way: str) -> Rewriter:
    rewrite = {"senders": WAYS[way], "recipients": RECIPIENTS, "recipient_delimiter": "+"}
    return Rewriter(Rewrite.model_validate(rewrite), "gw.test")


@pytest.mark.parametrize("way", WAYS)
def test_the_envelope_is_the_same(sent: dict[str, Sent], way: str) -> None:
    rewriter = _rewriter(way)
    own = [
        (rewriter.sender(sender), {to for one in people for to in rewriter.recipients(one)})
        for sender, people in MAILS
    ]
    assert own == [one[:2] for one in sent[way]]


@pytest.mark.parametrize("way", WAYS)
def test_the_header_is_the_same(sent: dict[str, Sent], way: str) -> None:
    content = sent[way][0][2]
    lines = content[content.index(b"From: ") :].splitlines()[: HEADER.count(b"\n") - 1]
    own = _rewriter(way).headers(HEADER).splitlines()[:-1]
    # Postfix writes a field anew, and its blanks
    assert [one.replace(b" ", b"") for one in own] == [one.replace(b" ", b"") for one in lines]
