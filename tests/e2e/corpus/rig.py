"""A gateway with its provider, and how a case of the corpus is played and judged.

A case is a dialogue: bytes to send and the replies that must come, in order. `Rig.settle` then
sends a message of its own through a new session, waits until the queue is empty and returns what
else the provider got. `Rig.check_log` holds for every case: no internal error, one record a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.e2e.gateway import Gateway, RawClient, provider_settings
from tests.fakes.scripted_provider import ReceivedMessage, ThreadedProvider

CLOSED = "$"  # the only pattern that matches the reply of a closed connection
EHLO = (b"EHLO c.test\r\n", "250-gw.test")
MAIL = (b"MAIL FROM:<s@ok.test>\r\n", "250 2.1.0")
RCPT = (b"RCPT TO:<r@rd.test>\r\n", "250 2.1.5")
DATA = (b"DATA\r\n", "354 ")
START = (EHLO, MAIL, RCPT, DATA)
ALIVE = (b"NOOP\r\n", "250 2.0.0")
BYE = (b"QUIT\r\n", "221 2.0.0")
QUEUED = r"250 2\.0\.0 Ok: queued as [A-Z0-9]{10,20}$"
MARGIN_KIB = 8 * 1024  # allowed on top of a bound under 2 MB: the allocator rounds up

Step = tuple[bytes | str, ...] | Callable[["Rig", RawClient], None]
"""Bytes to send and a pattern for each reply; or what a table cannot say."""

_CANARY = "canary@ok.test"
_RECORD = re.compile(
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d gw relaygw/\w+\[\d+\]: [^\x00-\x1f\x7f]*"
)
_ADDED = re.compile(
    rb"Received: (?:from|by) \S+ \([^\r\n]*\)\r\n(?:\t[^\r\n]*\r\n)+"
    rb"(?:Date: [^\r\n]+\r\n)?(?:Message-ID: <[^\r\n]+>\r\n)?(?:\r\n|X-Mailbox-Line: )?"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: its id, what is said, and how many messages reach the provider."""

    id: str
    dialogue: tuple[Step, ...]
    messages: int = 0
    content: bytes | None = None  # of the message, as it must arrive
    checks: tuple[Callable[[ReceivedMessage], object], ...] = ()  # assert something of it


@dataclass
class Rig:
    """A gateway and the provider behind its default route."""

    gateway: Gateway
    provider: ThreadedProvider
    numbers: Iterator[int] = field(default_factory=count)

    def play(self, dialogue: tuple[Step, ...]) -> None:
        """Open a session and go through `dialogue`."""
        with self.gateway.connect() as client:
            assert client.greeting.startswith("220 gw.test"), client.greeting
            for step in dialogue:
                self.do(client, step)

    def do(self, client: RawClient, step: Step) -> None:
        """Send the bytes of one step and compare its replies."""
        if callable(step):
            step(self, client)
            return
        sent, *patterns = step
        assert isinstance(sent, bytes)
        client.send(sent)
        for pattern in patterns:
            reply = client.read_reply()
            assert isinstance(pattern, str)
            assert re.match(pattern, reply), (sent[:80], pattern, reply)

    def settle(self, start: int) -> list[ReceivedMessage]:
        """Prove that the next session works; return the other messages from `start` on."""
        subject = b"Subject: canary %d\r\n\r\n" % next(self.numbers)
        self.gateway.send(_CANARY, ["dev@ok.test"], subject)
        self.gateway.wait_until_empty()
        self.provider.run(self.provider.note())  # its loop has recorded what it answered
        messages = self.provider.messages[start:]
        canaries = [message for message in messages if message.sender == _CANARY]
        assert len(canaries) == 1
        assert subject.strip() in canaries[0].content
        return [message for message in messages if message.sender != _CANARY]

    def judge(self, case: Case) -> None:
        """Play a case and assert all that it says."""
        start = len(self.provider.messages)
        self.play(case.dialogue)
        messages = self.settle(start)
        assert len(messages) == case.messages, messages
        for message in messages:
            check_message(message, case)

    def check_log(self) -> None:
        """Assert that no record tells of an internal error, and that each is one line."""
        for line in self.gateway.lines:
            assert _RECORD.fullmatch(line), line
            assert "Traceback" not in line, line
            assert ": error: " not in line, line

    def pid(self, role: str) -> int:
        """The process id of the only instance of a role."""
        (pid,) = self.gateway.pids(role)
        return pid


@contextmanager
def running_rig(
    directory: Path,
    *,
    others: Mapping[str, tuple[ThreadedProvider, str]] | None = None,
    is_open: bool = True,
    **settings: Any,
) -> Iterator[Rig]:
    """Start a provider and a gateway; look at the log when all is done.

    `others` are further providers, each with the recipients that go there. `is_open` says that
    this machine may submit, so that a message of the rig's own shows that all works.
    """
    with ThreadedProvider() as provider:
        every = {"main": provider, **{name: other for name, (other, _) in (others or {}).items()}}
        routes: list[Mapping[str, Any]] = [
            {"name": name, "recipient": [pattern], "providers": [name]}
            for name, (_, pattern) in (others or {}).items()
        ]
        with Gateway(
            directory,
            providers={name: provider_settings(each.port) for name, each in every.items()},
            routes=[*routes, {"name": "default", "providers": ["main"]}],
            **settings,
        ) as gateway:
            rig = Rig(gateway, provider)
            if is_open:
                rig.settle(0)
            yield rig
            assert gateway.is_running
            rig.check_log()


def check_message(message: ReceivedMessage, case: Case) -> None:
    """Assert that a message is what the case says of its content."""
    if case.content is not None:
        assert added_removed(message, case.content) == case.content
    for check in case.checks:
        check(message)


def added_removed(message: ReceivedMessage, sent: bytes) -> bytes:
    """Return the content without what the gateway put in front of it."""
    match = _ADDED.match(message.content)
    assert match is not None, message.content[:300]
    # what looks like an added blank line may be the content's own
    length = len(message.content) - len(sent)
    assert _ADDED.fullmatch(message.content, 0, length), message.content[: length + 200]
    return message.content[length:]


def repeat(line: bytes, *, until: str, at_most: int) -> Callable[[Rig, RawClient], None]:
    """Return a step that sends `line` again and again until a reply matches, and then a close."""

    def step(_rig: Rig, client: RawClient) -> None:
        for _ in range(at_most):
            if re.match(until, client.command(line)):
                break
        else:
            raise AssertionError(f"{at_most} times {line!r} without {until}")
        assert client.is_closed()

    return step


@contextmanager
def memory_bounded(pid: int, *, growth_kib: int) -> Iterator[None]:
    """Assert that the peak memory of a process stays within `growth_kib` of where it is now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    before_kib = _status_kib(pid, "VmRSS")
    yield
    grown_kib = _status_kib(pid, "VmHWM") - before_kib
    assert grown_kib <= growth_kib, f"grew by {grown_kib} KiB, allowed are {growth_kib}"


def _status_kib(pid: int, name: str) -> int:
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1])
