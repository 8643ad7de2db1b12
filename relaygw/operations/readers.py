"""What operators write, read: each makes a value of a text.

Raises ValueError, which continues the text.
"""

from __future__ import annotations

from relaygw.errors import InvalidAddress
from relaygw.mail import suppression
from relaygw.mail.address import check_address, folded
from relaygw.policy.recipients import read_address

MAX_NOTE_CHARACTERS = 300
_MAX_DIGITS = 9


def read_mailbox(text: str) -> str:
    """Return the mailbox of an address."""
    try:
        return read_address(text)
    except (InvalidAddress, ValueError) as error:
        raise ValueError(f"is not an address: {error}") from error


def read_domain(text: str) -> str:
    """Return a domain as `folded` does, with or without @ before it."""
    address = f"postmaster@{text.removeprefix('@')}"
    try:
        check_address(address)
    except (InvalidAddress, ValueError) as error:
        raise ValueError(f"is not a domain: {error}") from error
    return folded(address).rpartition("@")[2]


def read_sender_domain(text: str) -> str:
    """Return the domain of senders that a suppression is for; * is any."""
    try:
        return suppression.read_domain(text)
    except (InvalidAddress, ValueError) as error:
        raise ValueError(f"is not a domain: {error}") from error


def read_line(text: str) -> str:
    """Return a short text, such as a note, on one line."""
    if len(text) > MAX_NOTE_CHARACTERS:
        raise ValueError(f"has {len(text)} characters, more than {MAX_NOTE_CHARACTERS}")
    return " ".join(text.split())


def read_number(text: str) -> int:
    """Return a number of messages, from 1."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text)):
        raise ValueError("is not a number of messages")
    return int(text)
