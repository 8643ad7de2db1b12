"""The history of a campaign: what happened, one JSON object a line, in Jepsen's words.

    {"time": 120, "process": "client-3", "type": "invoke", "f": "send", "value": {"message": "a"}}

`time` is CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share, or virtual.
`type` is `invoke` (begins), `ok` (done), `fail` (not done, and known), or `info` (nobody knows,
or a fact by itself). A process does one thing of a kind at a time: the next `ok`, `fail` or `info`
of the same `process` and `f` ends what it began. Each line is one write(2) without a buffer, so
that it is there when its event is over, and whole; several processes may write to one file.
Lines may lie a little out of order: readers sort by `time`.

| f | of | types, and what their values have |
|---|---|---|
| `campaign` | campaign | info: about, seed, commit; what else it is |
| `send` | a client | invoke: content is about to leave: message, digest, recipients |
|   |   | ok: 250; fail: refused: step, code; info: no answer: step |
| `connect` | a connection | invoke: open; ok: closed; fail: turned away |
| `login` | a connection | fail: refused |
| `deliver` | a connection | invoke: content begins: message, recipients, worker |
|   |   | ok: its 250 leaves; fail: its refusal does: code; info: cut off, no answer |
| `dot` | a connection | info: the final dot was read: message, recipients, digest, worker |
| `limit` | a provider | info: rate_per_s, window_s, connections |
| `mode` | a gateway | invoke: asked for: mode, allow; ok: in force |
| `lease` | a worker | ok: taken: message, recipients, until |
| `release` | a worker | ok: given back: message, recipients |
| `doubt` | a worker | info: recorded: message, recipients |
| `record` | a worker | ok: an outcome is durable: message, recipients |
| `kill` | who strikes | invoke: who dies now: role, worker or provider |
|   |   | ok: service is back: back_ms |
|   |   | info: what the queue had not recorded then: open, begun |
| `fate` | queue | info: at the end: message, recipients, state, doubts |

`message` is the client's own id. `recipients` may be left out where each message has one.
A connection is one of a provider's, named `PROVIDER/NUMBER`; providers without a name are `/1`.
`worker` names the process whose leases, deliveries and end belong together; a provider that
cannot know leaves it out. A worker is of the gateway that its name begins with, up to a `-` or `/`;
`send` and `deliver` may name their `gateway` instead. Of whom that is not known, any may be.
A `message` that is sent again is the same message: one `ok` for a recipient is a promise that
nothing later takes back, and one arrival keeps it.
A `mode` is that of the message at its acceptance and of now; `allow` are addresses or `@domain`.
`state` of a fate is `queued` while it may still be sent, else that of the recipient: `held`,
`delivered`, `bounced`, `expired`, `captured`, `blocked` or `cancelled`. Who knows what each dead
worker had not recorded says so in `open`; where a kill has none, `record` tells. Values may have
more than this; readers ignore it. An `f` that is not here, and a value that is not of its kind or
missing where it is needed, is an error (`bench.history_words`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.history_words import TYPES, find_fault

INVOKE, OK, FAIL, INFO = TYPES
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Event(NamedTuple):
    """One line."""

    time: int
    process: str
    type: str
    f: str
    value: dict[str, Any]

    @property
    def message(self) -> str:
        """The client's id of the message that it is about; empty: none."""
        return str(self.value.get("message", ""))

    @property
    def recipients(self) -> tuple[str, ...]:
        """Those it is about; one without a name where they were left out."""
        return tuple(self.value.get("recipients", ("",)))


class History:
    """Writes events: `take` gets each, `now_ns` stamps it.

    `History(events.append, clock)` keeps them in a list; `open_history` writes to a file.
    """

    __slots__ = ("_now_ns", "_take")

    def __init__(
        self, take: Callable[[Event], object], now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._take = take
        self._now_ns = now_ns

    def invoke(self, process: str, f: str, **value: Any) -> None:
        """Something begins."""
        self._take(Event(self._now_ns(), process, INVOKE, f, value))

    def ok(self, process: str, f: str, **value: Any) -> None:
        """It is done."""
        self._take(Event(self._now_ns(), process, OK, f, value))

    def fail(self, process: str, f: str, **value: Any) -> None:
        """It is not done, which is known."""
        self._take(Event(self._now_ns(), process, FAIL, f, value))

    def info(self, process: str, f: str, **value: Any) -> None:
        """Its end is not known, or it is a fact by itself."""
        self._take(Event(self._now_ns(), process, INFO, f, value))


def open_history(path: Path) -> History:
    """Return what appends to a file, for as long as this process lives."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return History(lambda event: os.write(descriptor, to_line(event)))


def to_line(event: Event) -> bytes:
    """Return an event as a line of a file."""
    return f"{_encode(event._asdict())}\n".encode("ascii")


def parse(line: str | bytes) -> Event:
    """Return the event of a line; raises ValueError saying what is wrong with it."""
    try:
        fields = json.loads(line)
    except RecursionError:
        raise ValueError("not an event of a history: nested too deep") from None
    except ValueError as error:
        raise ValueError(f"not an event of a history: no JSON: {error}") from None
    if fault := find_fault(fields):
        raise ValueError(f"not an event of a history: {fault}: {line!r:.80}")
    return Event(**fields)


def read_history(path: Path, tell: Callable[[str], object] | None = None) -> list[Event]:
    """Return all events of a file in order of time; raises ValueError naming a bad line.

    A last line that was cut off, as one who was killed leaves it, is left out; `tell` gets a word
    of it, standard error where there is none.
    """
    return in_order(_parsed(path, tell or _warn))


def _warn(word: str) -> None:
    sys.stderr.write(f"{word}\n")


def write_history(path: Path, events: Iterable[Event]) -> None:
    """Write events to a file at once."""
    path.write_bytes(b"".join(map(to_line, events)))


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return events in order of time; those of one instant stay as they were."""
    return sorted(events, key=lambda event: event.time)


def _parsed(path: Path, tell: Callable[[str], object]) -> Iterator[Event]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield parse(line)
            except ValueError as error:
                if number > 1 and not line.endswith(b"\n") and not _is_json(line):
                    tell(f"{path}:{number}: this last line was cut off; judged up to there")
                    return
                raise ValueError(f"{path}:{number}: {error}") from None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


class Tail:
    """Reads the events that were added to a growing file since the last look."""

    def __init__(self, path: Path, *, from_its_end: bool = False) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        if from_its_end:
            os.lseek(self._descriptor, 0, os.SEEK_END)
        self._rest = b""

    def read(self) -> list[Event]:
        """Return the new events, as they lie."""
        found: list[Event] = []
        while chunk := os.read(self._descriptor, 1 << 20):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            found += map(parse, lines)
        return found

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
