"""Sends the digest of each day or week: by mail through the queue, to a webhook, or both.

Of all workers on a queue one has the duty; that a period is told is written before it
is told, in one transaction with its mail. So a killed worker tells nothing twice; its webhook may
miss one. Of what was due while nothing ran, the last period alone is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any, Protocol

from relaygw.alerting.channels import MayBeTaken, is_slack, post
from relaygw.alerting.digest import Digest, Period, digest_of, last_period
from relaygw.alerting.digest_forms import as_mail, as_object, as_text
from relaygw.alerting.notice import NotSent
from relaygw.errors import AlreadyAccepted, StoreUnavailable
from relaygw.mail.envelope import AcceptedMessage
from relaygw.observe.events import Accepted
from relaygw.observe.maillog import MailLog
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.store.watch import DigestState

DUTY = "digest"
MAIL, WEBHOOK = "mail", "webhook"  # the ways
LOOK_S = 30.0
SETTLED_MS = 60_000  # so long after its end a period is counted everywhere
_LADDER_S = (60.0, 300.0, 1800.0, 3600.0)
_POST_S = 20.0


class Composer(Protocol):
    """Makes a message to be stored of the content of a digest: inbound.local_mail."""

    def compose_own(
        self, sender: str, target: str, content: bytes, drop_id: str
    ) -> AcceptedMessage:
        """Return it, as policy of now permits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    way: str
    state: DigestState
    period: Period


@dataclass(kw_only=True)
class DigestSender:
    """Runs beside a worker; `note` writes a line of the log."""

    settings: Settings
    store: Store
    incarnation: str
    composer: Composer
    log: MailLog
    wake_workers: Callable[[], None]
    look_s: float = LOOK_S

    async def run(self) -> None:
        """Send what is due until cancelled."""
        while True:
            try:
                await self.send_due()
            except StoreUnavailable as error:
                self._note(f"warning: digest: {error}")
            except Exception as error:  # mail does not depend on it
                self._note(f"error: digest: {type(error).__name__}: {error}")
            await asyncio.sleep(self.look_s)

    async def send_due(self) -> None:
        """Send what is due now. Raises StoreUnavailable."""
        for due in await asyncio.to_thread(self.due_digests):
            await (self._mail(due) if due.way == MAIL else self.post_digest(due))

    def due_digests(self) -> list[_Due]:
        """Return the digest that is due now; blocks."""
        given = self.settings.digest
        ways = [MAIL] * (given.to is not None) + [WEBHOOK] * (given.webhook is not None)
        if not ways or not self.store.watch.duty(DUTY, self.incarnation):
            return []
        now_ms = self.store.clock_ms()
        period = last_period(now_ms - SETTLED_MS, given.every)
        found = []
        for way in ways:
            state = self.store.digests.digest_state(way, until_ms=period.until_ms)
            if state.until_ms > now_ms:  # the clock was set back since
                self.store.digests.pass_digest(way, state=state, until_ms=period.until_ms)
            elif self._is_new(period, state) and not _waits(state, now_ms):
                found.append(_Due(way=way, state=state, period=period))
        return found

    def _is_new(self, period: Period, state: DigestState) -> bool:
        """True where most of a period was not told: hosts may have other time zones."""
        return period.until_ms - state.until_ms >= (period.until_ms - period.since_ms) // 2

    # --- by mail ---------------------------------------------------------------------------

    async def _mail(self, due: _Due) -> None:
        message = await asyncio.to_thread(self._store_mail, due)
        if message is None:
            return
        self.log.write([Accepted(message)])
        self._note(f"{message.queue_id}: digest of {due.period.words}")
        self.wake_workers()

    def _store_mail(self, due: _Due) -> AcceptedMessage | None:
        given, digest = self.settings.digest, self._read(due)
        assert given.to is not None
        shown = given.sender or f"relaygw@{self.settings.hostname}"
        content = as_mail(digest, sender=f"relaygw <{shown}>", to=given.to)
        until_ms = due.period.until_ms
        message = self.composer.compose_own(
            given.sender or "", given.to, content, f"digest-{until_ms}"
        )
        passed = self.store.digests.pass_digest
        try:
            is_mine = passed(MAIL, state=due.state, until_ms=until_ms, mail=[message])
        except AlreadyAccepted:  # the row was lost, the mail is there
            passed(MAIL, state=due.state, until_ms=until_ms)
            return None
        return message if is_mine else None

    # --- by webhook ------------------------------------------------------------------------

    async def post_digest(self, due: _Due) -> None:
        """Post a digest, and note that, or when to try again."""
        url, until_ms = self.settings.digest.webhook, due.period.until_ms
        assert url is not None
        digest = await asyncio.to_thread(self._read, due)
        await asyncio.to_thread(import_module, "httpx2")  # takes its time, and mail goes on
        passed = self.store.digests.pass_digest
        if not await asyncio.to_thread(passed, WEBHOOK, state=due.state, until_ms=until_ms):
            return
        try:
            words = await post(url, lambda host: _body(digest, host), limit_s=_POST_S)
        except MayBeTaken as error:
            self._note(
                f"warning: digest of {due.period.words} may not have been taken: {error}; "
                "it is not sent again"
            )
        except NotSent as error:
            wait_s = _LADDER_S[min(due.state.tries, len(_LADDER_S) - 1)]
            put_off = self.store.digests.put_off_digest
            wait_ms = int(wait_s * 1000)
            await asyncio.to_thread(
                put_off, WEBHOOK, state=due.state, until_ms=until_ms, wait_ms=wait_ms
            )
            self._note(f"warning: digest not sent: {error}; tried again in {wait_s:.0f} s")
        else:
            self._note(f"digest of {due.period.words} sent ({words})")

    def _read(self, due: _Due) -> Digest:
        return digest_of(self.store, self.settings, due.period)

    def _note(self, text: str) -> None:
        self.log.note("qmgr", text)


def _waits(state: DigestState, now_ms: int) -> bool:
    """True until it is to be tried again; a clock that was set back makes it no longer."""
    return 0 < state.again_at_ms - now_ms <= _LADDER_S[-1] * 1000


def _body(digest: Digest, host: str) -> dict[str, Any]:
    if is_slack(host):
        return {"text": f"*{escape(digest.title, quote=False)}*\n```{_slack_text(digest)}```"}
    return as_object(digest)


def _slack_text(digest: Digest) -> str:
    return escape(as_text(digest)[:3500], quote=False)
