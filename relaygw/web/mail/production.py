"""Links to the live shop in captured mail, where `sandbox.production_hosts` names its hosts."""

from __future__ import annotations

import binascii
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from relaygw.web.mail.mime_tree import MimeTree
from relaygw.web.mail.text import decode_entities

PRODUCTION_TAG = "production-links"
MAX_CHARACTERS = 2 * 2**20  # of a message
_LINK_FIELDS = frozenset(("list-unsubscribe", "list-subscribe", "list-help", "list-archive"))
# a value with line ends or tabs within: browsers leave these out of addresses
_BROKEN = re.compile(r"=\s?[\"']([^\"'<>]{0,2000}[\r\n\t][^\"'<>]{0,2000})")
_BREAKS = re.compile(r"[\r\n\t]++")
_CODED = re.compile(r"(?<![A-Za-z0-9])aHR0c[A-Za-z0-9+/_-]{8,2000}+")  # "http" in base64


@lru_cache(maxsize=8)
def _pattern(hosts: tuple[str, ...]) -> re.Pattern[str]:
    names = {form for host in hosts for form in _forms(host)}
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    # the whole of a host, and not the domain of an address, but for a user in an address of the web
    start = r"(?:(?<![\w.@-])|(?<=[/\\]{2})[^\s/\\@?#<>\"']{1,100}@)"
    return re.compile(rf"{start}({either})(?![\w-]|\.[\w-])", re.IGNORECASE)


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
    broken = (_BREAKS.sub("", one[1]) for one in _BROKEN.finditer(text))
    coded = (_decoded(one[0]) for one in _CODED.finditer(text))
    text = " ".join((text, *broken, *coded))
    return list(dict.fromkeys(one[1].lower() for one in _pattern(hosts).finditer(text)))


def _decoded(word: str) -> str:
    word = word.replace("-", "+").replace("_", "/")
    word = word[:-1] if len(word) % 4 == 1 else word
    data = binascii.a2b_base64(word + "=" * (-len(word) % 4))
    return unquote(data.decode("utf-8", "replace"))


class Linked(NamedTuple):
    """Which hosts of the live shop a message names."""

    hosts: list[str]
    is_cut: bool  # more than MAX_CHARACTERS: the rest was not looked at


def hosts_linked(tree: MimeTree, hosts: tuple[str, ...]) -> Linked:
    """Return which of these hosts the texts, the HTML and the List fields of a message name."""
    if not hosts:
        return Linked([], is_cut=False)
    fields = " ".join(value for name, value in tree.fields if name.lower() in _LINK_FIELDS)
    found = dict.fromkeys(hosts_named(fields[:MAX_CHARACTERS], hosts))
    left, is_cut = MAX_CHARACTERS, False
    for part in tree.leaves:
        if part.is_body:
            text, has_more = tree.text(part, limit_characters=left)
            left -= len(text)
            is_cut = is_cut or has_more
            found |= dict.fromkeys(hosts_named(text, hosts))
    return Linked(list(found), is_cut)
