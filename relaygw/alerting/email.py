"""Mails notices through a provider that is not in trouble, past the queue.

Mail about a queue that stands still must not stand in it. So each notice is one transaction of
its own with the first provider that takes it; those that are down or held come last. Neither
rates nor the lists of `recipients` hold for it: its one recipient is named by whoever runs the
gateway. Mode sandbox sends nothing, these mails included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid

from relaygw.alerting.notifier import Notice, NotSent
from relaygw.settings.model import Settings
from relaygw.settings.provider import Timeouts
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.outgoing import OutgoingMail
from relaygw.upstream.session import open_session


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
        for name in sorted(providers, key=lambda one: one in troubled):
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
        mail["Subject"] = " ".join(notice.title.split())[:200]
        mail["Date"] = formatdate()
        mail["Message-ID"] = make_msgid(domain=self.settings.hostname)
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody answers it by a program
        mail.set_content(notice.text + "\n", cte="quoted-printable")
        return mail.as_bytes()
