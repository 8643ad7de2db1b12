"""Accepting and memory while a provider reports 500 events a second, in posts of 100."""

from __future__ import annotations

import base64
import http.client
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.rig.filling import Mail, fill
from bench.rig.gateway import Gateway, provider
from bench.rig.latency import Load, percentile, told
from bench.rig.ports import free_port
from bench.rig.sink import Sink
from bench.standing.figure import Figure, Result
from bench.standing.latency import AIM_MS, AT_LEAST_MS, CONNECTIONS, RATE_PER_S, summary
from bench.standing.memory import MemoryWatch
from bench.standing.setting import Setting
from relaygw.store.store import open_store
from relaygw.upstream.mark import KEY, Marks

_EVENTS_PER_S, _IN_A_POST = 500, 100
_SIZE_BYTES = 4096
_WARM_S = 10.0  # what the first posts load and make is no growth
_KINDS = ("processed", "deferred", "delivered")
_PATIENCE_S = 60.0
_Marked = tuple[str, str]


def provider_events(setting: Setting) -> Result:
    """From connect to the 250, 4 kB, 100 msg/s, while 500 events/s are posted."""
    key = ec.generate_private_key(ec.SECP256R1())
    load_s = max(setting.size.load_s * 2, _WARM_S * 2)
    with setting.directory() as directory, Sink() as sink:
        upstream = provider(sink.port, max_connections=CONNECTIONS)
        reporting = provider(sink.port, preset="sendgrid", **_login(key))
        port = free_port()
        gateway = Gateway(
            directory / "gateway",
            providers={"sink": upstream, "sendgrid": reporting},
            events={"bind": f"127.0.0.1:{port}"},
        )
        marks = _mail(gateway, int(load_s * _EVENTS_PER_S / len(_KINDS)) + 1)
        with gateway, Poster(port, key, marks) as poster:
            setting.say(f"{load_s:.0f} s of {_EVENTS_PER_S} events/s at {RATE_PER_S:.0f} msg/s")
            messages = int(load_s * RATE_PER_S)
            before_s = gateway.cpu_s()
            with Load(
                gateway.smtp_port, rate_per_s=RATE_PER_S, messages=messages, size_bytes=_SIZE_BYTES
            ) as load:
                time.sleep(_WARM_S)
                with MemoryWatch(gateway) as memory:
                    samples = load.samples()
            used_s = gateway.cpu_s() - before_s
            posted, answers_ms = poster.end()
            lag_s = _until_read(gateway.database, posted)
            counted = _counted(gateway.database)
    failed = sum(each.code != 250 for each in samples)
    p99_ms = percentile([each.latency_ms for each in samples], 0.99)
    return Result(
        [
            Figure("p99 of a transaction", p99_ms, "ms", AT_LEAST_MS, AIM_MS),
            Figure("not answered 250", failed, "", 0, 0),
            Figure("memory added after 10 s, all roles", memory.added_mb, "MB", 40, 20),
            Figure("posted and not counted, or twice", abs(posted - counted[0]), "", 0, 0),
            Figure("mail without its verdict", told_of(posted, marks) - counted[1], "", 0, 0),
            Figure("from the last post to the last event", lag_s, "s", 5, 1),
        ],
        [
            f"gateway:  {summary([each.latency_ms for each in samples])}",
            f"replies:  {told(samples)}",
            f"posts:    {summary(answers_ms)}, {posted / load_s:.0f} events/s",
            f"memory:   {memory.added_by_role()}",
            f"processor time of all roles: {used_s / load_s * 100:.0f} % of one processor",
        ],
    )


def told_of(posted: int, marks: list[_Marked]) -> int:
    """Return how many mails so many events are about."""
    return min(-(-posted // len(_KINDS)), len(marks))


def _login(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    secret = f"plain:{base64.b64encode(public).decode()}"
    return {"password": "plain:key", "auth_without_tls": True, "events": {"secret": secret}}


def _mail(gateway: Gateway, count: int) -> list[_Marked]:
    """Put mail into the queue that a provider has; return the mark and the address of each."""
    with gateway:
        pass
    fill(gateway.database, Mail(count, "finished", "default", provider="sendgrid"))
    with closing(open_store(f"sqlite:///{gateway.database}")) as store:
        marks = Marks(store.feedback.shared_key(KEY))
    with closing(sqlite3.connect(gateway.database)) as connection:
        rows = connection.execute("SELECT queue_id, address FROM recipient")
        return [(marks.mark_of(queue_id), address) for queue_id, address in rows]


def _counted(database: Path) -> tuple[int, int]:
    """Return how many events of mail are there, and how many verdicts."""
    with closing(sqlite3.connect(database)) as connection:
        events = "SELECT count(*) FROM provider_event WHERE rcpt_no IS NOT NULL"
        query = f"SELECT ({events}), (SELECT count(*) FROM verdict)"
        counted, judged = connection.execute(query).fetchone()
        return int(counted), int(judged)


def _until_read(database: Path, posted: int) -> float:
    """Return how long after the last post everything was counted."""
    began_s = time.monotonic()
    while _counted(database)[0] < posted and time.monotonic() - began_s < _PATIENCE_S:
        time.sleep(0.05)
    return time.monotonic() - began_s


class Poster:
    """Entered, posts events of mail on a timetable, in a thread; each mail has a few."""

    def __init__(self, port: int, key: ec.EllipticCurvePrivateKey, marks: list[_Marked]) -> None:
        self._port = port
        self._key = key
        self._events = _events(marks)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._posted = 0
        self._answers_ms: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.end()

    def end(self) -> tuple[int, list[float]]:
        """Stop; return how many events were taken, and how long each post waited."""
        self._stop.set()
        self._thread.join()
        return self._posted, self._answers_ms

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += _IN_A_POST / _EVENTS_PER_S
            events = list(islice(self._events, _IN_A_POST))
            body = json.dumps(events).encode()
            began_s = time.monotonic()
            connection.request("POST", "/events/sendgrid", body, self._signed(body))
            answer = connection.getresponse()
            answer.read()
            self._answers_ms.append((time.monotonic() - began_s) * 1000)
            self._posted += len(events) if answer.status == 200 else 0
        connection.close()

    def _signed(self, body: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        signature = self._key.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        name = "X-Twilio-Email-Event-Webhook"
        return {
            f"{name}-Signature": base64.b64encode(signature).decode(),
            f"{name}-Timestamp": stamp,
        }


def _events(marks: list[_Marked]) -> Iterator[dict[str, object]]:
    for mark, address, kind in ((*one, kind) for one in cycle(marks) for kind in _KINDS):
        yield {
            "email": address,
            "event": kind,
            "timestamp": int(time.time()),
            "relaygw": mark,
            "response": "250 2.0.0 OK 1790000000 a1-20020a0123456789b0 - gsmtp",
            "sg_event_id": uuid.uuid4().hex,
            "sg_message_id": f"{uuid.uuid4().hex}.filter0001.16648.5515E0B88.0",
        }
