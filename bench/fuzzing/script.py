"""The walk of one session: what its client does, step by step, as its seed decides."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from bench.fuzzing import words
from bench.fuzzing.bodies import body
from bench.fuzzing.front import PIECE_BYTES
from bench.fuzzing.profiles import PROFILES, Profile
from bench.fuzzing.words import LABELS, Label

_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_HEADERS = {  # of a balancer: whether what follows is served, and as of somebody trusted
    b"PROXY TCP4 127.0.0.1 10.0.0.1 5000 25\r\n": (True, True),
    b"PROXY TCP4 198.51.100.7 10.0.0.1 5000 25\r\n": (True, False),
    b"PROXY TCP6 ::1 ::1 5000 25\r\n": (True, True),
    b"PROXY UNKNOWN\r\n": (True, False),
    _V2 + b"\x21\x11\0\x0c\x7f\0\0\1\x0a\0\0\1\0\x50\0\x19": (True, True),
    _V2 + b"\x20\0\0\0": (True, False),
    _V2 + b"\x21\x11\0\x04\x7f\0\0\1": (False, False),
    _V2 + b"\x41\x11\xff\xff": (False, False),
    b"PROXY TCP4 1.2.3 10.0.0.1 5000 25\r\n": (False, False),
    b"PROXY TCP4 127.0.0.1 10.0.0.1 70000 25\r\n": (False, False),
    b"EHLO c.test\r\n": (False, False),
    b"P" * 200: (False, False),
}


class Step(NamedTuple):
    """Something that a client does; `pieces` are what the wire brings at once."""

    kind: str  # say, content, silence, full, read
    pieces: tuple[bytes, ...] = ()
    settles: bool = True  # whether the client waits behind each piece


class HangUp(NamedTuple):
    """How a client leaves: within a step, behind so many bytes of it."""

    step: int
    at_byte: int
    kind: str  # end, gone, reset


@dataclass
class Script:
    """All of it."""

    profile: Profile
    steps: list[Step] = field(default_factory=list)
    labels: dict[bytes, Label] = field(default_factory=LABELS.copy)
    hang_up: HangUp | None = None
    header: bytes = b""
    is_served: bool = True
    is_trusted: bool = True
    is_silent: bool = False


def walk(seed: int) -> Script:
    """Return what the client of a seed does."""
    chance = random.Random(f"walk {seed}")
    script = Script(chance.choice(PROFILES))
    script.is_trusted = script.profile.peer == "127.0.0.1"
    if script.profile.has_proxy:
        script.header = chance.choice(list(_HEADERS))
        script.is_served, script.is_trusted = _HEADERS[script.header]
        script.steps.append(_say(chance, script.header))
    if chance.random() < 0.01:
        script.steps.append(_say(chance, b"\x16\x03\x01\x02\0\x01\r\nEHLO c.test\r\n"))
    if chance.random() < 0.9:
        script.steps.append(_say(chance, b"EHLO c.test\r\n"))
    for _ in range(chance.choice((1, 2, 2, 3, 4, 6, 9))):
        _act(chance, script)
    if chance.random() < 0.3:
        _leave_early(chance, script)
    return script


def _act(chance: random.Random, script: Script) -> None:
    kind = chance.random()
    if kind < 0.45:
        _transaction(chance, script)
    elif kind < 0.65:
        _group(chance, script)
    elif kind < 0.8:
        _lines(chance, script, [words.command(chance)])
    elif kind < 0.9:
        for line in words.auth(chance):
            _lines(chance, script, [line])
    else:
        _oddity(chance, script)


def _transaction(chance: random.Random, script: Script) -> None:
    """Mail that is mostly right, its commands one by one or as a group (RFC 2920)."""
    lines = [words.mail(chance, script.labels, wrong=0.05)]
    count = chance.choice((1, 1, 1, 2, 3, 6))
    lines += [words.rcpt(chance, script.labels, wrong=0.15) for _ in range(count)]
    lines.append(b"DATA")
    if chance.random() < 0.5:
        _lines(chance, script, lines)
    else:
        for line in lines:
            _lines(chance, script, [line])
    content = body(chance)
    if chance.random() < 0.2:  # the next ones come with the dot
        content += b"\r\n".join([words.mail(chance, script.labels), b"RSET", b""])
    kind = "say" if chance.random() < 0.05 else "content"
    script.steps.append(Step(kind, _cut(chance, content), chance.random() < 0.5))


def _group(chance: random.Random, script: Script) -> None:
    makers = (
        lambda: words.mail(chance, script.labels),
        lambda: words.rcpt(chance, script.labels),
        lambda: words.command(chance),
        lambda: b"DATA",
    )
    lines = [chance.choice(makers)() for _ in range(chance.randrange(2, 7))]
    _lines(chance, script, lines)
    script.steps.append(Step("content", _cut(chance, body(chance))))


def _lines(chance: random.Random, script: Script, lines: list[bytes]) -> None:
    script.steps.append(_say(chance, b"".join(line + b"\r\n" for line in lines)))


def _oddity(chance: random.Random, script: Script) -> None:
    kind = chance.randrange(8)
    if kind == 0:
        line = words.command(chance)
        script.steps.append(_say(chance, line + chance.choice((b"\n", b"\n\r\n", b"\r"))))
    elif kind == 1 and not script.is_silent:
        script.is_silent = True
        script.steps.append(Step("silence"))
    elif kind == 2:
        script.steps.append(_say(chance, b"NOOP\r\n" * chance.choice((50, 101, 120))))
    elif kind == 3:
        script.steps.append(_say(chance, b"FOO\r\n" * 25))
    elif kind == 4:
        script.steps.append(Step("full"))
        _lines(chance, script, [words.command(chance), words.command(chance)])
        script.steps.append(Step("read"))
    elif kind == 5 and chance.random() < 0.1:
        end = chance.choice((b"", b"\r\n"))
        script.steps.append(_say(chance, b"x" * chance.choice((131_060, 131_080, 300_000)) + end))
    elif kind == 6:
        size = b"BDAT %d%b\r\n" % (chance.choice((0, 5, 9, 99)), chance.choice((b"", b" LAST")))
        script.labels[size[:-2]] = Label("", (502,), closes=True)
        script.steps.append(_say(chance, size + b"abcde" + b"QUIT\r\n"))
    else:
        _lines(chance, script, [chance.randbytes(chance.randrange(1, 30)).replace(b"\n", b"")])


def _leave_early(chance: random.Random, script: Script) -> None:
    step = chance.randrange(len(script.steps))
    size_bytes = sum(map(len, script.steps[step].pieces))
    kind = chance.choice(("end", "end", "gone", "reset"))
    script.hang_up = HangUp(step, chance.randrange(size_bytes + 1), kind)


def _say(chance: random.Random, data: bytes) -> Step:
    return Step("say", _cut(chance, data), chance.random() < 0.5)


def _cut(chance: random.Random, data: bytes) -> tuple[bytes, ...]:
    """Cut bytes as a network might: not at all, anywhere, or behind each."""
    kind = chance.random()
    if kind < 0.5 and len(data) <= PIECE_BYTES:
        return (data,) if data else ()
    if kind > 0.9 and len(data) < 200:
        return tuple(data[at : at + 1] for at in range(len(data)))
    places = chance.sample(range(len(data) + 1), min(len(data), chance.randrange(1, 5)))
    places += range(0, len(data), PIECE_BYTES)
    edges = sorted({0, len(data), *places})
    return tuple(data[start:end] for start, end in pairwise(edges))
