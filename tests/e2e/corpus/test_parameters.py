"""Parameters of MAIL FROM, and a SIZE that lies. RFC 1870, RFC 6152, RFC 5321 section 4.1.1.11."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.corpus.rig import ALIVE, DATA, EHLO, QUEUED, RCPT, Case, Rig, running_rig

_LIMIT = "1MiB"
_LARGE = b"Subject: t\r\n\r\n" + (b"x" * 76 + b"\r\n") * (2 * 10**6 // 78) + b".\r\n"

# id, parameter, reply to MAIL
_ROWS = (
    ("P1", b"SIZE=99999999999", r"552 5\.3\.4"),
    ("P2", b"SIZE=-1", r"501 5\.5\.4"),
    ("P3", b"SIZE=abc", r"501 5\.5\.4"),
    ("P4", b"SIZE=" + b"9" * 26, r"552 5\.3\.4"),
    ("P5", b"BODY=FOO", r"(501|555) 5\.5\.4"),
    ("P6", b"BODY=BINARYMIME", r"555 5\.5\.4"),
    ("P7", b"FOO=BAR", r"555 5\.5\.4"),
    ("P8", b"AUTH=<>", "250"),
    ("a value of SMTPUTF8", b"SMTPUTF8=x", r"501 5\.5\.4"),
    ("an empty value of SMTPUTF8", b"SMTPUTF8=", r"501 5\.5\.4"),
    ("SIZE twice", b"SIZE=10 SIZE=99999999999", r"501 5\.5\.4"),
    ("BODY twice", b"BODY=7BIT body=8BITMIME", r"501 5\.5\.4"),
    ("SMTPUTF8 twice", b"SMTPUTF8 SMTPUTF8", r"501 5\.5\.4"),
)


def _mail(parameter: bytes) -> bytes:
    return b"MAIL FROM:<s@ok.test> %s\r\n" % parameter


CASES = (
    *(Case(id=name, dialogue=(EHLO, (_mail(p), reply), ALIVE)) for name, p, reply in _ROWS),
    Case(
        id="P11",
        dialogue=(
            EHLO,
            (_mail(b"SIZE=10"), "250"),
            RCPT,
            DATA,
            (_LARGE, r"552 5\.3\.4"),
            (_mail(b"SIZE=10"), "250"),
            RCPT,
            DATA,
            (b"Subject: t\r\n\r\nsmall\r\n.\r\n", QUEUED),
        ),
        messages=1,
        content=b"Subject: t\r\n\r\nsmall\r\n",
    ),
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    listeners = [{"bind": "127.0.0.1:0", "max_message_size": _LIMIT}]
    with running_rig(tmp_path_factory.mktemp("parameters"), listeners=listeners) as rig:
        yield rig


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_parameters(rig: Rig, case: Case) -> None:
    rig.judge(case)
