"""One round: hand messages over, wait until the sink has them all, tell how fast it went.

A round ends when the server's queue is empty, so the next one finds the machine quiet. Any
message lost, sent twice, deferred or complained of ends the benchmark.
"""

from __future__ import annotations

import os
import time

from bench.rig import source
from bench.rig.cases import Setup
from bench.rig.contestants import Contestant
from bench.rig.processor_time import ProcessorTime
from bench.rig.progress import telling

WARM_UP_MESSAGES = 200
PROCESSOR_MS = "processor_ms "
_PATIENCE_S = 60.0

# messages a second by what was measured: accepted (by the server, from the client), end_to_end
# (from the first connection to the last message in the sink), backlog (from the release on);
# but sendmail_ms is the time of one call, and PROCESSOR_MS with the name of a process, or with ALL
# of a server's, is its processor time a message
Speeds = dict[str, float]


class RoundFailed(Exception):
    """A server did not do what it was there for; the text tells which and how."""


def warm_up(contestant: Contestant, setup: Setup) -> None:
    """Run a short round that does not count."""
    run_round(contestant, setup, WARM_UP_MESSAGES)


def run_round(contestant: Contestant, setup: Setup, messages: int) -> Speeds:
    """Run one round with `messages` messages; raise RoundFailed at any irregularity."""
    sink = contestant.upstream.sink
    one_round = _backlog if setup.is_backlog else _command if setup.is_command else _through
    os.sync()  # nobody waits for what the other one has still to be written
    try:
        with (
            telling(lambda: f"{contestant.name}: {sink.count} messages in the sink so far"),
            ProcessorTime(contestant.pid) as processor,
        ):
            speeds = one_round(contestant, setup, messages)
            if contestant.log is not None:
                handed_over = contestant.handed_over
                contestant.log.wait_until_removed(handed_over, patience_s=_PATIENCE_S)
        for name, used_s in processor.used_s.items():
            speeds[PROCESSOR_MS + name] = used_s / messages * 1000
        # once more: the last message counted may have been a second copy of another
        _wait_for_the_last(contestant)
    except Exception as failure:
        complaints = _complaints(contestant)
        raise RoundFailed(f"{contestant.name}: {failure}\n{complaints}".rstrip()) from failure
    if complaints := _complaints(contestant):
        raise RoundFailed(f"{contestant.name} complains in its log:\n{complaints}")
    return speeds


def _complaints(contestant: Contestant) -> str:
    if contestant.log is None:
        return ""
    contestant.log.read()
    return "\n".join(contestant.log.faults[:5])


def _through(contestant: Contestant, setup: Setup, messages: int) -> Speeds:
    begun_s = time.monotonic()
    taken_s = _hand_over(contestant, setup, messages)
    last_s = _wait_for_the_last(contestant)
    return {"accepted": messages / taken_s, "end_to_end": messages / (last_s - begun_s)}


def _command(contestant: Contestant, setup: Setup, messages: int) -> Speeds:
    """Time the calls alone; each returns before its message is delivered."""
    assert contestant.sendmail is not None, "this needs a command"
    contestant.handed_over += messages
    taken_ms = contestant.sendmail.send(messages=messages, size_bytes=setup.size_bytes)
    _wait_for_the_last(contestant)
    return {"sendmail_ms": taken_ms}


def _backlog(contestant: Contestant, setup: Setup, messages: int) -> Speeds:
    """Queue everything while the provider's line is held, then time the delivery alone.

    Both have their connections open by then and wait for the provider's part of the handshake,
    so neither has to notice first that it may start.
    """
    line, sink = contestant.upstream.line, contestant.upstream.sink
    assert line is not None, "a backlog needs a line that can be held"
    line.hold()
    before = sink.count
    _hand_over(contestant, setup, messages)
    assert sink.count == before, "mail went through a line that was held"
    begun_s = time.monotonic()
    line.release()
    return {"backlog": messages / (_wait_for_the_last(contestant) - begun_s)}


def _hand_over(contestant: Contestant, setup: Setup, messages: int) -> float:
    contestant.handed_over += messages
    return source.send(contestant.smtp_port, messages=messages, size_bytes=setup.size_bytes)


def _wait_for_the_last(contestant: Contestant) -> float:
    sink = contestant.upstream.sink
    return sink.wait_for(contestant.handed_over, patience_s=_PATIENCE_S)
