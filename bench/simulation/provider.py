"""Providers of a run: SMTP servers whose moods are drawn, and what they took."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.history import History
from bench.simulation.loop import Process, VirtualLoop
from bench.simulation.wire import Link

KEY_HEADER = "X-Sending-Key"  # a provider that reads keys sends one mail for each
_ADDRESS = re.compile(rb"<([^>]*)>")
_NUMBER = re.compile(r"(\d+)-")
_KEY = re.compile(rb"\r\n" + KEY_HEADER.encode() + rb": (\S+)")
_END = b"\r\n.\r\n"
UNKNOWN = "no-"  # how addresses begin that nobody has
_SPAM = "@spam.test"  # content for such an address is refused
_REFUSED_SENDER = b"@other.test>"


@dataclass(frozen=True, slots=True)
class Mood:
    """How a provider is for a while; chances are of each step."""

    name: str
    refuses: float = 0.0  # connections
    silent: float = 0.0  # never answers this connection
    says_421: float = 0.0
    says_4xx: float = 0.0
    resets: float = 0.0
    says_half: float = 0.0
    waits_s: float = 0.0  # before each answer
    loses_answer: float = 0.0  # takes the mail, and the answer never comes
    answers_late: float = 0.0  # takes it, and answers when nobody waits any more
    refuses_sender: float = 0.0  # MAIL of one sender domain
    is_over_quota: float = 0.0  # refuses any MAIL for that
    limits_rate: float = 0.0
    refuses_key: float = 0.0


WELL = Mood("well")
MOODS = (
    Mood("slower", says_421=0.1, says_4xx=0.5),
    Mood("tarpit", waits_s=4.0),
    Mood("closes", says_421=0.25),
    Mood("loses answers", loses_answer=0.5),
    Mood("answers late", answers_late=0.5),
    Mood("says half", says_half=0.3),
    Mood("resets", resets=0.25),
    Mood("refuses", refuses=1.0),
    Mood("is silent", silent=0.6),
    Mood("all of it", 0.1, 0.05, 0.05, 0.1, 0.07, 0.05, 0.05, 0.15, 0.1),
)
REFUSALS = (
    Mood("refuses a sender", refuses_sender=1.0),
    Mood("is over quota", is_over_quota=0.9),
    Mood("limits the rate", limits_rate=0.4),
    Mood("refuses the key", refuses_key=0.8),
)
BY_NAME = {mood.name: mood for mood in (WELL, *MOODS, *REFUSALS)}


@dataclass(slots=True)
class Take:
    """A mail that a provider took for one address."""

    at_s: float
    address: str
    connection: int


@dataclass(slots=True)
class Provider:
    """One provider: its mood now, and what it took and refused."""

    name: str
    loop: VirtualLoop
    process: Process
    chance: random.Random
    history: History
    pipelines: bool = True
    mood: Mood = WELL
    takes: list[Take] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    dots: list[float] = field(default_factory=list)  # when each was written
    open_links: dict[int, Link] = field(default_factory=dict)
    most_open: int = 0
    taken_mails: int = 0
    quota: int = 0
    rate_per_s: float = 0.0
    connections: int = 1  # that the settings allowed, at most
    parts: int = 1  # of one message, which go at once
    taken: Callable[[str, Process], None] = lambda _address, _process: None
    latency_s: tuple[float, float] = (0.0005, 0.02)
    by_key: dict[bytes, bytes] = field(default_factory=dict)  # the mail that came with each
    misused_keys: list[str] = field(default_factory=list)  # addresses of another mail with one
    _number: int = 0

    def is_short(self, lost_shares: int) -> bool:
        """True when what is left of its quota may be too little for one message.

        What a killed worker had taken of it ahead, for a message on each of its connections, is
        lost for the day.
        """
        lost = self.parts * self.connections * lost_shares
        return bool(self.quota) and self.taken_mails + self.parts + lost > self.quota

    def draw(self, share: float) -> bool:
        return share > 0 and self.chance.random() < share

    def wait_s(self) -> float:
        least, most = self.latency_s
        return least + self.chance.random() * (most - least)

    async def connect(self, client: Process) -> Link:
        """Return a link for a process, or raise what a socket raises."""
        await asyncio.sleep(self.wait_s())
        if self.draw(self.mood.refuses):
            self._number += 1
            self.history.fail(f"{self.name}/{self._number}", "connect")
            raise ConnectionRefusedError(111, "Connection refused")
        self._number += 1
        link = Link(
            self.loop,
            client=client,
            server=self.process,
            latency_s=self.wait_s,
            number=self._number,
            is_open=self._count,
        )
        connection = Connection(self, link, self._number)
        link.far = connection
        self.loop.at(self.process, self.wait_s(), connection.greet)
        return link

    def _count(self, link: Link, is_open: bool) -> None:
        name = f"{self.name}/{link.number}"
        if is_open:
            self.history.invoke(name, "connect", worker=link.client.name)
            self.open_links[link.number] = link
            busy = sum(not one.is_probe for one in self.open_links.values())
            self.most_open = max(self.most_open, busy)
        else:
            self.open_links.pop(link.number, None)


class Connection:
    """A provider's side of one connection."""

    def __init__(self, provider: Provider, link: Link, number: int) -> None:
        self._provider, self._link, self._number = provider, link, number
        self._buffer = b""
        self._in_content = False
        self._sender: bytes | None = None
        self._people: list[str] = []
        self._is_over = False
        self._is_silent = False
        self.name = f"{provider.name}/{number}"
        self._free_s = 0.0  # when the answer before has gone

    # --- what comes

    def greet(self) -> None:
        provider = self._provider
        self._is_silent = provider.draw(provider.mood.silent)
        self._answer(b"220 provider ready\r\n", is_greeting=True)

    def ended(self) -> None:
        self._is_over = True
        self._provider.history.ok(self.name, "connect")

    def received(self, data: bytes) -> None:
        self._buffer += data
        while not self._is_over and self._take():
            pass

    def _take(self) -> bool:
        if self._in_content:
            content, end, rest = (b"\r\n" + self._buffer).partition(_END)
            if not end:
                return False
            self._buffer, self._in_content = rest, False
            self._content(content)
            return True
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return False
        self._buffer = rest
        self._command(line)
        return True

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        match verb:
            case b"EHLO":
                more = b"250-PIPELINING\r\n" if self._provider.pipelines else b""
                self._answer(b"250-provider\r\n250-AUTH PLAIN\r\n" + more + b"250 8BITMIME\r\n")
            case b"AUTH":
                is_refused = self._provider.draw(self._provider.mood.refuses_key)
                no, yes = b"535 5.7.8 authentication failed\r\n", b"235 2.7.0 Ok\r\n"
                self._answer(no if is_refused else yes)
            case b"MAIL":
                self._mail(line)
            case b"RCPT":
                self._recipient(line)
            case b"DATA":
                self._data()
            case b"RSET":
                self._sender, self._people = None, []
                self._answer(b"250 2.0.0 Ok\r\n")
            case b"QUIT":
                self._answer(b"221 2.0.0 Bye\r\n", is_last=True)
            case _:
                self._answer(b"500 5.5.2 what?\r\n")

    def _mail(self, line: bytes) -> None:
        provider, mood = self._provider, self._provider.mood
        if self._is_refused():
            return
        if _REFUSED_SENDER in line and provider.draw(mood.refuses_sender):
            self._answer(b"553 5.7.1 Sender address rejected: not owned by user\r\n")
            return
        if provider.draw(mood.is_over_quota):
            self._answer(b"452 4.3.1 daily sending quota exceeded\r\n")
            return
        if provider.draw(mood.limits_rate):
            self._answer(b"451 4.7.1 rate limit exceeded\r\n")
            return
        self._sender, self._people = line, []
        self._answer(b"250 2.1.0 Ok\r\n")

    def _recipient(self, line: bytes) -> None:
        found = _ADDRESS.search(line)
        address = found[1].decode() if found else ""
        if self._sender is None:
            self._answer(b"503 5.5.1 MAIL first\r\n")
        elif address.startswith(UNKNOWN):
            self._provider.refused.add(address)
            mail = {"message": message_of(address), "recipients": (address,), "code": 550}
            self._provider.history.fail(f"{self.name}/rcpt", "deliver", **mail)
            self._answer(b"550 5.1.1 no such user\r\n")
        elif not self._is_refused():
            self._people.append(address)
            self._answer(b"250 2.1.5 Ok\r\n")

    def _data(self) -> None:
        if not self._people:
            self._answer(b"554 5.5.1 no recipients\r\n")
        else:
            self._in_content = self._link.awaits_content = True
            self._provider.history.invoke(self.name, "deliver", **self._mail_in_hand())
            self._answer(b"354 go\r\n")

    def _mail_in_hand(self) -> dict[str, Any]:
        return {
            "message": message_of(self._people[0]),
            "recipients": tuple(self._people),
            "worker": self._link.client.name,
        }

    def _is_refused(self) -> bool:
        provider = self._provider
        if provider.draw(provider.mood.says_421):
            self._answer(b"421 4.3.2 not now\r\n", is_last=True)
            return True
        if provider.draw(provider.mood.says_4xx):
            reply = provider.chance.choice(
                (
                    b"450 4.2.1 try again later\r\n",
                    b"452 4.5.3 too much\r\n",
                    b"451 4.7.1 rate limit exceeded\r\n",
                )
            )
            self._answer(reply)
            return True
        return False

    def _content(self, content: bytes) -> None:
        provider, mood = self._provider, self._provider.mood
        mail = self._mail_in_hand()
        people, self._people, self._sender = self._people, [], None
        if provider.draw(mood.says_421):
            provider.history.fail(self.name, "deliver", **mail, code=421)
            self._answer(b"421 4.3.2 not now\r\n", is_last=True)
            return
        if provider.draw(mood.says_4xx):
            provider.history.fail(self.name, "deliver", **mail, code=451)
            self._answer(b"451 4.3.0 try again later\r\n")
            return
        if any(address.endswith(_SPAM) for address in people):
            provider.refused.update(people)
            provider.history.fail(self.name, "deliver", **mail, code=552)
            self._answer(b"552 5.3.4 Message size exceeds fixed limit\r\n")
            return
        provider.taken_mails += 1
        if not self._is_known(content, people):
            provider.history.info(self.name, "dot", **mail)
            for address in people:
                provider.takes.append(Take(provider.loop.now_s, address, self._number))
        for address in people:
            provider.taken(address, self._link.client)
        if provider.draw(mood.loses_answer):
            provider.history.info(self.name, "deliver", **mail)
            self._is_over = True
            if provider.draw(0.5):
                self._link.reset()
            else:
                self._link.is_cut = True
            return
        provider.history.ok(self.name, "deliver", **mail)
        late_s = 0.0
        if provider.draw(mood.answers_late):
            late_s = provider.chance.choice((5.0, 14.9, 16.0, 18.0, 40.0))
        self._answer(b"250 2.0.0 Ok queued\r\n", late_s=late_s)

    def _is_known(self, content: bytes, people: list[str]) -> bool:
        """True for a second try of a mail with a key: it is answered, and not sent again."""
        found = _KEY.search(content)
        if found is None:
            return False
        mail = " ".join(people).encode() + content
        if self._provider.by_key.setdefault(found[1], mail) is mail:
            return False
        if self._provider.by_key[found[1]] != mail:
            self._provider.misused_keys += people
        return True

    # --- what goes

    def _answer(
        self, reply: bytes, *, is_last: bool = False, is_greeting: bool = False, late_s: float = 0.0
    ) -> None:
        if self._is_over or self._is_silent:
            return
        provider, mood = self._provider, self._provider.mood
        wait_s = provider.chance.random() * 0.005 + late_s
        if mood.waits_s:
            wait_s += mood.waits_s * provider.chance.random() ** 2
        loop = provider.loop
        self._free_s = max(self._free_s, loop.now_s) + wait_s
        if is_greeting and provider.draw(mood.says_421):
            reply, is_last = b"421 4.7.0 too many connections\r\n", True
        end = None
        if provider.draw(mood.resets):
            self._is_over, end = True, "reset"
        elif provider.draw(mood.says_half):
            self._is_over, end = True, "half"
            reply = reply[: provider.chance.randrange(len(reply))]
        elif is_last:
            self._is_over, end = True, "close"
        loop.call_at(self._free_s, self._write, reply, end, context=provider.process.context.copy())

    def _write(self, reply: bytes, end: str | None) -> None:
        if end == "reset":
            self._link.reset()
            return
        if reply:
            self._link.server_writes(reply)
        if end is not None:
            self._link.server_closes()


def message_of(address: str) -> str:
    """Return the message that an address is of: its clients write to each once."""
    return f"m{_NUMBER.search(address)[1]}"  # type: ignore[index]
