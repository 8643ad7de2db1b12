"""Kinds of values that arguments and options have, and what makes one a usage error."""

from __future__ import annotations

from typing import Any

import click

from relaygw.mail.storable import unstorable_sign

MAX_NUMBER = 1_000_000_000
"""Of what is counted or listed: more than there will be, and no trouble for a database."""


class _Text(click.types.StringParamType):
    """Text as it can be stored; bytes that are no UTF-8 come from a shell as surrogates."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = super().convert(value, param, ctx)
        if unstorable_sign(text) is not None:
            self.fail(f"{text[:40]!r} is not UTF-8", param, ctx)
        return text


TEXT = _Text()


def use_storable_text(params: list[click.Parameter]) -> None:
    """Let all parameters of a command that are text, and no names of files, be checked."""
    for one in params:
        if isinstance(one.type, click.types.StringParamType):
            one.type = TEXT


def number_from_1() -> click.IntRange:
    """Return the kind of a number of things."""
    return click.IntRange(min=1, max=MAX_NUMBER)
