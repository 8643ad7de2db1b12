"""Mail of a recipe through a real Postfix and through relaygw with what the import made of it.

    with Providers() as providers:
        measured = measure(recipe, providers, tmp_path)

What counts is what the providers get: which of them, who logs in, the envelope, and the addresses
of the header.
"""

from __future__ import annotations

import json
import os
import re
import smtplib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.utils import getaddresses
from pathlib import Path
from typing import Any, Self

import trustme
import yaml
from click.testing import CliRunner

from relaygw.cli import main
from tests.e2e.gateway import Gateway
from tests.e2e.postfix_recipes import USERS, Recipe
from tests.fakes.scripted_provider import ThreadedProvider
from tests.real_postfix import PATIENCE_S, PostfixInstance

CLAIMED = ("same", "stricter", "sent by neither")
_HOPS = ("main", "other", "third", "implicit")
_SETTLED_S = 30.0
_OWN = ("providers", "routes", "mode")  # what a Gateway is given by name
_LEFT = ("listeners", "retry", "bounces", "log")  # where it listens and when it tries is not ours


@dataclass(frozen=True)
class Seen:
    """One copy of a mail at a provider."""

    hop: str
    user: str | None
    is_tls: bool
    sender: str
    recipient: str
    header: tuple[tuple[str, tuple[str, ...]], ...]

    def __str__(self) -> str:
        fields = " ".join(f"{name}={','.join(value)}" for name, value in self.header)
        return f"{self.hop}/{self.user}{'/tls' if self.is_tls else ''} <{self.sender}> to " \
               f"{self.recipient} ({fields})"  # fmt: skip


@dataclass
class Measured:
    """What was said of each mail of a recipe, and what was true."""

    recipe: Recipe
    said: dict[tuple[str, str], tuple[str, str]]  # result and why
    by_postfix: dict[tuple[str, str], frozenset[Seen]] = field(default_factory=dict)
    by_relaygw: dict[tuple[str, str], frozenset[Seen]] = field(default_factory=dict)
    problem: str = ""  # why there was no import

    def _is_same(self, pair: tuple[str, str]) -> bool:
        return self.by_postfix.get(pair) == self.by_relaygw.get(pair)

    def _claimed(self) -> list[tuple[str, str]]:
        return [pair for pair in self.recipe.pairs() if self.said[pair][0] in CLAIMED]

    @property
    def true(self) -> list[tuple[str, str]]:
        """Mail that is called the same, and is."""
        return [pair for pair in self._claimed() if self._is_same(pair)]

    @property
    def false(self) -> list[tuple[str, str]]:
        """Mail that is called the same, and is not."""
        return [pair for pair in self._claimed() if not self._is_same(pair)]

    @property
    def could(self) -> list[tuple[str, str]]:
        """Mail that is not called the same, though it could be."""
        return [
            pair
            for pair in self.recipe.pairs()
            if self.said[pair][0] not in CLAIMED and self.recipe.can_be_same(*pair)
        ]

    def story(self, pairs: Sequence[tuple[str, str]]) -> str:
        """Return what is to be known of some mail."""
        shown = [f"{self.recipe.name}: {self.problem}"]
        for pair in pairs:
            shown.append(f"  <{pair[0]}> > {pair[1]}: {' '.join(self.said[pair])}")
            for name, seen in (("postfix", self.by_postfix), ("relaygw", self.by_relaygw)):
                found = sorted(map(str, seen.get(pair, ())))
                shown.append(f"    {name} {'; '.join(found) or 'nothing'}")
        return "\n".join(shown)


class Providers:
    """The hops, for any number of recipes one after another."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self.by_name = {
            name: self._stack.enter_context(
                ThreadedProvider(tls="implicit" if name == "implicit" else "starttls", users=USERS)
            )
            for name in _HOPS
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def hops(self) -> dict[str, str]:
        """The hops as main.cf names them."""
        return {name: f"[127.0.0.1]:{one.port}" for name, one in self.by_name.items()}

    def authorities(self) -> str:
        """Return who has signed their certificates."""
        return "".join(Path(one.tls_ca).read_text() for one in self.by_name.values() if one.tls_ca)

    def take(self, recipe: Recipe) -> dict[tuple[str, str], frozenset[Seen]]:
        """Return what came of each mail, and forget it."""
        pairs = list(recipe.pairs())
        found: dict[tuple[str, str], frozenset[Seen]] = {}
        for hop, one in self.by_name.items():
            for message in one.messages:
                match = re.search(rb"^Subject: no (\d+)\r$", message.content, re.M)
                if match is None or b"multipart/report" in message.content:
                    continue  # a notice of failure
                header = message_from_bytes(message.content)
                named = {name: header.get_all(name, []) for name in ("From", "To")}
                fields = tuple(
                    (name, tuple(text.lower() for _, text in getaddresses(values)))
                    for name, values in named.items()
                )
                seen = {
                    Seen(hop, message.user, message.is_tls, message.sender.lower(),
                         recipient.lower(), fields)
                    for recipient in message.recipients
                }  # fmt: skip
                pair = pairs[int(match[1])]
                found[pair] = found.get(pair, frozenset()) | seen
            one.messages.clear()
        return found


def measure(recipe: Recipe, providers: Providers, directory: Path) -> Measured:
    """Send the mail of a recipe both ways; `directory` is an empty one."""
    with _postfix(recipe, providers) as instance:
        said, settings, problem = _imported(recipe, instance.conf, directory)
        measured = Measured(recipe, said, problem=problem)
        if instance.start(unless="fatal: in parameter smtpd_relay_restrictions"):
            _send_all(recipe, instance.port)
            _wait_until_done(instance)
        measured.by_postfix = providers.take(recipe)
        if problem:
            return measured
        sections = {k: one for k, one in settings.items() if k not in (*_OWN, *_LEFT)}
        named = {name: settings[name] for name in _OWN}
        own = directory / "gateway"
        own.mkdir()
        with Gateway(own, **named, **sections) as gateway:
            _send_all(recipe, gateway.smtp_port)
            _wait_until_tried(gateway)
            measured.by_relaygw = providers.take(recipe)
    return measured


@contextmanager
def _postfix(recipe: Recipe, providers: Providers) -> Iterator[PostfixInstance]:
    places = {**providers.hops, "dir": "{base}/conf"}
    instance = PostfixInstance(_filled(recipe.base + recipe.main, places))
    try:
        places["dir"] = str(instance.conf)
        main_cf = instance.conf / "main.cf"
        # of two lines the last holds; Postfix warns of it
        main_cf.write_text(_without_repetitions(main_cf.read_text(), is_old=recipe.is_old))
        with (instance.conf / "master.cf").open("a") as master:
            master.write(_filled(recipe.master, places))
        (instance.conf / "ca.pem").write_text(providers.authorities())
        key = trustme.CA().issue_cert("web1.shop.example").private_key_and_cert_chain_pem
        key.write_to_path(instance.conf / "client.pem")
        for name, text in recipe.files.items():
            (instance.conf / name).write_text(_filled(text, places))
        for name, text in recipe.indexed.items():
            instance.add_table(name, _filled(text, places))
        os.utime(main_cf, (1, 1))  # Postfix waits where it changed just now
        yield instance
    finally:
        instance.__exit__()


def _filled(text: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


def _without_repetitions(text: str, *, is_old: bool) -> str:
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if not line[0].isspace():
            name = line.partition("=")[0].strip()
            found[name] = ""
        found[name] += line
    if is_old:
        del found["compatibility_level"]
    return "".join(found.values())


def _imported(
    recipe: Recipe, conf: Path, directory: Path
) -> tuple[dict[tuple[str, str], tuple[str, str]], dict[str, Any], str]:
    """Return what is said of each mail, the settings, and why there are none."""
    file = directory / "relaygw.yaml"
    asked = [f"--compare={sender or '<>'},{to}" for sender, to in recipe.pairs()]
    words = ["import-postfix", str(conf), "--output", str(file), "--json", *asked]
    done = CliRunner().invoke(main, words)
    if done.exit_code:
        return dict.fromkeys(recipe.pairs(), ("no import", "")), {}, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    mails = [row for row in rows if row["kind"] == "mail"]
    said = {(row["sender"], row["recipient"]): (row["result"], row["why"]) for row in mails}
    settings = yaml.safe_load(file.read_text())
    ca_file = directory / "ca.pem"
    ca_file.write_bytes((conf / "ca.pem").read_bytes())
    return said, settings, ""


def _send_all(recipe: Recipe, port: int) -> None:
    for number, (sender, recipient) in enumerate(recipe.pairs()):
        lines = (
            f"From: Name <{sender or 'mailer-daemon@app.example'}>", f"To: <{recipient}>",
            f"Subject: no {number}", f"Message-ID: <{number}@app.example>",
            "Date: Tue, 01 Dec 2026 10:00:00 +0000", "", "hello",
        )  # fmt: skip
        try:
            with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test") as client:
                client.sendmail(sender, [recipient], "\r\n".join(lines) + "\r\n")
        except smtplib.SMTPException:
            continue  # refused


def _wait_until_done(postfix: PostfixInstance) -> None:
    """Wait until nothing moves any more: what is left was put off, or is held."""
    deadline_s = time.monotonic() + PATIENCE_S
    queues = [postfix.queue / name for name in ("maildrop", "incoming", "active")]
    while any(path.is_file() for one in queues for path in one.rglob("*")):
        assert time.monotonic() < deadline_s, postfix.log()
        time.sleep(0.05)


def _wait_until_tried(gateway: Gateway) -> None:
    """Wait until each mail is sent, captured, or was put off once."""
    deadline_s = time.monotonic() + _SETTLED_S
    gateway.wait_until(
        lambda: not gateway.queue() or time.monotonic() > deadline_s, "an empty queue"
    )
