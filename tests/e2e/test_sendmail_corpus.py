"""The bad-input corpus over the real command: group D, and A and S as far as they apply.

Whatever is given as an argument, a field or an SMTP path: only recipients that it names get
the message, nobody else is told of, no file appears, and the next message goes through.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail.state import DeliveryState, RecipientState
from tests.e2e.corpus import test_addresses, test_end_of_data
from tests.e2e.corpus.rig import EHLO, Case, Rig, running_rig
from tests.e2e.sendmail_rig import PATIENCE_S, Installation
from tests.fakes.scripted_provider import ReceivedMessage

_UTF8 = "jürgen@ok.test"
_LABEL = "r@{}.test".format("a" * 64)
_DOMAIN = "r@{}.test".format(".".join(["a" * 50] * 5))
_BODY = b"From: s@ok.test\nSubject: t\n\nA\n"

# id, one recipient as a word of the command line, and who may get the message
_WORDS: tuple[tuple[str, str | bytes, tuple[str, ...]], ...] = (
    ("A1", "x@other.test", ("x@other.test",)),
    ("A2", "x%other.test@rd.test", ("x%other.test@rd.test",)),
    ("A3", "other.test!x@rd.test", ("other.test!x@rd.test",)),
    ("A4", "other.test!x", ()),
    ("A5-bare", "@rd.test:x@other.test", ("x@other.test",)),
    ("A5", "<@rd.test:x@other.test>", ("x@other.test",)),
    ("A6", "<@rd.test,@gw.test:x@other.test>", ("x@other.test",)),
    ("A7", '"x@other.test"@rd.test', ('"x@other.test"@rd.test',)),
    ("A8", '"x@other.test"', ()),
    ("A9", "x@other.test@rd.test", ()),
    ("A10", "x%other.test", ()),
    ("A11", '"x@other.test"@[127.0.0.1]', ('"x@other.test"@[127.0.0.1]',)),
    ("A12", "x@other.test.", ()),
    ("A13", "x@[]", ()),
    # a word is a list, as for every sendmail
    ("A14", "r@rd.test,x@other.test", ("r@rd.test", "x@other.test")),
    ("A15", "r@rd.test;x@other.test", ("r@rd.test", "x@other.test")),
    ("A16", "<r@rd.test><x@other.test>", ()),
    ("A17", '"n" <r@rd.test>', ("r@rd.test",)),
    ("A18", "<>", ()),
    ("A20-control", "r\x01@rd.test", ()),
    ("A20-tab", "r\t@rd.test", ("r@rd.test",)),  # blanks may stand around @, RFC 5322 section 4.4
    ("A20-delete", "r\x7f@rd.test", ()),
    ("A21", "r\n@rd.test", ()),
    ("A21-header", "r@rd.test\nBcc: x@other.test", ()),
    ("A22", "<r@rd.test", ()),
    ("A23", "-oX@rd.test", ()),
    ("A24", "x@=?utf-8?q?rd=2Etest?=", ()),
    ("A25", "=?utf-8?q?a=0d=0aRCPT?=@rd.test", ()),
    ("A26", b"j\xff@ok.test", ()),
    ("A27", _UTF8, (_UTF8,)),
    ("A28-label", _LABEL, ()),
    ("A28-domain", _DOMAIN, ()),
    ("A30", "postmaster", ()),
)

# what no word of a command line can hold
_FIELDS_ONLY = (("A19", b"r@rd.test\x00.other.test", ()),)

# the same as a To field where it is read otherwise: what can be read of it is used
_FIELDS: dict[str, tuple[str, ...]] = {
    "A16": ("r@rd.test", "x@other.test"),
    "A21-header": ("r@rd.test", "x@other.test"),  # two fields
    "A22": ("r@rd.test",),
}


@pytest.fixture(scope="module")
def rig(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    installed.clear()
    maildrop = {"path": str(installed.maildrop)}
    with running_rig(tmp_path_factory.mktemp("sendmail"), maildrop=maildrop) as rig:
        yield rig


def settle(rig: Rig, maildrop: Path, start: int) -> list[ReceivedMessage]:
    """Wait until the front took all; return what else than the rig's own the provider got."""
    rig.gateway.wait_until(lambda: not list(maildrop.glob("*.drop")), "an empty maildrop")
    return rig.settle(start)


def recipients_of(messages: list[ReceivedMessage]) -> tuple[str, ...]:
    return tuple(address for message in messages for address in message.recipients)


@pytest.mark.parametrize(
    ("word", "named"), [row[1:] for row in _WORDS], ids=[row[0] for row in _WORDS]
)
def test_words(
    rig: Rig, installed: Installation, word: str | bytes, named: tuple[str, ...]
) -> None:
    start = len(rig.provider.messages)
    done = installed.run("-i", "-fs@ok.test", "--", word, content=_BODY)
    assert done.returncode in (0, 64)
    assert b"internal error" not in done.stderr
    assert recipients_of(settle(rig, installed.maildrop, start)) == named


@pytest.mark.parametrize("row", (*_WORDS, *_FIELDS_ONLY), ids=lambda row: row[0])
def test_fields(
    rig: Rig, installed: Installation, row: tuple[str, str | bytes, tuple[str, ...]]
) -> None:
    name, word, named = row
    start = len(rig.provider.messages)
    value = word if isinstance(word, bytes) else word.encode()
    done = installed.run("-t", "-i", "-fs@ok.test", content=b"To: " + value + b"\n" + _BODY)
    assert done.returncode in (0, 64)
    assert b"internal error" not in done.stderr
    assert recipients_of(settle(rig, installed.maildrop, start)) == _FIELDS.get(name, named)


# --- SMTP on stdin ------------------------------------------------------------------------


class PipedClient:
    """`sendmail -bs` where the corpus has a connection."""

    def __init__(self, command: Installation) -> None:
        self._process = subprocess.Popen(
            [command.sendmail, "-bs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=command.environment(),
        )
        self.is_over = False
        self.greeting = self.read_reply()

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # who has closed gives no reply
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def read_reply(self) -> str:
        assert self._process.stdout is not None
        lines = []
        while line := self._process.stdout.readline().decode():
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                break
        return "\n".join(lines)

    def close(self) -> int:
        self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode


# S11 is about segments of a connection
_PIPED = [
    case
    for case in (*test_end_of_data.CASES, *test_addresses.CASES)
    if not any(callable(step) for step in case.dialogue)
]


@pytest.mark.parametrize("case", _PIPED, ids=lambda case: case.id)
def test_smtp_on_stdin(rig: Rig, installed: Installation, case: Case) -> None:
    start = len(rig.provider.messages)
    client = PipedClient(installed)
    assert client.greeting.startswith("220 ")
    for step in case.dialogue:
        assert not callable(step)
        rig.do(client, (EHLO[0], "250-") if step == EHLO else step)  # type: ignore[arg-type]
    assert client.close() in (0, 69)  # what was refused is told
    messages = settle(rig, installed.maildrop, start)
    assert len(messages) == case.messages
    for message in messages:
        assert case.content is None or message.content.endswith(case.content)


# --- the message on stdin -----------------------------------------------------------------

HEADER = b"From: s@ok.test\nTo: r@rd.test\nSubject: t\n\n"
_EVIL = test_end_of_data.EVIL

# id, body with -i, what the provider gets of it; one message each, and nothing behind it
BODIES = (
    ("S1", b"A\n.\n" + _EVIL, b"A\r\n.\r\n" + _EVIL),
    ("S2", b"A\n.\r\n" + _EVIL, b"A\r\n.\r\n" + _EVIL),
    ("S3", b"A\r\n.\n" + _EVIL, b"A\r\n.\r\n" + _EVIL),
    ("S4", b"A\r.\r" + _EVIL, b"A\r\n.\r\n" + _EVIL),
    ("S5", b"A\r\n.\r" + _EVIL, b"A\r\n.\r\n" + _EVIL),
    ("S6", b"A\r.\r\n" + _EVIL, b"A\r\n.\r\n" + _EVIL),
    ("S7", b"A\r\n.\x00\r\n" + _EVIL, b"A\r\n.\x00\r\n" + _EVIL),
    ("S8", b"A\r\n.\r\r\n" + _EVIL, b"A\r\n.\r\n\r\n" + _EVIL),
    ("S-real-end", b"A\r\n.\r\n" + _EVIL, b"A\r\n.\r\n" + _EVIL),
    ("S10", b"..two\n...three\n.x\n", b"..two\r\n...three\r\n.x\r\n"),
    ("S13", b"abc.\nMAIL FROM:<evil@x>\n", b"abc.\r\nMAIL FROM:<evil@x>\r\n"),
    ("S14", b"", b""),
)


@pytest.mark.parametrize(
    ("body", "arrives"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES]
)
def test_bodies(rig: Rig, installed: Installation, body: bytes, arrives: bytes) -> None:
    start = len(rig.provider.messages)
    assert installed.run("-t", "-i", "-fs@ok.test", content=HEADER + body).returncode == 0
    (message,) = settle(rig, installed.maildrop, start)
    assert message.recipients == ("r@rd.test",)
    assert message.content.partition(b"\r\n\r\n")[2] == arrives
    connection = rig.provider.connections[message.connection_no]
    assert not any(b"evil" in command for command in connection.commands)


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\r\n"], ids=["S1", "S2", "CRLF"])
def test_without_i_a_lone_dot_is_the_end(rig: Rig, installed: Installation, end: bytes) -> None:
    """D3: and what follows is not read as anything."""
    start = len(rig.provider.messages)
    content = HEADER + b"A" + end + _EVIL
    assert installed.run("-t", "-fs@ok.test", content=content).returncode == 0
    (message,) = settle(rig, installed.maildrop, start)
    assert message.content.endswith(b"\r\n\r\nA\r\n")


# --- arguments of strangers ---------------------------------------------------------------

_INJECTED = (
    # one word, as escapeshellarg() leaves it; and the words that escapeshellcmd() on top makes
    ["-t", "-i", '-fa"\\ -oQ{where}/\\ -X{where}/x.php\\ b"@x.test'],
    ["-t", "-i", '-fa"', "-oQ{where}/", "-X{where}/x.php", 'b"@x.test'],
    ["-t", "-i", '-fa\\"', "-oQ{where}/", "-X{where}/x.php", "some"],
    ["-t", "-i", "-f", "a@x.test", "-oQ{where}", "-X{where}/x.php"],
    ["-t", "-i", "-X{where}/log", "-C{where}/evil.cf", "-OQueueDirectory={where}", "-D1"],
    ["-t", "-i", "-X", "{where}/log", "-C", "{where}/evil.cf", "-O", "QueueDirectory={where}"],
    ["-be", "${{run{{/bin/touch {where}/run}}}}"],
    ["-t", "-i", "-D{where}/d", "-L{where}/l", "-oA{where}/a", "-p{where}/p"],
    ["-t", "-i", "-fa@x.test\r\nRCPT TO:<evil@x.test>"],
    ["-t", "-i", "-Fx\nBcc: evil@x.test"],
    ["-t", "-i", "-Vx\nBcc: evil@x.test"],
    ["-t", "-i", "--", "-X{where}/x.php"],
)


@pytest.mark.parametrize("words", _INJECTED, ids=range(len(_INJECTED)))
def test_injection(rig: Rig, installed: Installation, tmp_path: Path, words: list[str]) -> None:
    """D1, D2: no file appears and no recipient is added, whatever the exit code says."""
    where = tmp_path / "where"
    where.mkdir()
    (where / "evil.cf").write_text("maildrop /nowhere\n")
    start = len(rig.provider.messages)
    given = [word.format(where=where) for word in words]
    done = installed.run(*given, content=HEADER + b"A\n")
    assert done.returncode in (0, 64)
    assert [path.name for path in where.iterdir()] == ["evil.cf"]
    messages = settle(rig, installed.maildrop, start)
    assert recipients_of(messages) == (("r@rd.test",) if done.returncode == 0 else ())
    assert all(b"evil" not in message.content for message in messages)


def test_a_list_in_every_dress(rig: Rig, installed: Installation) -> None:
    """D8: folded, commented, grouped, encoded; nobody is made up."""
    content = (
        b"To: g: a@rd.test,\n b@rd.test (c@evil.test, \\) d@evil.test);,\n"
        b'\t"e@evil.test, f" <f@rd.test>, =?utf-8?q?g=40evil.test=2C?= <g@rd.test>\n'
        b"Cc: undisclosed: ;\nbcc : h@rd.test\nFrom: s@ok.test\n\nA\n"
    )
    start = len(rig.provider.messages)
    assert installed.run("-t", "-i", "-fs@ok.test", content=content).returncode == 0
    messages = settle(rig, installed.maildrop, start)
    assert recipients_of(messages) == tuple(f"{name}@rd.test" for name in "abfgh")
    assert b"h@rd.test" not in messages[0].content


def test_ten_thousand_recipients(rig: Rig, installed: Installation) -> None:
    """D5: the message goes to all of them, or the caller is told that it does not."""
    names = [f"r{number}@rd.test" for number in range(10_000)]
    start = len(rig.provider.messages)
    done = installed.run("-i", "-fs@ok.test", *names, content=_BODY)
    got = recipients_of(settle(rig, installed.maildrop, start))
    assert done.returncode in (0, 69)
    assert sorted(got) == (sorted(names) if done.returncode == 0 else [])


# --- staging ------------------------------------------------------------------------------

_STAGED = (
    ("A31", "dev+x@ok.test", False),
    ("A32", "dev@sub.ok.test", False),
    ("A33", "dev@xok.test", False),
    ("A34", "dev@ok.test.evil.test", False),
    ("A36", "dev@ok.test", True),
    ("A37", "DEV@OK.TEST", True),
    ("A38", "dev@ok.tеst", False),
    ("A39", '"dev@ok.test"@other.test', False),
    ("A3", "other.test!x@ok.test", False),
    ("A2", "dev%other.test@ok.test", False),
    ("bare", "root", False),
)


def test_staging(installed: Installation, tmp_path: Path) -> None:
    """A31 to A39 at once: who is not on the list is captured, and To names somebody else (A35)."""
    lists = {"allow": ["dev@ok.test"]}
    maildrop = installed.root / "staged"
    maildrop.mkdir()
    maildrop.chmod(0o3733)
    content = b"To: dev@ok.test\n" + _BODY
    section = {"path": str(maildrop)}
    with running_rig(tmp_path, mode="staging", recipients=lists, maildrop=section) as rig:
        for name, address, is_released in _STAGED:
            start = len(rig.provider.messages)
            words = ("-i", "-fs@ok.test", address)
            done = installed.run(*words, content=content, maildrop=maildrop)
            assert done.returncode == 0
            got = recipients_of(settle(rig, maildrop, start))
            assert got == ((address,) if is_released else ()), name
        captured = {
            one.address
            for entry in rig.gateway.queue(frozenset(DeliveryState))
            for one in entry.recipients
            if one.state is RecipientState.CAPTURED
        }
        assert captured == {address for _, address, is_released in _STAGED if not is_released}
