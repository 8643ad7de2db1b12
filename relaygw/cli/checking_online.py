"""`relaygw check --online`: ask the providers whether they would take mail. None is sent.

Providers are looked at side by side; each finding is a line as soon as it is known. Who waits
longer than some seconds is told on stderr for whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from relaygw.cli import entries
from relaygw.cli.frame import warn
from relaygw.cli.text import printable
from relaygw.policy.patterns import AddressPatterns

if TYPE_CHECKING:
    from relaygw.settings.model import Route, Settings
    from relaygw.settings.provider import Provider
    from relaygw.upstream.diagnosis import Finding

_PATIENCE_S = 4.0


def check_online(
    settings: Settings, senders: Mapping[str, tuple[str, ...]], *, as_json: bool
) -> bool:
    """Check the providers that are keys of `senders` with these addresses, and print.

    Returns True when nothing failed.
    """
    try:
        return asyncio.run(_Desk(settings, as_json=as_json).check(senders))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def known_senders(settings: Settings, name: str) -> tuple[str, ...]:
    """Return the whole addresses that the configuration sends as by this provider."""
    patterns = [
        *settings.providers[name].senders,
        *(entry for route in settings.routes if name in route.providers for entry in route.sender),
    ]
    addresses = dict.fromkeys(one for one in patterns if not one.startswith(("@", ".")))
    return tuple(one for one in addresses if _may_send(settings.providers[name], one))


def route_of(
    settings: Settings, *, sender: str, recipient: str, headers: Mapping[str, str]
) -> tuple[Route | None, str]:
    """Return the route on which such mail leaves (None: none does), and its rewritten sender."""
    from relaygw.policy.recipients import Fate, RecipientPolicy
    from relaygw.policy.rewriting import Rewriter
    from relaygw.policy.routing import Router

    used = sender_at(settings, sender)
    target = Rewriter(settings.rewrite, settings.hostname).recipient(recipient)
    decision = RecipientPolicy(settings.mode, settings.recipients).decide(target)
    if decision.fate is not Fate.DELIVER:
        return None, used
    target = decision.redirect_to or target
    return Router(settings.routes).route_for(sender=used, recipient=target, headers=headers), used


def sender_at(settings: Settings, sender: str) -> str:
    """Return the envelope sender that `sender` becomes."""
    from relaygw.policy.rewriting import Rewriter

    return Rewriter(settings.rewrite, settings.hostname).sender(sender)


def _may_send(provider: Provider, sender: str) -> bool:
    return not provider.senders or AddressPatterns(provider.senders).matches(sender)


class _Desk:
    """Starts the checks and prints what comes in."""

    def __init__(self, settings: Settings, *, as_json: bool) -> None:
        self._settings = settings
        self._as_json = as_json
        self._found: asyncio.Queue[tuple[str, Finding | None]] = asyncio.Queue()

    async def check(self, senders: Mapping[str, tuple[str, ...]]) -> bool:
        from relaygw.upstream.diagnosis import Result

        is_fine = True
        waiting = dict.fromkeys(senders)
        async with asyncio.TaskGroup() as group:
            for name, addresses in senders.items():
                group.create_task(self._ask(name, addresses))
            while waiting:
                name, finding = await self._next(waiting)
                if finding is None:
                    del waiting[name]
                    continue
                is_fine = is_fine and finding.result is not Result.FAILED
                click.echo(_as_json(name, finding) if self._as_json else _line(name, finding))
        return is_fine

    async def _ask(self, name: str, addresses: tuple[str, ...]) -> None:
        from relaygw.upstream.diagnosis import diagnose

        provider = self._settings.providers[name]
        usable = [one for one in addresses if _may_send(provider, one)]
        async for finding in diagnose(provider, ehlo_name=self._settings.hostname, senders=usable):
            self._found.put_nowait((name, finding))
        for finding in _unused(one for one in addresses if one not in usable):
            self._found.put_nowait((name, finding))
        self._found.put_nowait((name, None))

    async def _next(self, waiting: Mapping[str, None]) -> tuple[str, Finding | None]:
        while True:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    return await self._found.get()
            except TimeoutError:
                warn(f"waiting for {', '.join(waiting)}")


def _unused(senders: Iterator[str]) -> Iterator[Finding]:
    from relaygw.upstream.diagnosis import Finding, Result, Step

    for sender in senders:
        yield Finding(
            step=Step.SENDER,
            result=Result.WARNING,
            detail=f"{sender or '<>'} is not among the provider's senders, it is not used for it",
        )


def _line(name: str, finding: Finding) -> str:
    head = f"provider {name}: {finding.step.value:<8} {finding.result.value:<7}"
    return printable(f"{head} {finding.detail}" + (f"; {finding.remedy}" if finding.remedy else ""))


def _as_json(name: str, finding: Finding) -> str:
    return entries.as_json(
        {
            "provider": name,
            "step": finding.step.value,
            "result": finding.result.value.lower(),
            "detail": finding.detail,
            "remedy": finding.remedy or None,
        }
    )
