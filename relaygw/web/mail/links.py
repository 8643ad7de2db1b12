"""The links of a message with their real targets; nothing is ever fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from relaygw.web.mail.html_writer import MAX_LINKS, Link

_IN_TEXT = re.compile(r"\bhttps?://[^\s<>\"'\x00-\x1f]{1,4000}", re.IGNORECASE)
_TRAILING = ".,;:!?)]}>"
_LOOKS_LIKE_HOST = re.compile(r"(?:https?://)?((?:[a-z0-9-]+\.)+[a-z]{2,})(?:[:/?#]\S*)?", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLink:
    """A link as the page lists it."""

    target: str
    text: str
    where: str  # HTML, text or header
    number: int  # how often it is there
    is_web: bool  # http or https, so that a browser may open it when somebody wants to
    warning: str


def listed_links(
    html: Iterable[Link], text: str, unsubscribe: Iterable[str]
) -> tuple[list[ListedLink], bool]:
    """Return the links, each once, and whether there are more than are listed."""
    found: dict[tuple[str, str, str], int] = {}
    for key in _all(html, text, unsubscribe):
        found[key] = found.get(key, 0) + 1
    lines = [
        _listed(target, words, where, number) for (target, words, where), number in found.items()
    ]
    return lines[:MAX_LINKS], len(lines) > MAX_LINKS


def _all(
    html: Iterable[Link], text: str, unsubscribe: Iterable[str]
) -> Iterator[tuple[str, str, str]]:
    for link in html:
        yield link.target, link.text, "HTML"
    for match in _IN_TEXT.finditer(text):
        yield match[0].rstrip(_TRAILING), "", "text"
    for target in unsubscribe:
        yield target, "List-Unsubscribe", "header"


def _listed(target: str, text: str, where: str, number: int) -> ListedLink:
    host = _host(target)
    return ListedLink(
        target=target,
        text=text,
        where=where,
        number=number,
        is_web=host is not None,
        warning=_warning(target, text, host),
    )


def _host(target: str) -> str | None:
    """Return the host of a web address in lower case, None of anything else."""
    try:
        parts = urlsplit(target)
        host = parts.hostname
    except ValueError:
        return None
    return host if parts.scheme in ("http", "https") and host else None


def _warning(target: str, text: str, host: str | None) -> str:
    scheme = target.partition(":")[0].lower()
    if scheme in ("javascript", "vbscript", "data"):
        return "a script or data, not an address"
    if host is None:
        return "" if scheme in ("mailto", "tel", "sms") else "no whole address"
    shown = _LOOKS_LIKE_HOST.fullmatch(text.strip())
    if shown is not None and not _same_site(shown[1].lower(), host):
        return f"shows {shown[1]}, leads to {host}"
    return ""


def _same_site(one: str, other: str) -> bool:
    return one.removeprefix("www.") == other.removeprefix("www.")
