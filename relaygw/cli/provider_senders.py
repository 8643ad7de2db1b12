"""`relaygw provider senders`: which sender addresses a provider took, and which it refused."""

from __future__ import annotations

from collections.abc import Iterator

import click

from relaygw.cli.entries import as_json
from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.provider_names import check_name
from relaygw.cli.text import age, clock_ms, counted, fitted, terminal_width
from relaygw.mail.timestamp import rfc3339
from relaygw.store.protocol import SenderNote

_PROVIDER_WIDTHS = (8, 26)
_OTHER_COLUMNS = 27  # STATE, ACCEPTED and REFUSED, and the spaces between all
_INDENT = "  "
_NO_TEXT = "(the reply is not kept)"


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def senders(invocation: Invocation, name: str | None, wants_json: bool) -> None:
    """List the sender addresses seen, those a provider refuses first; with NAME one provider's."""
    loaded = invocation.load_running()
    providers = loaded.settings.providers
    with invocation.open_store(loaded) as store:
        notes = store.senders()
    if name is not None:
        check_name(name, providers, {note.provider for note in notes})
    wanted = providers if name is None else (name,)
    chosen = [note for note in notes if note.provider in wanted]
    chosen.sort(key=_refused_first)
    for line in map(_object, chosen) if wants_json else _rows(chosen):
        click.echo(line)


def is_refused(note: SenderNote) -> bool:
    """True when the last that the provider said of the sender was no."""
    if note.refused_at_ms is None:
        return False
    return note.accepted_at_ms is None or note.refused_at_ms > note.accepted_at_ms


def _refused_first(note: SenderNote) -> tuple[bool, str, str]:
    return not is_refused(note), note.sender.rpartition("@")[2], note.sender


def _object(note: SenderNote) -> str:
    return as_json(
        {
            "provider": note.provider,
            "sender": note.sender,
            "state": _state(note),
            "accepted_at": _time(note.accepted_at_ms),
            "refused_at": _time(note.refused_at_ms),
            "reply": note.reply,
        }
    )


def _state(note: SenderNote) -> str:
    return "refused" if is_refused(note) else "accepted"


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)


def _rows(notes: list[SenderNote]) -> Iterator[str]:
    if not notes:
        yield "no sender was seen yet"
        return
    width, now_ms = max(terminal_width(), 60), clock_ms()
    least, most = _PROVIDER_WIDTHS
    provider_width = min(max(least, *(len(note.provider) for note in notes)), most)
    sender_width = width - provider_width - _OTHER_COLUMNS
    yield (
        f"{'SENDER':<{sender_width}} {'PROVIDER':<{provider_width}} "
        f"{'STATE':<8} {'ACCEPTED':>8} {'REFUSED':>7}"
    )
    for note in notes:
        yield (
            f"{fitted(note.sender or '<>', sender_width)} {fitted(note.provider, provider_width)} "
            f"{_state(note):<8} {_ago(note.accepted_at_ms, now_ms):>8} "
            f"{_ago(note.refused_at_ms, now_ms):>7}"
        )
        if is_refused(note):
            yield fitted(f"{_INDENT}{note.reply or _NO_TEXT}", width).rstrip()
    refused = sum(map(is_refused, notes))
    yield f"-- {counted(len(notes), 'line')}, {refused} refused"
    if refused:
        yield "what a refusal means and what to do: relaygw classify PROVIDER 'REPLY'"


def _ago(at_ms: int | None, now_ms: int) -> str:
    return "-" if at_ms is None else age(now_ms - at_ms)
