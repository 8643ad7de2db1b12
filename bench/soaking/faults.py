"""The faults: each begins, is seen to begin, lasts, ends, and is seen to end.

A fault that is not seen within a minute raises TimeoutError, and counts as not seen.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from bench.killing.programs import Program
from bench.killing.sink_watch import wait_until
from bench.rig.crowd import Crowd
from bench.rig.limited_terms import Terms
from bench.soaking.rig import PROVIDER, Rig, client_options
from bench.soaking.samples import measure_process

_FEW = 5
_NEVER_PER_S = 1e-6  # a rate that is over after one message
_SILENT_S = 1.5
_CROWD = 20
_BURST_CONNECTIONS = 8
_BURST_NAMES = itertools.count(0x4000, 0x10)  # no other client has such a name
_SMALLER = "20MiB"


@dataclass(slots=True)
class Seen:
    """A fault that was done, and when it was seen (CLOCK_MONOTONIC); None: it was not."""

    fault: str
    at_s: float = field(default_factory=time.monotonic)
    begun_s: float | None = None
    ended_s: float | None = None
    trouble: str = ""

    @property
    def is_whole(self) -> bool:
        """True when it was seen to begin and to end."""
        return self.begun_s is not None and self.ended_s is not None


def inflict(rig: Rig, fault: str, *, hold_s: float) -> Seen:
    """Do a fault, from its beginning to its end."""
    seen = Seen(fault)
    try:
        with FAULTS[fault](rig):
            seen.begun_s = time.monotonic()
            time.sleep(hold_s)
        seen.ended_s = time.monotonic()
    except TimeoutError as error:
        seen.trouble = str(error)
    return seen


@contextmanager
def _refuses(rig: Rig) -> Iterator[None]:
    with _terms(rig, Terms(rate_per_s=_NEVER_PER_S)):
        yield


@contextmanager
def _throttles(rig: Rig) -> Iterator[None]:
    with _terms(rig, Terms(rate_per_s=rig.rate_per_s / 2, connections=2)):
        yield


@contextmanager
def _terms(rig: Rig, terms: Terms) -> Iterator[None]:
    refused = rig.refused()
    rig.provider.change(terms)
    try:
        wait_until(lambda: rig.refused() > refused, "a refusal")
        yield
    finally:
        rig.provider.change(Terms())
    rig.wait_for_more_taken(_FEW)


@contextmanager
def _hangs(rig: Rig) -> Iterator[None]:
    rig.provider.freeze()
    try:
        _wait_for_silence(rig)
        yield
    finally:
        rig.provider.thaw()
    rig.wait_for_more_taken(_FEW)


@contextmanager
def _closes(rig: Rig) -> Iterator[None]:
    rig.provider.kill()
    rig.history.invoke("soak", "kill", role="provider", provider=PROVIDER)
    try:
        _wait_for_silence(rig)
        yield
    finally:
        rig.provider.start()
    rig.wait_for_more_taken(_FEW)


def _wait_for_silence(rig: Rig) -> None:
    """Return once mail is accepted while none is taken."""
    since_s, taken = time.monotonic(), rig.taken()

    def is_silent() -> bool:
        nonlocal since_s, taken
        if (now := rig.taken()) != taken:
            since_s, taken = time.monotonic(), now
        return time.monotonic() - since_s > _SILENT_S

    wait_until(is_silent, "a provider that takes nothing")
    rig.wait_for_more_acknowledged(_FEW)


def _killed(role: str) -> Callable[[Rig], Iterator[None]]:
    def fault(rig: Rig) -> Iterator[None]:
        before = set(rig.gateway.pids(role))
        rig.striker.strike(role)
        wait_until(lambda: bool(set(rig.gateway.pids(role)) - before), f"another {role}")
        yield
        rig.wait_for_more_taken(_FEW)

    return fault


@contextmanager
def _web_killed(rig: Rig) -> Iterator[None]:
    before = set(rig.gateway.pids("web"))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: before.isdisjoint(rig.gateway.pids("web")), "the pages to end")
    yield
    wait_until(lambda: bool(rig.gateway.pids("web")), "the pages")


@contextmanager
def _reloaded(rig: Rig) -> Iterator[None]:
    usual = rig.told_size()
    rig.change_listener(max_message_size=_SMALLER)
    os.kill(rig.gateway.pid, signal.SIGHUP)
    wait_until(lambda: rig.told_size() not in ("", usual), "another SIZE")
    yield
    rig.change_listener(max_message_size="50MiB")
    os.kill(rig.gateway.pid, signal.SIGHUP)
    wait_until(lambda: rig.told_size() == usual, "the usual SIZE")
    rig.wait_for_more_taken(_FEW)


@contextmanager
def _database_restarted(rig: Rig) -> Iterator[None]:
    assert rig.server is not None
    before = rig.server.postmaster_started()
    rig.server.restart(immediately=rig.taken() % 2 == 0, away_s=2.0)
    if rig.server.postmaster_started() == before:
        raise TimeoutError("the database was not restarted")
    yield
    rig.wait_for_more_acknowledged(_FEW)
    rig.wait_for_more_taken(_FEW)


@contextmanager
def _burst(rig: Rig) -> Iterator[None]:
    usual, wanted = len(rig.queue.due_ids()), rig.acknowledged() + int(20 * rig.rate_per_s)
    clients = Program(
        "bench.killing.clients",
        **client_options(rig),
        connections=_BURST_CONNECTIONS,
        rate_per_s=10 * rig.rate_per_s,
        first_name=next(_BURST_NAMES),
    )
    with clients:
        begun_s = time.monotonic()
        wait_until(lambda: rig.acknowledged() >= wanted, "the mail of a burst")
        per_s = 20 * rig.rate_per_s / (time.monotonic() - begun_s)
        if per_s < 2 * rig.rate_per_s:
            raise TimeoutError(f"a burst of only {per_s:.0f} messages a second")
    yield
    # after a provider that throttled, its pace grows for a minute: the queue does not get empty
    most = max(usual + 2 * rig.rate_per_s, len(rig.queue.due_ids()) - 1)
    wait_until(lambda: len(rig.queue.due_ids()) <= most, "a queue that gets shorter")
    rig.wait_for_more_taken(_FEW)


@contextmanager
def _clients_hang(rig: Rig) -> Iterator[None]:
    usual = _front_descriptors(rig)
    with Crowd(rig.gateway.smtp_port, clients=_CROWD, behaviour="content", every_s=2.0):
        wait_until(lambda: _front_descriptors(rig) >= usual + _CROWD - _FEW, "their connections")
        yield
    wait_until(lambda: _front_descriptors(rig) <= usual + _FEW, "their connections to close")


def _front_descriptors(rig: Rig) -> float:
    counts = [measure_process(pid).get("descriptors", 0) for pid in rig.gateway.pids("front")]
    return sum(counts)


@contextmanager
def _log_reopened(rig: Rig) -> Iterator[None]:
    old = rig.log.with_name(f"{rig.log.name}.1")
    rig.log.rename(old)
    os.kill(rig.gateway.pid, signal.SIGUSR1)
    wait_until(lambda: rig.log.exists() and rig.log.stat().st_size > 0, "lines in a new log")
    yield
    size, taken = old.stat().st_size, rig.taken()
    wait_until(lambda: rig.taken() > taken + _FEW, "more mail")
    if old.stat().st_size != size:
        raise TimeoutError("somebody writes to the log that was put away")


RENEWING = ("front killed", "delivery killed", "pages killed", "reload")
"""What starts processes anew."""
OTHERS = (
    *("provider refuses", "provider throttles", "provider hangs", "provider closes"),
    *("burst", "clients hang", "log reopened"),
)
OF_POSTGRES = ("database restarted",)
FAULTS: Mapping[str, Callable[[Rig], AbstractContextManager[None]]] = {
    "front killed": contextmanager(_killed("front")),
    "delivery killed": contextmanager(_killed("delivery")),
    "pages killed": _web_killed,
    "reload": _reloaded,
    "provider refuses": _refuses,
    "provider throttles": _throttles,
    "provider hangs": _hangs,
    "provider closes": _closes,
    "burst": _burst,
    "clients hang": _clients_hang,
    "log reopened": _log_reopened,
    "database restarted": _database_restarted,
}
