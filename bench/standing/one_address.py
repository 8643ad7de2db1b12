"""What mail to one address costs: a shop whose owner gets a copy of each order, of 50 kB.

All have one subject and one sender, and each has a text of its own; so each is looked at for
storms, and none is one. Beside it, in turns, the same mail to different people.
"""

from __future__ import annotations

import itertools
import random
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from bench.rig.gateway import Gateway, provider
from bench.rig.processor_time import ProcessorTime
from bench.rig.sink import Sink
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

_BODY_BYTES = 51_200
_SESSIONS = 10
_PATIENCE_S = 60.0
_ROW = (
    '<tr><td class="item" style="padding: 4px 10px; color: #333333">%s</td>'
    "<td>1 piece, delivered soon by our partner, %d.00 EUR</td></tr>\r\n"
)


def one_address(setting: Setting) -> Result:
    """Rate of 50 kB mails to one address against the rate of mails to different people."""
    numbers = itertools.count()
    with setting.directory() as root, ExitStack() as stack:
        sink = stack.enter_context(Sink())
        gateway = Gateway(root, providers={"sink": provider(sink.port, max_connections=10)})
        stack.enter_context(gateway)

        def turn(to_one: bool) -> tuple[float, float]:
            mails = [_mail(next(numbers), to_one=to_one) for _ in range(messages)]
            with ProcessorTime(gateway.pid) as processor:
                accept_per_s = messages / _sent_s(gateway.smtp_port, mails)
                sink.wait_for(next(ends), patience_s=_PATIENCE_S)
            return accept_per_s, processor.used_s["relaygw-front"] / messages * 1e6

        messages = setting.size.turn_messages
        ends = itertools.count(messages, messages)
        turn(to_one=True)
        pairs = []
        for number in range(setting.size.turns):
            order = random.sample([True, False], 2)
            found = {to_one: turn(to_one) for to_one in order}
            pairs.append((found[True], found[False]))
            setting.say(
                f"round {number + 1}: one {found[True][0]:.0f}/s, others {found[False][0]:.0f}/s"
            )
    share = statistics.median(one[0] / others[0] for one, others in pairs)
    times_us = [statistics.median(pair[which][1] for pair in pairs) for which in (0, 1)]
    line = (
        f"  front, us of processor time a message: one {times_us[0]:.0f}, others {times_us[1]:.0f}"
    )
    figure = Figure("accept, to one / to others", share, "", 0.9, 0.95, is_more_better=True)
    return Result([figure], [line])


def _mail(number: int, *, to_one: bool) -> tuple[str, bytes]:
    rows = "".join(_ROW % (f"Article {number + row}", row) for row in range(_BODY_BYTES // 150))
    head = "From: shop@shop.bench.test\r\nTo: owner@shop.bench.test\r\nSubject: New order\r\n"
    content = f"{head}Content-Type: text/html\r\n\r\n<table>\r\n{rows}</table>\r\n.\r\n"
    who = "owner" if to_one else f"customer-{number}"
    return f"{who}@customer.bench.test", content.encode()


def _sent_s(port: int, mails: Sequence[tuple[str, bytes]]) -> float:
    """Hand over all in a few sessions; return the seconds it took."""
    shares = [mails[at::_SESSIONS] for at in range(_SESSIONS)]
    begun_s = time.monotonic()
    with ThreadPoolExecutor(_SESSIONS) as pool:
        for _ in pool.map(_session, itertools.repeat(port), shares):
            pass
    return time.monotonic() - begun_s


def _session(port: int, mails: Sequence[tuple[str, bytes]]) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rb") as replies:
        _expect(replies, b"220")
        client.sendall(b"EHLO bench\r\n")
        _expect(replies, b"250 ")
        for address, content in mails:
            client.sendall(
                f"MAIL FROM:<shop@shop.bench.test>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode()
            )
            _expect(replies, b"354")
            client.sendall(content)
            _expect(replies, b"250 2.0.0")


def _expect(replies: Iterator[bytes], start: bytes) -> None:
    """Read up to a reply that begins so; raise RuntimeError for a refusal."""
    for line in replies:
        if line[:1] in b"45":
            raise RuntimeError(f"refused: {line!r}")
        if line.startswith(start):
            return
