"""Others, who wait while something hostile is taken: their waits, and when.

They ask from a process of their own: the one that makes the hostile texts would have them wait for
its interpreter, and each such wait would look like one of the gateway.
"""

from __future__ import annotations

import http.client
import multiprocessing
import signal
import smtplib
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import NamedTuple, Self

PATIENCE_S = 60.0
_REST_S = 0.03


@dataclass(slots=True)
class Wait:
    """One wait that was long, and when."""

    began_s: float
    waited_s: float


class Waits(NamedTuple):
    """The waits of a probe, and what went wrong last, since it was last asked for them."""

    name: str
    waits: list[Wait]
    trouble: str


@dataclass(slots=True)
class Probe:
    """Entered, asks the same again and again in a thread of its own."""

    name: str
    open: Callable[[], Callable[[], None]]
    waits: list[Wait] = field(default_factory=list)
    trouble: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(PATIENCE_S)

    def take(self) -> Waits:
        """Return the waits since the last call."""
        taken, self.waits = Waits(self.name, self.waits, self.trouble), []
        self.trouble = ""
        return taken

    def _run(self) -> None:
        ask: Callable[[], None] | None = None
        while not self._stop.wait(_REST_S):
            began_s = time.monotonic()
            try:
                ask = ask or self.open()
                ask()
            except (OSError, smtplib.SMTPException, http.client.HTTPException) as error:
                self.trouble, ask = f"{type(error).__name__}: {error}", None
            self.waits.append(Wait(began_s, time.monotonic() - began_s))


def noop(port: int) -> Probe:
    """Ask a connection to the front for NOOP."""

    def opened() -> Callable[[], None]:
        client = smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE_S)

        def ask() -> None:
            if client.noop()[0] != 250:  # it has asked too often on one connection
                client.connect("127.0.0.1", port)

        return ask

    return Probe("NOOP of another client", opened)


def small_mail(port: int) -> Probe:
    """Send small mails, each with an envelope of its own, over one connection."""
    content = b"From: a@shop.test\r\nSubject: order\r\n\r\nhello\r\n"

    def opened() -> Callable[[], None]:
        client = smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE_S)

        def send() -> None:
            client.sendmail("probe@shop.test", ["captured@probe.test"], content)

        return send

    return Probe("small mail of another client", opened)


def ready(port: int) -> Probe:
    """Ask the web role whether the gateway is ready."""

    def opened() -> Callable[[], None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)

        def get() -> None:
            connection.request("GET", "/readyz")
            connection.getresponse().read()

        return get

    return Probe("GET /readyz", opened)


# --- their process ---------------------------------------------------------------------------


class Others:
    """Entered, all of them ask the gateway at these ports, in a process of their own."""

    def __init__(self, smtp_port: int, web_port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._told, theirs = context.Pipe()
        self._process = context.Process(
            target=_ask, args=(theirs, smtp_port, web_port), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._told.close()
        self._process.join(PATIENCE_S)

    def take(self) -> list[Waits]:
        """Return the waits of each since the last call."""
        self._told.send(True)
        taken: list[Waits] = self._told.recv()
        return taken


def _ask(asked: Connection, smtp_port: int, web_port: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this ends it
    probes = (noop(smtp_port), small_mail(smtp_port), ready(web_port))
    with ExitStack() as stack, suppress(EOFError):
        for one in probes:
            stack.enter_context(one)
        while asked.recv():
            asked.send([one.take() for one in probes])
