"""What lists show of content, and what searches look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict


class Contact(TypedDict):
    """An address with its display name, in the form of Mailpit's API."""

    Name: str
    Address: str


def nobody() -> Contact:
    """Return the contact of a field that is not there."""
    return Contact(Name="", Address="")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentFacts:
    """What is kept of a content so that no list or search parses mail; empty if it cannot be."""

    sender: Contact = field(default_factory=nobody)
    to: tuple[Contact, ...] = ()
    cc: tuple[Contact, ...] = ()
    bcc: tuple[Contact, ...] = ()  # as the header has it
    reply_to: tuple[Contact, ...] = ()
    attachments: int = 0
    inlines: int = 0
    snippet: str = ""
    words: str = ""  # of the body, with names of attachments; empty when read from the store
    tags: tuple[str, ...] = ()  # that it gets when it is read; empty when read from the store


def hidden_recipients(
    facts: ContentFacts, envelope: Iterable[tuple[str, str | None]]
) -> list[Contact]:
    """Return the recipients of the envelope that To and Cc do not name, each once.

    `envelope` has each address, and the one that was given if it was rewritten.
    """
    seen = {contact["Address"].lower() for contact in (*facts.to, *facts.cc)}
    named = {contact["Address"].lower(): contact for contact in facts.bcc}
    hidden: list[Contact] = []
    for address, original in envelope:
        # the sender knows the address that it gave, not the one it was rewritten to
        given = original or address
        keys = {given.lower(), address.lower()}
        if keys & seen:
            continue
        seen |= keys
        hidden.append(named.get(given.lower(), Contact(Name="", Address=given)))
    return hidden
