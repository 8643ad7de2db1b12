"""Links to the live shop in captured mail, where `sandbox.production_hosts` names its hosts."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from relaygw.web.mail.mime_tree import MimeTree
from relaygw.web.mail.text import decode_entities

PRODUCTION_TAG = "production-links"
_MAX_CHARACTERS = 2 * 2**20  # of a message


@lru_cache(maxsize=8)
def _pattern(hosts: tuple[str, ...]) -> re.Pattern[str]:
    names = {form for host in hosts for form in _forms(host)}
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    # the whole of a host, and not the domain of an address
    return re.compile(rf"(?<![\w.@-])({either})(?![\w-]|\.[\w-])", re.IGNORECASE)


def _forms(host: str) -> list[str]:
    """Return how a host is written: an international name in letters, and as DNS has it."""
    host = host.lower().rstrip(".")
    try:
        return [host, host.encode("ascii").decode("idna")]
    except UnicodeError:
        pass
    try:
        return [host, host.encode("idna").decode("ascii")]
    except UnicodeError:
        return [host]


def hosts_named(text: str, hosts: tuple[str, ...]) -> list[str]:
    """Return which of these hosts a text or an address names, in links of all kinds or by itself.

    Within the address of another one, too: what counts clicks leads on.
    """
    if not hosts:
        return []
    text = decode_entities(text)
    if "%" in text:
        text = f"{text} {unquote(text)}"
    return list(dict.fromkeys(one[1].lower() for one in _pattern(hosts).finditer(text)))


def hosts_linked(tree: MimeTree, hosts: tuple[str, ...]) -> list[str]:
    """Return which of these hosts the texts and the HTML of a message name."""
    if not hosts:
        return []
    found: dict[str, None] = {}
    left = _MAX_CHARACTERS
    for part in tree.leaves:
        if part.is_body and left > 0:
            text, _ = tree.text(part, limit_characters=left)
            left -= len(text)
            found |= dict.fromkeys(hosts_named(text, hosts))
    return list(found)
