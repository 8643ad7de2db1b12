"""`relaygw check`: is the configuration right, what would it do with mail, are providers there.

With --online providers are looked at side by side, each finding is a line as soon as it is known;
no mail is sent. Who waits longer than some seconds is told on stderr for whom.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from itertools import chain

import click

from relaygw.cli.check_summary import AskedMail, explain, routes_gone, summary, warnings
from relaygw.cli.frame import Command, CommandFailed, Invocation, address_of, pass_invocation, warn
from relaygw.cli.text import as_json, print_lines
from relaygw.mail.words import fields, printable
from relaygw.policy.recipients import AddressPatterns
from relaygw.policy.rewriter import Rewriter
from relaygw.policy.router import Explainer
from relaygw.settings.load import LoadedSettings
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.upstream.diagnosis import Finding, Result, Step, diagnose

_PATIENCE_S = 4.0


def _header(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    headers: dict[str, str] = {}
    for value in values:
        name, colon, body = value.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"{value!r} is not a header; write 'NAME: VALUE'")
        headers.setdefault(name.strip().lower(), body.strip())
    return headers


@click.command(cls=Command)
@click.option("--sender", metavar="A", help="Explain mail from A; <> is the null sender.")
@click.option("--recipient", metavar="B", help="Explain mail to B.")
@click.option(
    "--header", "headers", metavar="LINE", multiple=True, callback=_header,
    help="A header of that mail: 'NAME: VALUE'; may be repeated.",
)  # fmt: skip
@click.option("--listener", metavar="BIND", help="That mail comes in by this listener.")
@click.option("--user", metavar="NAME", help="That mail is from this user.")
@click.option("--online", is_flag=True, help="Ask the providers, too; no mail is sent.")
@click.option("--json", "wants_json", is_flag=True, help="With --online: one object a line.")
@pass_invocation
def check(
    invocation: Invocation,
    sender: str | None,
    recipient: str | None,
    headers: dict[str, str],
    listener: str | None,
    user: str | None,
    online: bool,
    wants_json: bool,
) -> int:
    """Check the configuration; with --sender and --recipient explain what happens to mail.

    Exit code 69: something failed --online.
    """
    if (sender is None) != (recipient is None) and not (online and sender is not None):
        raise click.UsageError("--sender and --recipient go together; give both")
    if headers and recipient is None:
        raise click.UsageError("--header goes with --sender and --recipient; give them, too")
    if (listener or user) and recipient is None:
        raise click.UsageError("--listener and --user go with --sender and --recipient")
    if wants_json and not online:
        raise click.UsageError("--json goes with --online; give it, too")
    loaded = invocation.load()
    mail = AskedMail(
        sender="" if sender == "<>" else _address(sender, "--sender"),
        recipient=_address(recipient, "--recipient"),
        headers=headers,
        listener=listener,
        user=user,
    )
    for option, name, known in (
        ("--listener", listener, [str(one.bind) for one in loaded.settings.listeners]),
        ("--user", user, [one.name for one in loaded.settings.users]),
    ):
        if name is not None and name not in known:
            names = ", ".join(known) or "none yet"
            problem = f"{option} {name!r} is not in the configuration; write one of: {names}"
            raise CommandFailed(problem)
    if not wants_json:
        _tell(invocation, loaded, mail)
    return _check_online(loaded.settings, mail, wants_json=wants_json) if online else os.EX_OK


def _address(text: str | None, option: str) -> str | None:
    return None if text is None else address_of(text, option)


def _tell(invocation: Invocation, loaded: LoadedSettings, mail: AskedMail) -> None:
    is_whole = mail.sender is not None and mail.recipient is not None
    print_lines(explain(loaded.settings, mail) if is_whole else summary(loaded))
    if mail.recipient is None:
        for text in chain(warnings(loaded.settings), routes_gone(invocation, loaded)):
            warn(f"warning: {text}")


def _check_online(settings: Settings, mail: AskedMail, *, wants_json: bool) -> int:
    rewriter = Rewriter(settings.rewrite, settings.hostname)
    senders: dict[str, tuple[str, ...]]
    if mail.sender is None:
        senders = {name: _known_senders(settings, name) for name in settings.providers}
    else:
        used, names = rewriter.sender(mail.sender), tuple(settings.providers)
        if mail.recipient is not None:
            target = rewriter.recipient(mail.recipient)
            way = Explainer(settings).way(sender=used, recipient=target, headers=mail.headers)
            names = way.providers
        senders = dict.fromkeys(names, (used,))
    if not senders:
        warn("no provider is used for this; nothing to check online")
    try:
        is_fine = asyncio.run(_OnlineCheck(settings, wants_json=wants_json).check(senders))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return os.EX_OK if is_fine else os.EX_UNAVAILABLE


def _known_senders(settings: Settings, name: str) -> tuple[str, ...]:
    patterns = [
        *settings.providers[name].senders,
        *(entry for route in settings.routes if name in route.providers for entry in route.sender),
    ]
    addresses = dict.fromkeys(one for one in patterns if not one.startswith(("@", ".")))
    return tuple(one for one in addresses if _may_send(settings.providers[name], one))


def _may_send(provider: Provider, sender: str) -> bool:
    return not provider.senders or AddressPatterns(provider.senders).matches(sender)


class _OnlineCheck:
    def __init__(self, settings: Settings, *, wants_json: bool) -> None:
        self._settings = settings
        self._wants_json = wants_json
        self._found: asyncio.Queue[tuple[str, Finding | None]] = asyncio.Queue()

    async def check(self, senders: Mapping[str, tuple[str, ...]]) -> bool:
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
                if self._wants_json:
                    shown = fields(finding, "step", "result", "detail", "remedy")
                    shown |= {"result": finding.result.lower(), "remedy": finding.remedy or None}
                    click.echo(as_json({"provider": name, **shown}))
                else:
                    remedy = f"; {finding.remedy}" if finding.remedy else ""
                    head = f"provider {name}: {finding.step.value:<8} {finding.result.value:<7}"
                    click.echo(printable(f"{head} {finding.detail}{remedy}"))
        return is_fine

    async def _ask(self, name: str, addresses: tuple[str, ...]) -> None:
        provider = self._settings.providers[name]
        usable = [one for one in addresses if _may_send(provider, one)]
        async for finding in diagnose(provider, ehlo_name=self._settings.hostname, senders=usable):
            self._found.put_nowait((name, finding))
        for sender in (one for one in addresses if one not in usable):
            detail = f"{sender or '<>'} is not among the provider's senders, it is not used for it"
            finding = Finding(step=Step.SENDER, result=Result.WARNING, detail=detail)
            self._found.put_nowait((name, finding))
        self._found.put_nowait((name, None))

    async def _next(self, waiting: Mapping[str, None]) -> tuple[str, Finding | None]:
        while True:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    return await self._found.get()
            except TimeoutError:
                warn(f"waiting for {', '.join(waiting)}")
