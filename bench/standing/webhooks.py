"""What telling a shop of each delivered mail costs: throughput with a receiver against none."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from bench.rig.gateway import Gateway, free_port, provider
from bench.rig.sink import Sink
from bench.rig.source import send
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

BODY_BYTES = 4096
CONNECTIONS = 10
WARM_UP = 200
PATIENCE_S = 60.0
SECRET = "plain:whsec_" + "A" * 32
NONE, TAKING, DEAD = "none", "taking", "dead"


class Shop:
    """A receiver that takes every post and counts the events by their ids' key."""

    def __init__(self) -> None:
        self.events = 0
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                shop.events += body.count(b'"queue_id":')
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Run:
    """Messages a second: until the last 250, and until the last one was at the provider."""

    accept_per_s: float
    through_per_s: float
    told: int = 0


def webhooks(setting: Setting) -> Result:
    """Throughput with a receiver of `delivered` that takes, and one that is dead, against none."""
    rounds = []
    for number in range(setting.size.rounds):
        order = [NONE, TAKING, DEAD] if number % 2 == 0 else [DEAD, TAKING, NONE]
        rounds.append({kind: _run(setting, kind) for kind in order})
        for kind in order:
            run = rounds[-1][kind]
            setting.say(
                f"round {number + 1}, {kind}: {run.accept_per_s:.0f} accepted, "
                f"{run.through_per_s:.0f} end to end a second, {run.told} told"
            )
    figures = []
    for kind in (TAKING, DEAD):
        for what, name in (("accept", "accept_per_s"), ("end to end", "through_per_s")):
            shares = (getattr(one[kind], name) / getattr(one[NONE], name) for one in rounds)
            share = statistics.median(shares)
            label = f"{what}, {kind} / none"
            figures.append(Figure(label, share, "", 0.95, 0.97, is_more_better=True))
    return Result(figures, [])


def _run(setting: Setting, kind: str) -> Run:
    burst = setting.size.burst
    with setting.directory() as root, Sink() as sink, Shop() as shop:
        url = shop.url if kind == TAKING else f"http://127.0.0.1:{free_port()}/"
        more: dict[str, Any] = {"webhooks": [{"url": url, "secret": SECRET, "on": ["delivered"]}]}
        with Gateway(
            root / "gateway",
            providers={"sink": provider(sink.port, max_connections=CONNECTIONS)},
            **({} if kind == NONE else more),
        ) as gateway:
            send(gateway.smtp_port, messages=WARM_UP, size_bytes=BODY_BYTES)
            sink.wait_for(WARM_UP, patience_s=PATIENCE_S)
            begun_s = time.monotonic()
            sent_s = send(gateway.smtp_port, messages=burst, size_bytes=BODY_BYTES)
            ended_s = sink.wait_for(WARM_UP + burst, patience_s=PATIENCE_S)
            deadline_s = time.monotonic() + PATIENCE_S
            while kind == TAKING and shop.events < WARM_UP + burst:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{shop.events} of {WARM_UP + burst} events")
                time.sleep(0.05)
    return Run(burst / sent_s, burst / (ended_s - begun_s), shop.events)
