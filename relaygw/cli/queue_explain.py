"""`relaygw queue explain`: the story of messages in plain words."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import click

from relaygw.cli.frame import Command, Invocation, pass_invocation, warn
from relaygw.cli.selection import choose, some_ids_argument
from relaygw.cli.text import as_json, moment, printable, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.operations.story import tell_story
from relaygw.policy.story import Note, Outlook, Story, StoryEvent, as_object

_INDENT = "  "
_COLUMN = 12  # where the text beside a label begins
_MIN_WIDTH = 40
_SHOWN = 10


@click.command("explain", cls=Command)
@some_ids_argument
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def explain_queue(invocation: Invocation, queue_ids: tuple[str, ...], wants_json: bool) -> int:
    """Tell the story of messages: what happened, what comes next, what to do."""
    loaded = invocation.load_running()
    exit_code = os.EX_OK
    is_first = True
    with invocation.open_store(loaded) as store:
        for queue_id in choose({"queue_ids": queue_ids}).selection.queue_ids:
            story = tell_story(store, loaded.settings, queue_id, now_ms=clock_ms())
            if story is None:
                sys.stdout.flush()
                warn(f"{queue_id}: no such message")
                exit_code = os.EX_DATAERR
                continue
            if wants_json:
                click.echo(as_json(as_object(story)))
            else:
                click.echo("\n".join(([] if is_first else [""]) + list(_story_lines(story))))
            is_first = False
    return exit_code


def _story_lines(story: Story) -> Iterator[str]:
    yield _labelled("queue id", story.queue_id, "")
    yield _labelled("sender", story.sender or "<> (the null sender)", "")
    yield _labelled("recipients", _some(story.recipients), "")
    yield _labelled("subject", story.subject or "(none)", "")
    yield _labelled("in short", story.headline, "")
    yield from ("", "What happened", "")
    for event in story.events:
        yield _filled(f"{_times(event, story.now_ms)}: {event.text}", rest=_INDENT)
        yield from _note_lines(event.notes)
    if story.outlooks:
        yield from ("", "What comes next", "")
    for outlook in story.outlooks:
        yield from _outlook_lines(outlook, story.now_ms, is_alone=len(story.outlooks) == 1)
    yield from ("", "What to do", "")
    for advice in story.advice:
        yield _filled(advice.text, rest=_INDENT)
        if advice.command:
            yield printable(f"{_INDENT}{advice.command}")  # whole, to be copied


def _filled(text: str, *, first: str = "", rest: str) -> str:
    return textwrap.fill(
        printable(text),
        width=max(terminal_width(), _MIN_WIDTH),
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    )


def _labelled(label: str, text: str, indent: str = _INDENT) -> str:
    return _filled(text, first=f"{indent + label:<{_COLUMN}}", rest=" " * _COLUMN)


def _times(event: StoryEvent, now_ms: int) -> str:
    first = moment(event.at_ms, now_ms)
    if event.until_ms is None:
        return first
    return f"{first}, {event.times} times until {moment(event.until_ms, now_ms)}"


def _outlook_lines(outlook: Outlook, now_ms: int, *, is_alone: bool) -> Iterator[str]:
    who = "" if is_alone else f"{_some(outlook.recipients)}, route {outlook.route}: "
    yield _filled(who + outlook.text, rest=_INDENT)
    if outlook.next_at_ms is not None:
        yield _labelled("next try", moment(outlook.next_at_ms, now_ms))
    yield from _note_lines(outlook.notes)


def _note_lines(notes: Iterable[Note]) -> Iterator[str]:
    for note in notes:
        yield _labelled(note.label, note.text)


def _some(addresses: Sequence[str]) -> str:
    shown, more = ", ".join(addresses[:_SHOWN]), len(addresses) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
