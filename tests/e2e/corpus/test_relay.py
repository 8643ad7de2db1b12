"""No way through for strangers: recipients by which relays were talked into relaying (A1-A12).

RFC 5321 section 3.6; the client is in no network of `allow` and does not log in.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.corpus.rig import ALIVE, DATA, EHLO, MAIL, Case, Rig, running_rig
from tests.e2e.doors import NOBODY, user

PATHS = (
    b"<x@other.test>",
    b"<x%other.test@rd.test>",
    b"<other.test!x@rd.test>",
    b"<other.test!x>",
    b"<@rd.test:x@other.test>",
    b"<@rd.test,@gw.test:x@other.test>",
    b'<"x@other.test"@rd.test>',
    b'<"x@other.test">',
    b"<x@other.test@rd.test>",
    b"<x%other.test>",
    b'<"x@other.test"@[127.0.0.1]>',
    b"<x@other.test.>",
)
_SENDERS = (b"<s@ok.test>", b"<>", b"<postmaster@gw.test>", b"<x@other.test>")


def _case(name: str, path: bytes, sender: bytes = b"<s@ok.test>") -> Case:
    mail = (b"MAIL FROM:%s\r\n" % sender, "250")
    rcpt = (b"RCPT TO:%s\r\n" % path, r"554 5\.7\.1 ")
    return Case(id=name, dialogue=(EHLO, mail, rcpt, (DATA[0], r"554 5\.5\.1"), ALIVE))


CASES = (
    *(_case(f"A{number}", path) for number, path in enumerate(PATHS, start=1)),
    *(_case(f"sender-{number}", PATHS[0], sender) for number, sender in enumerate(_SENDERS)),
)


@pytest.fixture(scope="module", params=["off", "optional"])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    listener = {"bind": "127.0.0.1:0", "allow": NOBODY, "auth": request.param}
    users = [user()] if request.param == "optional" else []
    directory = tmp_path_factory.mktemp("strangers")
    with running_rig(directory, is_open=False, listeners=[listener], users=users) as rig:
        yield rig
        assert rig.provider.messages == []
        assert rig.gateway.queue() == []


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_a_stranger_gets_nothing_through(rig: Rig, case: Case) -> None:
    rig.play(case.dialogue)


def test_no_trick_of_a_session_helps(rig: Rig) -> None:
    """Neither a second try, nor RSET, nor pipelining, nor a new EHLO."""
    denied = r"554 5\.7\.1 "
    rcpt = b"RCPT TO:<x@other.test>\r\n"
    rig.play(
        (
            EHLO,
            MAIL,
            (rcpt * 3, denied, denied, denied),
            (b"RSET\r\n", "250"),
            (b"MAIL FROM:<s@ok.test>\r\n" + rcpt + b"DATA\r\n", "250", denied, r"554 5\.5\.1"),
            EHLO,
            (rcpt, r"503 "),
            (b"XCLIENT ADDR=127.0.0.1\r\n", r"550 5\.7\.0"),
            (b"XFORWARD ADDR=127.0.0.1\r\n", r"550 5\.7\.0"),
        )
    )
