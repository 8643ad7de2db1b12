"""`relaygw classify`: what a provider's reply means, and what happens to the mail."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from relaygw.cli.frame import Command, CommandFailed, Invocation, pass_invocation
from relaygw.cli.text import as_json, labelled, print_lines
from relaygw.errors import SettingsError, StoreUnavailable
from relaygw.mail.outcome import Limit, Meaning, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.mail.words import fields
from relaygw.settings.provider import Provider
from relaygw.settings.section import format_waits
from relaygw.upstream.classifier import GENERIC, Classifier, catalogue
from relaygw.upstream.protocol import ReplyInvalid, take_reply

_STAGES = {stage.name.lower(): stage for stage in Stage if stage is not Stage.LOCAL}
_LIKELY = ("content", "rcpt", "mail")
"""Stages to assume, the first one at which a row knows the reply."""
_MAIL = {
    (Verdict.DELIVERED, Scope.MESSAGE): "is delivered; the provider is now responsible for it",
    (Verdict.RETRY, Scope.RECIPIENT): "stays in the queue for this recipient and is tried again",
    (Verdict.RETRY, Scope.MESSAGE): "stays in the queue and is tried again",
    (Verdict.RETRY, Scope.CREDENTIAL): "stays in the queue; the login is tried again",
    (Verdict.RETRY, Scope.PROVIDER): "stays in the queue; the provider is tried again",
    (Verdict.HOLD, Scope.SENDER_DOMAIN): "stays in the queue with all mail from this sender "
    "domain, and no attempt is counted; other mail is sent, and a probe finds out when the domain "
    "is accepted again",
    (Verdict.DOUBT, Scope.MESSAGE): "is in doubt: the provider has an earlier try of it; it stays "
    "with this provider, and is held where no wait is named",
    (Verdict.BOUNCE, Scope.RECIPIENT): "bounces for this recipient; the others are not affected",
    (Verdict.BOUNCE, Scope.MESSAGE): "bounces for all recipients of this transaction",
}
_SLOWER = {Limit.RATE: "sends slower", Limit.CONNECTIONS: "opens fewer connections"}
_USUAL_WAIT = {
    Verdict.RETRY: "as the section retry sets it",
    Verdict.HOLD: "the interval between probes",
    Verdict.THROTTLE: "the interval between probes, when nothing is accepted any more",
}


@click.command(cls=Command)
@click.argument("provider")
@click.argument("reply")
@click.option(
    "--stage", type=click.Choice(list(_STAGES)),
    help="The "
    "stage that the reply answers; default: the first of content (the final dot), rcpt and mail "
    "at which a row matches.",
)  # fmt: skip
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object.")
@pass_invocation
def classify(
    invocation: Invocation, provider: str, reply: str, stage: str | None, wants_json: bool
) -> None:
    """Explain a REPLY of PROVIDER, and what happens to the mail.

    PROVIDER is one of the configuration, a preset's name, or generic. REPLY is as on the wire:
    '454 Throttling failure: ...'.
    """
    classifier, places = _classifier(invocation, provider)
    parsed = _parsed(reply)
    known = (
        candidate
        for candidate in _LIKELY
        if classifier.meaning(_STAGES[candidate], parsed).rule != "none"
    )
    name = stage or next(known, _LIKELY[0])
    meaning = classifier.meaning(_STAGES[name], parsed)
    meaning = replace(meaning, rule=places.get(meaning.rule, meaning.rule))
    others = {} if stage else _others(classifier, parsed, meaning)
    if wants_json:
        click.echo(as_json(_as_object(provider, name, parsed, meaning, others)))
        return
    assumed = "" if stage else " (assumed; use --stage for another)"
    click.echo(labelled("reply", str(parsed)))
    click.echo(labelled("stage", f"{name}{assumed}"))
    print_lines(_lines(meaning, others))


def _classifier(invocation: Invocation, name: str) -> tuple[Classifier, dict[str, str]]:
    providers: dict[str, Provider] = {}
    origins: Mapping[str, str] = {}
    try:
        loaded = invocation.load_running()
        providers, origins = loaded.settings.providers, loaded.origins
    except (SettingsError, StoreUnavailable):
        # the file may be broken or not for this user, or several be meant; a preset needs none
        if name not in catalogue() or invocation.config is not None:
            raise
    if name in providers:
        places = {
            f"own row {number + 1}": f"providers.{name}.replies, row {number + 1} "
            f"({origins.get(f'providers.{name}.replies.{number}.verdict', 'configuration')})"
            for number in range(len(providers[name].replies))
        }
        return Classifier(providers[name]), places
    if name not in catalogue():
        known = ", ".join([*providers, *catalogue()])
        raise click.UsageError(f"{name!r} is neither a configured provider nor a preset; "
                               f"write one of {known}")  # fmt: skip
    return Classifier(Provider(host="localhost", preset=None if name == GENERIC else name)), {}


def _parsed(text: str) -> SmtpReply:
    lines = text.strip().splitlines()
    if len(lines) == 1 and re.match(r"\d{3}-", lines[0]):
        # as logs and bounces show a reply of several lines
        lines = re.split(rf"\s+(?={lines[0][:3]}[ -])", lines[0])
    buffer = bytearray("".join(f"{line.strip()}\r\n" for line in lines).encode())
    try:
        reply = take_reply(buffer)
        if reply is None or buffer:
            raise ReplyInvalid(f"{text!r} is not a complete reply")
    except ReplyInvalid as error:
        raise CommandFailed(
            f"{error}; write the code and text as the provider sent them, such as '451 4.3.0 Try "
            "again later'"
        ) from error
    return reply


def _others(
    classifier: Classifier, reply: SmtpReply, usual: Meaning
) -> dict[str, tuple[Verdict, Scope]]:
    usual_pair = (usual.verdict, usual.scope)
    meanings = {name: classifier.meaning(stage, reply) for name, stage in _STAGES.items()}
    pairs = {name: (meaning.verdict, meaning.scope) for name, meaning in meanings.items()}
    return {name: pair for name, pair in pairs.items() if pair != usual_pair}


def _lines(meaning: Meaning, others: dict[str, tuple[Verdict, Scope]]) -> Iterator[str]:
    limit = f", {meaning.limit}" if meaning.limit else ""
    usual = _USUAL_WAIT.get(meaning.verdict, "")
    wait = format_waits(meaning.wait_s) if meaning.wait_s else usual
    yield labelled("rule", meaning.rule)
    yield labelled("meaning", f"{meaning.verdict} ({meaning.scope}{limit})")
    for label, text in (
        ("mail", mail_words(meaning)),
        ("wait", wait),
        ("explanation", meaning.explanation),
        ("remedy", meaning.remedy),
        ("source", meaning.source),
    ):
        if text:
            yield labelled(label, text)
    by_meaning: dict[tuple[Verdict, Scope], list[str]] = {}
    for name, pair in others.items():
        by_meaning.setdefault(pair, []).append(name)
    for (verdict, scope), names in by_meaning.items():
        yield labelled("elsewhere", f"at {', '.join(names)}: {verdict} ({scope})")


def _as_object(
    provider: str,
    stage: str,
    reply: SmtpReply,
    meaning: Meaning,
    others: dict[str, tuple[Verdict, Scope]],
) -> dict[str, Any]:
    return {
        "provider": provider,
        "stage": stage,
        "code": reply.code,
        "status": str(reply.status) if reply.status else None,
        "text": reply.text,
        **fields(meaning, "rule", "verdict", "scope", "limit"),
        "mail": mail_words(meaning),
        "wait_s": list(meaning.wait_s),
        **{name: getattr(meaning, name) or None for name in ("explanation", "remedy", "source")},
        "other_stages": [
            {"stage": name, "verdict": verdict, "scope": scope}
            for name, (verdict, scope) in others.items()
        ],
    }


def mail_words(meaning: Meaning) -> str:
    """Return the fate of the mail, as the end of a sentence about it."""
    if meaning.verdict is Verdict.THROTTLE and meaning.limit is not None:
        slower = _SLOWER[meaning.limit]
        return f"stays in the queue, no attempt is counted; relaygw {slower} at this provider"
    if meaning.verdict is Verdict.HOLD and meaning.scope is not Scope.SENDER_DOMAIN:
        return (
            "stays in the queue, no attempt is counted; all mail for this provider waits, and one "
            "message at a time is sent as a probe"
        )
    return _MAIL[meaning.verdict, meaning.scope]
