"""The words of a message: snippet, what is searched, text and HTML; and links to the live shop.

Each character is read once. `sandbox.production_hosts` names the hosts of the live shop.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from html import unescape
from typing import NamedTuple
from urllib.parse import unquote

from relaygw.mail.content_facts import ContentFacts, nobody
from relaygw.mail.mime_header import read_addresses
from relaygw.mail.mime_tree import MimeTree, Part
from relaygw.mail.searchable_text import searchable
from relaygw.web.mail.parts import filed_parts

MAX_SNIPPET_CHARACTERS = 250
MAX_WORDS_CHARACTERS = 16_000
_MAX_LINKS_CHARACTERS = 2_000  # of newsletters, whose links are long and many
_SNIPPET_SOURCE_CHARACTERS = 128 * 1024  # style sheets of shop mail are long

# "<" ends a tag too, so that a page of nothing but "<" is read once and not once a "<"
_TOKEN = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*+)?+[^<>]*+>|([^<]+|<)")
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")
_UNSEEN = frozenset({"script", "style", "head", "title", "template"})
_BREAK = re.compile(
    "address|article|blockquote|br|d[dlt]|div|footer|form|h[1-6r]|header|li|ol|p|pre|section|"
    "t[dhr]|table|ul"
)
# possessive: blanks are read once, however many
_LINK = re.compile(
    r"""href\s*+=\s*+["']?\s*+((?:https?|mailto):[^\s"'<>]{1,1000})""", re.IGNORECASE
)


def decode_entities(text: str) -> str:
    """Return `text` without entities; numbers that are no characters become U+FFFD."""
    # Python refuses to read a number of thousands of digits
    return unescape(_LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text


def text_of_html(page: str) -> str:
    """Return the words of an HTML page, a line for each block; no sanitiser: this is text."""
    words: list[str] = []
    unseen = ""
    for match in _TOKEN.finditer(page):
        closing, name, text = match.groups()
        tag = (name or "").lower()
        if unseen:
            if closing and tag == unseen:
                unseen = ""
        elif text is not None:
            words.append(text.replace("\n", " "))
        elif not closing and tag in _UNSEEN:
            unseen = tag
        elif _BREAK.fullmatch(tag):
            words.append("\n")
    lines = (" ".join(line.split()) for line in decode_entities("".join(words)).split("\n"))
    return "\n".join(line for line in lines if line)


def read_words(text: str, html: str, names: Iterable[str]) -> str:
    """Return the searchable text of a message with these bodies and names of attachments.

    Without what both bodies say alike; with links, as in Mailpit, for they may hold a token.
    """
    page = searchable(text_of_html(html))[:MAX_WORDS_CHARACTERS]
    said = map(searchable, text[:MAX_WORDS_CHARACTERS].split("\n"))
    lines = [page, *(line for line in said if line not in page)]
    lines += [searchable(" ".join(names)), _links(html)]
    return "\n".join(line for line in lines if line)[:MAX_WORDS_CHARACTERS]


def _links(html: str) -> str:
    links: dict[str, None] = {}
    left = _MAX_LINKS_CHARACTERS
    for match in _LINK.finditer(html):
        link = searchable(decode_entities(match[1]))
        if link not in links:
            left -= len(link)
            if left < 0:
                break
            links[link] = None
    return " ".join(links)


def people_of(tree: MimeTree) -> ContentFacts:
    """Return whom the header of a message names, and nothing else."""
    names = ("From", "To", "Cc", "Bcc", "Reply-To")
    senders, to, cc, bcc, reply_to = (tuple(read_addresses(tree.first(name))) for name in names)
    sender = senders[0] if senders else nobody()
    return ContentFacts(sender=sender, to=to, cc=cc, bcc=bcc, reply_to=reply_to)


def read_facts(tree: MimeTree) -> ContentFacts:
    """Return the excerpt that a list shows of a message."""
    text, html = bodies_of(tree, limit_characters=_SNIPPET_SOURCE_CHARACTERS)
    words = " ".join((text or text_of_html(html)).split())
    if len(words) > MAX_SNIPPET_CHARACTERS:
        words = words[: MAX_SNIPPET_CHARACTERS - 3] + "..."
    inlines, attachments = filed_parts(tree)
    return replace(
        people_of(tree),
        attachments=len(attachments),
        inlines=len(inlines),
        snippet=words,
        words=read_words(text, html, (part.file_name for part in (*attachments, *inlines))),
    )


def bodies_of(tree: MimeTree, *, limit_characters: int) -> tuple[str, str]:
    """Return text and HTML of a message, cut with a note; of alternatives the first text."""
    bodies = [part for part in tree.leaves if part.is_body]
    texts = [part for part in bodies if part.content_type == "text/plain"]
    if tree.root.content_type == "multipart/alternative":
        texts = texts[:1]
    pages = [part for part in bodies if part.content_type == "text/html"][:1]
    return _shown(tree, texts, limit_characters), _shown(tree, pages, limit_characters)


def _shown(tree: MimeTree, parts: list[Part], limit_characters: int) -> str:
    shown, is_cut = texts_of(tree, parts, limit_characters=limit_characters)
    if is_cut:
        shown[-1] += f"\n[relaygw left out everything beyond {limit_characters} characters]"
    return "\n--\n".join(shown)


def texts_of(
    tree: MimeTree, parts: Iterable[Part], *, limit_characters: int
) -> tuple[list[str], bool]:
    """Return the texts of parts, of so many characters in all, and whether there is more."""
    texts: list[str] = []
    for part in parts:
        text, is_cut = tree.text(part, limit_characters=limit_characters)
        texts.append(text)
        limit_characters -= len(text)
        if is_cut:
            return texts, True
    return texts, False


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
    broken = (_BREAKS.sub("", match[1]) for match in _BROKEN.finditer(text))
    coded = (_decoded(match[0]) for match in _CODED.finditer(text))
    text = " ".join((text, *broken, *coded))
    return list(dict.fromkeys(match[1].lower() for match in _pattern(hosts).finditer(text)))


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
    fields = " ".join(value for name, value in tree.message_fields if name.lower() in _LINK_FIELDS)
    found = dict.fromkeys(hosts_named(fields[:MAX_CHARACTERS], hosts))
    left, is_cut = MAX_CHARACTERS, False
    for part in tree.leaves:
        if part.is_body:
            text, has_more = tree.text(part, limit_characters=left)
            left -= len(text)
            is_cut = is_cut or has_more
            found |= dict.fromkeys(hosts_named(text, hosts))
    return Linked(list(found), is_cut)
