"""The command line of bench/hostile, and the order of a run."""

from __future__ import annotations

import argparse
import base64
import http.client
import random
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from bench.fuzzing.targets import TARGETS
from bench.hostiles import texts
from bench.hostiles.probes import PATIENCE_S, Others
from bench.hostiles.provider import Replying
from bench.rig.campaign import end_with_sigterm, place_of_files, print_heading, seed_of
from bench.rig.gateway import Gateway, provider
from bench.rig.ports import free_port
from bench.rig.progress import say
from bench.rig.sendmail import install_ours

LIMIT_S = 0.5
"""How long another client may wait at most."""
_LARGE_BYTES = 4 << 20
_POST_BYTES = 1 << 20
_REPLY_BYTES = 60_000
_SIZES = (2_000, 8_000, 64_000)
_REPLY_SIZES = (500, 2_000, 4_000)  # longer lines are errors
_SHOWN = 5
_REPLIES_EACH = 2  # of a provider: after two of a kind it is paused, and asked each minute only
_LOGIN = "user:hostile-password"
_BOUNCES = "bounces@gw.bench.test"
_ABOUT = """\
Sends hostile heads (SMTP, and the sendmail command), bounce mails, replies and events to a gateway
of real processes, and asks meanwhile on other connections: NOOP, a small mail, GET /readyz. Ends
with 0 if none of them ever waited longer than half a second.
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent, and when."""

    name: str
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Made:
    """A text of one size; it is made when its turn comes, for they take much memory together."""

    name: str
    make: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Kind:
    """Hostile things of one kind: how many are made of which texts, and what takes one."""

    name: str
    cases: list[texts.Case]
    send: Callable[[bytes], object]
    most_bytes: int


class Run:
    """A gateway, the others who ask it, and the worst of their waits."""

    def __init__(self, directory: Path, *, count: int, large: int, seed: int) -> None:
        self._directory = directory
        self._count, self._large = count, large
        self._providers = max(1, count // _REPLIES_EACH)
        self._random = random.Random(seed)
        self.worst_s = 0.0

    def carry_out(self) -> None:
        """Send everything, one kind after the other, and print the waits of each."""
        with ExitStack() as stack:
            replying = stack.enter_context(Replying())
            gateway = self._gateway(replying.port)
            web = int(gateway.settings["web"]["bind"].rpartition(":")[2])
            events = int(gateway.settings["events"]["bind"].rpartition(":")[2])
            stack.enter_context(gateway)
            smtp = gateway.smtp_port
            others = stack.enter_context(Others(smtp, web))
            others.take()  # they have begun
            time.sleep(1.0)
            self._tell("nothing", others, [])
            for kind in self._kinds(gateway, events):
                self._tell(kind.name, others, list(self._sent(kind)))
            self._tell("replies of a provider", others, self._replied(smtp, replying))

    def _gateway(self, port: int) -> Gateway:
        reporting = provider(port, preset="postmark", events={"secret": f"plain:{_LOGIN}"})
        login = {"username": "u", "password": "plain:p", "auth_without_tls": True}
        replying = {f"p{number}": provider(port) for number in range(self._providers)}
        routes = [
            {"name": name, "recipient": [f"@{name}.test"], "providers": [name]} for name in replying
        ]
        return Gateway(
            self._directory / "gateway",
            providers={**replying, "postmark": reporting | login},
            routes=[*routes, {"name": "default", "providers": ["p0"]}],
            events={"bind": f"127.0.0.1:{free_port()}"},
            bounces={"inbound": _BOUNCES},
            rewrite={"senders": {"@web1.internal": "shop@example.com"}},
            recipients={"block": ["@blocked.test"]},
            log={"redact": ["addresses", "subject"]},
        )

    def _kinds(self, gateway: Gateway, events: int) -> Iterator[Kind]:
        heads = [*texts.heads(), *texts.mails()]
        command = install_ours(self._directory / "prefix", self._directory / "gateway/maildrop")
        bounces = list(texts.bounces(list(TARGETS["bounces"].inputs[:2])))
        posted = list(texts.events(list(TARGETS["events"].inputs[1:2])))

        def by_smtp(to: str) -> Callable[[bytes], object]:
            return partial(_by_smtp, gateway.smtp_port, to)

        def by_command(data: bytes) -> object:
            words = [*command.words, "-i", "b@cust.test"]
            environment = dict(command.environment)
            return subprocess.run(words, input=data, env=environment, stderr=subprocess.DEVNULL)

        yield Kind("mails by SMTP", heads, by_smtp("b@cust.test"), _LARGE_BYTES)
        yield Kind("mails by sendmail", heads, by_command, _LARGE_BYTES)
        yield Kind("bounce mails", bounces, by_smtp(_BOUNCES), _LARGE_BYTES)
        yield Kind("events", posted, lambda data: _post(events, data), _POST_BYTES)

    def _sized(
        self, cases: list[texts.Case], most_bytes: int, sizes: Sequence[int] = _SIZES
    ) -> Iterator[Made]:
        """Yield so many cases, each with one size: the first ones as large as can be."""
        chosen = self._random.sample(cases, len(cases))
        for number, case in enumerate(islice(cycle(chosen), self._count)):
            size = most_bytes - 4_000 if number < self._large else self._random.choice(sizes)
            yield Made(f"{case.name}, {size} bytes", partial(case.of, size))

    def _sent(self, kind: Kind) -> Iterator[Sent]:
        say(f"{kind.name}: {self._count}")
        for case in self._sized(kind.cases, kind.most_bytes):
            data, began_s = case.make(), time.monotonic()
            with suppress(OSError, smtplib.SMTPException, http.client.HTTPException):
                kind.send(data)
            yield Sent(case.name, began_s, time.monotonic())

    def _replied(self, port: int, replying: Replying) -> list[Sent]:
        say(f"replies: {self._count}")
        cases = list(self._sized(list(texts.replies()), _REPLY_BYTES, _REPLY_SIZES))
        sent: list[Sent] = []

        def replies() -> Iterator[bytes]:
            for case in cases:
                sent.append(Sent(case.name, time.monotonic(), time.monotonic() + 1.0))
                yield case.make()

        replying.answer_with(replies())
        for number in range(2 * len(cases)):
            mail = b"Subject: x\r\n\r\nhello\r\n"
            with suppress(OSError, smtplib.SMTPException):
                _by_smtp(port, f"c{number}@p{number % self._providers}.test", mail)
        until_s = time.monotonic() + max(PATIENCE_S, self._count / 2)
        while replying.given < len(cases) and time.monotonic() < until_s:
            time.sleep(0.5)
        say(f"{replying.given} were given")
        return sent

    def _tell(self, name: str, others: Others, sent: list[Sent]) -> None:
        """Print how long each waited, and during what."""
        time.sleep(1.0 if not sent else 5.0)  # what is read behind the answer counts, too
        print(f"{name}, {len(sent)}:")
        for one in others.take():
            waits = sorted(one.waits, key=lambda wait: -wait.waited_s)
            longest_s = waits[0].waited_s if waits else 0.0
            self.worst_s = max(self.worst_s, longest_s)
            print(f"   {one.name:30} {longest_s * 1000:8.0f} ms at most, {len(waits)} times")
            for wait in waits[:_SHOWN] if sent and longest_s > LIMIT_S / 5 else ():
                ended_s = wait.began_s + wait.waited_s
                during = [x for x in sent if x.began_s <= ended_s and x.ended_s >= wait.began_s]
                names = "; ".join(each.name for each in during[:2]) or "what came before"
                print(f"      {wait.waited_s * 1000:8.0f} ms: {names}")
            if one.trouble:
                print(f"      {one.trouble}")
        sys.stdout.flush()


def _by_smtp(port: int, to: str, data: bytes) -> None:
    content = b"\r\n".join(data.splitlines()) + b"\r\n"
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE_S) as client:
        client.ehlo("h.test")
        client.sendmail("a@shop.test", [to], content, mail_options=["BODY=8BITMIME"])


def _post(port: int, body: bytes) -> None:
    secret = base64.b64encode(_LOGIN.encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    fields = {"authorization": f"Basic {secret}", "content-type": "application/json"}
    connection.request("POST", "/events/postmark", body, fields)
    connection.getresponse().read()
    connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit code."""
    parser = argparse.ArgumentParser(prog="hostile", description=_ABOUT)
    parser.add_argument("--count", type=int, default=1000, help="of each kind (default: 1000)")
    parser.add_argument("--large", type=int, default=20, help="of these as large as may be")
    parser.add_argument("--seed", type=int, help="chooses texts and sizes")
    parser.add_argument("--keep", type=Path, help="a directory for the gateway's files")
    options = parser.parse_args(arguments)
    end_with_sigterm()
    seed = seed_of(options.seed)
    with place_of_files(options.keep, "gateway", "hostile-") as directory:
        print_heading(directory)
        run = Run(directory, count=options.count, large=options.large, seed=seed)
        run.carry_out()
    is_good = run.worst_s <= LIMIT_S
    print(f"{'PASSED' if is_good else 'FAILED'}: the longest wait was {run.worst_s * 1000:.0f} ms")
    return 0 if is_good else 1
