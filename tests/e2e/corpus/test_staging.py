"""Staging lets out nobody but the people on the list, however the address is dressed up.

The allow list is `dev@ok.test` and `@qa.test`; all else is captured and never named upstream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail.search import EVERYTHING
from relaygw.mail.state import RecipientState
from tests.e2e.corpus.rig import DATA, EHLO, QUEUED, Rig, running_rig

ALLOW = {"allow": ["dev@ok.test", "@qa.test"]}
_CONTENT = b"To: dev@ok.test\r\nSubject: t\r\n\r\nA\r\n.\r\n"
_MAIL = (b"MAIL FROM:<s@ok.test> SMTPUTF8\r\n", "250")

# id, recipients of one transaction, those of them that may reach the provider
STAGED = (
    ("A31", ("dev+x@ok.test",), ()),
    ("A32", ("dev@sub.ok.test",), ()),
    ("A33", ("dev@xok.test",), ()),
    ("A34", ("dev@ok.test.evil.test",), ()),
    ("A35", ("x@other.test",), ()),
    ("A36", ("dev@ok.test", "cust@other.test"), ("dev@ok.test",)),
    ("A37", ("DEV@OK.TEST",), ("DEV@OK.TEST",)),
    ("A37-domain", ("x@QA.Test",), ("x@QA.Test",)),
    ("A38", ("dev@ok.tеst",), ()),
    ("A39", ('"dev@ok.test"@other.test',), ()),
    ("A39-domain", ('"x@other.test"@qa.test',), ()),
)

# the ways to make a relay out of a domain that may receive; `qa.test` stands on the list
RELAYED = (
    ("A1", "<x@other.test>"),
    ("A2", "<x%other.test@qa.test>"),
    ("A3", "<other.test!x@qa.test>"),
    ("A4", "<other.test!x>"),
    ("A5", "<@qa.test:x@other.test>"),
    ("A6", "<@qa.test,@gw.test:x@other.test>"),
    ("A7", '<"x@other.test"@qa.test>'),
    ("A8", '<"x@other.test">'),
    ("A9", "<x@other.test@qa.test>"),
    ("A10", "<x%other.test>"),
    ("A11", '<"x@other.test"@[127.0.0.1]>'),
    ("A12", "<x@other.test.>"),
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("staging")
    with running_rig(directory, mode="staging", recipients=ALLOW) as rig:
        yield rig


def _rcpts_upstream(rig: Rig) -> list[bytes]:
    """Return the RCPT commands that the provider has seen in all."""
    commands = [line for c in rig.provider.connections for line in c.commands]
    return [line for line in commands if line.upper().startswith(b"RCPT")]


def _names_beyond_canaries(rig: Rig, before: list[bytes]) -> list[str]:
    """Return the recipients named upstream since `before`, the one of `settle` taken out."""
    # several connections may be open: a new command may stand before an old one
    fresh = Counter(_rcpts_upstream(rig)) - Counter(before)
    named = [line.decode()[len("RCPT TO:<") : -1] for line in fresh.elements()]
    named.remove("dev@ok.test")
    return named


@pytest.mark.parametrize(
    ("recipients", "released"), [row[1:] for row in STAGED], ids=[row[0] for row in STAGED]
)
def test_staging(rig: Rig, recipients: tuple[str, ...], released: tuple[str, ...]) -> None:
    rcpts = tuple((b"RCPT TO:<%s>\r\n" % name.encode(), "250 ") for name in recipients)
    start, before = len(rig.provider.messages), _rcpts_upstream(rig)
    newest = _captured_ids(rig)
    rig.play((EHLO, _MAIL, *rcpts, DATA, (_CONTENT, QUEUED)))
    messages = rig.settle(start)
    assert sum((message.recipients for message in messages), ()) == released
    assert sorted(_names_beyond_canaries(rig, before)) == sorted(released)
    captured = set(recipients) - set(released)
    for queue_id in set(_captured_ids(rig)) - set(newest):
        states = {r.address: r.state for r in rig.gateway.entry(queue_id).recipients}
        assert captured == {a for a, s in states.items() if s is RecipientState.CAPTURED}
        captured = set()
    assert not captured, "not in the sandbox"


def _captured_ids(rig: Rig) -> list[str]:
    return rig.gateway.store.sandbox.captured_ids(EVERYTHING, limit=1000)


@pytest.mark.parametrize("path", [row[1] for row in RELAYED], ids=[row[0] for row in RELAYED])
def test_relay_forms_stay_inside(rig: Rig, path: str) -> None:
    """A1 to A12 from a client that may submit: refused or captured, never named upstream."""
    start, before = len(rig.provider.messages), _rcpts_upstream(rig)
    with rig.gateway.connect() as client:
        rig.do(client, EHLO)
        rig.do(client, _MAIL)
        reply = client.command(b"RCPT TO:" + path.encode())
        assert reply[:3] in ("250", "501"), reply
        if reply.startswith("250"):
            rig.do(client, DATA)
            rig.do(client, (_CONTENT, QUEUED))
    assert rig.settle(start) == []
    assert _names_beyond_canaries(rig, before) == []


def test_captured_stays_captured(tmp_path: Path) -> None:
    """A41: accepted in staging, then production and a restart: still captured."""
    with running_rig(tmp_path, mode="staging", recipients=ALLOW) as rig:
        queue_id = rig.gateway.send("s@ok.test", ["cust@other.test"], _CONTENT[:-3])
        assert rig.gateway.stop() == 0
        rig.gateway.settings["mode"] = "production"
        start, before = len(rig.provider.messages), _rcpts_upstream(rig)
        rig.gateway.start()
        assert rig.settle(start) == []
        assert _names_beyond_canaries(rig, before) == []
        (recipient,) = rig.gateway.entry(queue_id).recipients
        assert recipient.state is RecipientState.CAPTURED
        # the same recipient now: the difference is when the message was accepted
        rig.gateway.send("s@ok.test", ["cust@other.test"], _CONTENT[:-3])
        rig.provider.wait_for_messages(start + 2)
