"""Hands notices to a URL, a program, a mailbox, or the package apprise with its hundred services.

A URL may be a secret: only its scheme and host are ever told. Redirects are not followed, for one
could lead the notice elsewhere; certificates are verified by the system's authorities.

No shell is started for a program; one that takes too long is killed with all that it started.
apprise runs in a process of its own, too: one that hangs can be ended, and the URL, which applies
keys, goes to it by a pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path
from textwrap import shorten
from typing import Any

from relaygw.alerting import apprise_child
from relaygw.alerting.notice import NOT_INSTALLED, Notice, NotSent
from relaygw.errors import SettingsError
from relaygw.http_request import CONNECT_S, Unanswered, ask, host_of
from relaygw.settings.model import Settings
from relaygw.settings.provider import Timeouts
from relaygw.settings.secrets import SecretRef, SecretUrl
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.outgoing import OutgoingMail
from relaygw.upstream.session import open_session

_SLACK_HOSTS = ("hooks.slack.com", ".slack.com", "hooks.slack-gov.com")
_MAX_SUBJECT = 200
_VARIABLES = frozenset({"PATH", "HOME", "TZ", "LANG", "LANGUAGE"})
_APPRISE_VARIABLES = frozenset(
    {"PYTHONPATH", "VIRTUAL_ENV"}
    | {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
)
"""Where its packages are, how it gets out, and whom it believes."""


async def _read(secret: SecretRef | SecretUrl) -> str:
    try:
        return await asyncio.to_thread(secret.read)
    except SettingsError as error:
        raise NotSent(str(error)) from None


@dataclass(frozen=True, slots=True, repr=False)
class Webhook:
    """One URL, which gets `{"text": …}` as Slack and its like take it, or all fields."""

    url: SecretUrl
    shape: str = "auto"
    limit_s: float = 10.0

    async def send(self, notice: Notice) -> str:
        """Post a notice; any answer from 200 to 299 takes it."""
        return await post(self.url, lambda host: self._body(notice, host), limit_s=self.limit_s)

    def _body(self, notice: Notice, host: str) -> dict[str, Any]:
        if self.shape != "slack" and not (self.shape == "auto" and is_slack(host)):
            return notice.as_json()
        # Slack knows links and mentions by three characters, which a reply above all may have
        return {"text": html.escape(notice.text, quote=False)}


class MayBeTaken(NotSent):
    """The receiver got it or a part of it, and nobody knows what it did with it."""


def is_slack(host: str) -> bool:
    """True for a host that takes what Slack takes."""
    return host.partition(":")[0].lower().endswith(_SLACK_HOSTS)


async def post(url: SecretUrl, body: Callable[[str], dict[str, Any]], *, limit_s: float) -> str:
    """Post JSON made for a host, which takes it by an answer from 200 to 299; raises NotSent."""
    address = await _read(url)
    host = host_of(address)
    try:
        answer = await ask("POST", address, limit_s=limit_s, connect_s=CONNECT_S, json=body(host))
    except Unanswered as error:
        kind = MayBeTaken if error.may_be_taken else NotSent
        raise kind(str(error)) from None
    if not answer.is_success:
        raise NotSent(f"{host} answered {answer.status}")
    return f"{host} answered {answer.status}"


@dataclass(frozen=True, slots=True, repr=False)
class Command:
    """One program with its arguments; JSON on its standard input, the text in its environment."""

    words: Sequence[str]
    limit_s: float = 15.0

    async def send(self, notice: Notice) -> str:
        """Run the program; exit code 0 takes the notice."""
        facts = notice.as_json()
        environment = _environment(_VARIABLES) | {
            f"RELAYGW_ALERT_{name.upper()}": value or ""
            for name, value in facts.items()
            if "\0" not in (value or "")
        }
        name = Path(self.words[0]).name
        given = json.dumps(facts).encode() + b"\n"
        code = await _run_limited(name, self.words, given, environment, self.limit_s)
        if code != 0:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise NotSent(f"{name} ended with {how}")
        return f"{name} ended with exit code 0"


@dataclass(frozen=True, slots=True, repr=False)
class Apprise:
    """One URL of apprise's."""

    url: SecretRef
    limit_s: float = 30.0

    async def send(self, notice: Notice) -> str:
        """Have apprise send a notice."""
        url, kind = await _read(self.url), "success" if notice.is_over else "warning"
        given = {"url": url, "title": notice.title, "body": notice.text, "kind": kind}
        words = (sys.executable, "-P", "-m", "relaygw.alerting.apprise_child")
        environment = _environment(_VARIABLES | _APPRISE_VARIABLES)
        text = json.dumps(given).encode()
        match await _run_limited("apprise", words, text, environment, self.limit_s):
            case 0:
                return "the service accepted it"
            case apprise_child.MISSING:
                raise NotSent(NOT_INSTALLED)
            case apprise_child.NO_URL:
                raise NotSent(f"{self.url}: apprise does not know this kind of URL")
        raise NotSent("apprise: the service refused it")


async def _run_limited(
    name: str, words: Sequence[str], given: bytes, environment: dict[str, str], limit_s: float
) -> int:
    """Run a program, hand it `given`, and return its exit code. Raises NotSent."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # so that its children are killed with it
            env=environment,
            cwd="/",
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NotSent(f"{name} cannot be started ({reason})") from None
    try:
        async with asyncio.timeout(limit_s):
            await process.communicate(given)  # one that does not read it: its own affair
            return await process.wait()
    except TimeoutError:
        raise NotSent(f"{name} did not end within {limit_s:g} s and was killed") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _environment(wanted: frozenset[str]) -> dict[str, str]:
    """Return the wanted variables that are set, and the locale.

    Keys of providers are in the environment of the gateway, too: they do not go on.
    """
    given = os.environ.items()
    return {name: value for name, value in given if name in wanted or name.startswith("LC_")}


# --- mail -------------------------------------------------------------------------------
# Mails notices through a provider that is not in trouble, past the queue.
#
# Mail about a queue that stands still must not stand in it. So each notice is one transaction of
# its own with the first provider that takes it; those that are down or held come last. Neither
# rates nor the lists of `recipients` hold for it: its one recipient is named by whoever runs the
# gateway. Mode sandbox sends nothing, these mails included.


@dataclass(frozen=True, slots=True, repr=False)
class Email:
    """One address."""

    address: str
    sender: str
    providers: Sequence[str]  # empty: all
    settings: Settings
    in_trouble: Callable[[], Collection[str]]  # names those that are down or held; may block
    limit_s: float = 15.0  # for each provider that is tried

    async def send(self, notice: Notice) -> str:
        """Send a mail by the first provider that takes it."""
        troubled = await asyncio.to_thread(self.in_trouble)
        content = self._content(notice)
        problems = []
        providers = self.providers or self.settings.providers
        for name in sorted(providers, key=lambda provider: provider in troubled):
            try:
                async with asyncio.timeout(self.limit_s):
                    await self._send(name, content)
                return f"provider {name} accepted it"
            except TimeoutError:
                problems.append(f"{name}: no reply within {self.limit_s:g} s")
            except NotSent as error:
                problems.append(f"{name}: {error}")
        raise NotSent("; ".join(problems) or "there is no provider")

    async def _send(self, name: str, content: bytes) -> None:
        provider, hostname = self.settings.providers[name], self.settings.hostname
        given = provider.timeouts
        limits = {key: min(getattr(given, key), self.limit_s) for key in Timeouts.model_fields}
        provider = provider.model_copy(update={"timeouts": given.model_copy(update=limits)})
        try:
            session = await open_session(provider, ehlo_name=hostname)
        except UpstreamError as error:
            raise NotSent(error.detail or str(error.reply)) from None
        try:
            (answer,) = await session.transact(
                OutgoingMail(
                    sender=self.sender,
                    recipients=(self.address,),
                    content=content,
                    size_bytes=len(content),
                    is_8bit=False,
                    has_long_line=False,
                    smtputf8=not (self.sender + self.address).isascii(),
                    fields=tuple(provider.headers.items()),
                )
            )
        finally:
            session.abort()
        if answer.reply is None or not answer.reply.is_positive:
            raise NotSent(str(answer.reply) if answer.reply is not None else answer.detail)

    def _content(self, notice: Notice) -> bytes:
        mail = EmailMessage(policy=SMTP.clone(max_line_length=78))
        mail["From"] = self.sender
        mail["To"] = self.address
        mail["Subject"] = shorten(notice.title[:1000], _MAX_SUBJECT, placeholder=" ...")
        mail["Date"] = formatdate()
        mail["Message-ID"] = make_msgid(domain=self.settings.hostname)
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody answers it by a program
        mail.set_content(notice.text + "\n", cte="quoted-printable")
        return mail.as_bytes()
