"""Addresses, domains and host names in the configuration, and what an entry matches.

Strict on purpose: an entry decides who receives mail, so whatever could be read in two
ways is an error. ValueError texts continue a sentence that begins with the value.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated

from relaygw.errors import InvalidAddress
from relaygw.mail.address import check_address, is_routable_elsewhere
from relaygw.settings.section import checked

# Letters of any script, digits and what RFC 5322 allows in an atom; no quoted local parts.
_LOCAL_PART = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*")
# The underscore is no host name character, but container networks use it in theirs.
_LABEL = r"[^\W_](?:[\w-]*[^\W_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HEADER_NAME = re.compile(r"[!-9;-~]+")


def _is_domain(text: str) -> bool:
    return len(text) <= 255 and _DOMAIN.fullmatch(text) is not None


def _is_local_part(text: str) -> bool:
    return len(text.encode()) <= 64 and _LOCAL_PART.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    local, at, domain = text.partition("@")
    if not (at and _is_local_part(local) and _is_domain(domain)):
        return False
    try:
        check_address(text)  # what the front would refuse is no address here either
    except InvalidAddress:
        return False
    return True


def _is_entry(text: str) -> bool:
    return _is_address(text) or (text.startswith("@") and _is_domain(text[1:]))


def _is_pattern(text: str) -> bool:
    return _is_entry(text) or (text.startswith(".") and _is_domain(text[1:]))


def _is_rewrite_key(text: str) -> bool:
    return _is_entry(text) or _is_local_part(text)


def _is_host(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return _is_domain(text)
    return True


Address = Annotated[
    str, checked(_is_address, "is not an address; write LOCALPART@DOMAIN, without a name")
]
Entry = Annotated[
    str, checked(_is_entry, 'is not an address or "@domain"; write e.g. "@example.com"')
]
"""An address, or `@domain` for every address of exactly that domain."""
Pattern = Annotated[
    str,
    checked(_is_pattern, 'is not an address, "@domain" or ".domain"; write e.g. "@example.com"'),
]
"""An `Entry`, or `.domain` for a domain and all below it."""
RewriteKey = Annotated[
    str,
    checked(_is_rewrite_key, 'is not a local part, an address or "@domain"; write e.g. root'),
]
Domain = Annotated[str, checked(_is_domain, "is not a domain; write e.g. example.com")]
Host = Annotated[
    str,
    checked(_is_host, "is not a host name or IP address; write it alone, the port has its own key"),
]
Name = Annotated[
    str,
    checked(_NAME.fullmatch, "is not a name; use up to 63 lower-case letters, digits, - and _"),
]
HeaderName = Annotated[
    str,
    checked(
        _HEADER_NAME.fullmatch, "is not a header name; write it without the colon, e.g. X-Campaign"
    ),
]


def is_loopback_host(host: str) -> bool:
    """Return whether `host` is this machine, without asking the DNS."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def entry_matches(entry: str, address: str) -> bool:
    """Return whether an `Entry` covers `address`, and nothing more than it says.

    Case is ignored between ASCII texts only: beyond them one letter can fold to another. A
    domain entry never covers a local part on which a provider might route (`%`, `!`, `@`).
    """
    entry_local, _, entry_domain = entry.rpartition("@")
    local, at, domain = address.rpartition("@")
    if not at or not _is_same(entry_domain, domain):
        return False
    if not entry_local:
        return not is_routable_elsewhere(address)
    return _is_same(entry_local, local)


def _is_same(one: str, other: str) -> bool:
    return one == other or (one.isascii() and other.isascii() and one.lower() == other.lower())
