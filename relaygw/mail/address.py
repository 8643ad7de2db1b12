"""Envelopes as SMTP writes them: addresses, and what a sender wants to hear of its mail.

Addresses have a strict RFC 5321 section 4.1.2 parser over the raw bytes. It
refuses whatever another parser down the line might read differently: source routes, comments,
control characters, encoded words, a leading hyphen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from relaygw.errors import InvalidAddress

MAX_PATH_BYTES = 1000
MAX_DOMAIN_BYTES = 255  # RFC 5321 section 4.5.3.1.2
MAX_LABEL_BYTES = 63
_KNOWN = 1024  # one message looks at its few addresses again and again

_BEYOND_ASCII = r"\u00a0-\u2027\u202a-\U0010ffff"  # without control and line separators
_ATEXT = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-{_BEYOND_ASCII}]+"
_DOT_STRING = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_QUOTED = re.compile(rf'"(?:[ !#-\[\]-~{_BEYOND_ASCII}]|\\[ -~])*"')
_LETTER = rf"[A-Za-z0-9_{_BEYOND_ASCII}]"
_LABEL = rf"{_LETTER}(?:(?:{_LETTER}|-)*{_LETTER})?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# the shape of nearly every address; everything else takes the long way
_PLAIN = re.compile(
    rb"<([A-Za-z0-9_+][A-Za-z0-9_.+\-]{0,63}@(?:[A-Za-z0-9][A-Za-z0-9\-]{0,61}\.){1,4}[A-Za-z]{2,24})>"
)
# up to the `>` that ends it; quoted ones do not count
_PATH = re.compile(rb'<((?:[^">]|"(?:[^"\\]|\\.)*+")*+)>', re.DOTALL)


def parse_path(raw: bytes, *, smtputf8: bool) -> tuple[str, bytes]:
    """Return the address in `<...>` at the start of `raw`, and what follows it.

    "" is the null path; a domain may lack (`<postmaster>`). Raises InvalidAddress with the reply to
    give; non-ASCII needs `smtputf8` (RFC 6531).
    """
    match = _PLAIN.match(raw)
    if match is not None:
        address = match[1].decode("ascii")
        if ".." not in address and ".@" not in address and "-." not in address:
            return address, raw[match.end() :]
    if not raw.startswith(b"<"):
        raise InvalidAddress("expected <address>")
    path = _PATH.match(raw, 0, MAX_PATH_BYTES)
    if path is None:
        raise InvalidAddress("no closing > in the address")
    return _parse_mailbox(path[1], smtputf8=smtputf8), raw[path.end() :]


def _parse_mailbox(raw: bytes, *, smtputf8: bool) -> str:
    if not raw:
        return ""
    try:
        address = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidAddress("the address is not valid UTF-8") from error
    if not address.isascii() and not smtputf8:
        raise InvalidAddress("non-ASCII address without SMTPUTF8", code=553, status="5.6.7")
    check_address(address)
    return address


def check_address(address: str) -> None:
    """Raise InvalidAddress unless `address` is `local` or `local@domain`, strictly."""
    local, domain = split(address)
    _check_local(local)
    if domain is not None:
        _check_domain(domain)


def _check_local(local: str) -> None:
    if not (_DOT_STRING.fullmatch(local) or _QUOTED.fullmatch(local)):
        raise InvalidAddress("bad local part")
    if local.startswith("-"):
        raise InvalidAddress("a local part may not start with a hyphen")
    if "?=" in local.partition("=?")[2]:
        raise InvalidAddress("encoded word in an address")


def _check_domain(domain: str) -> None:
    if domain.startswith("["):
        _check_literal(domain)
        return
    if len(domain.encode()) > MAX_DOMAIN_BYTES:
        raise InvalidAddress("domain too long", status="5.1.7")
    if not _DOMAIN.fullmatch(domain):
        raise InvalidAddress("bad domain")
    if any(len(label.encode()) > MAX_LABEL_BYTES for label in domain.split(".")):
        raise InvalidAddress("domain label too long", status="5.1.7")


def _check_literal(domain: str) -> None:
    inner = domain[1:-1]
    try:
        if not domain.endswith("]"):
            raise ValueError
        if inner[:5].lower() == "ipv6:":
            IPv6Address(inner[5:])
        else:
            IPv4Address(inner)
    except ValueError as error:
        raise InvalidAddress("bad address literal") from error


@lru_cache(maxsize=_KNOWN)
def split(address: str) -> tuple[str, str | None]:
    """Return local part and domain; the domain is None when there is none."""
    if address.startswith('"'):
        match = _QUOTED.match(address)
        if match is None:
            raise InvalidAddress("bad quoted local part")
        local, rest = match[0], address[match.end() :]
        if rest and not rest.startswith("@"):
            raise InvalidAddress("text after a quoted local part")
        return local, rest[1:] if rest else None
    local, at, domain = address.partition("@")
    return local, domain if at else None


@lru_cache(maxsize=_KNOWN)
def canonical(address: str) -> str:
    """Return the form in which addresses are compared: ASCII parts in lower case.

    Other letters stay: the Kelvin sign is no `k`. Quotes that are not needed go: with and without
    them it is one mailbox (RFC 5321 section 4.1.2).
    """
    local, domain = split(address)
    if local.startswith('"'):
        bare = _unquoted(local)
        local = bare if _DOT_STRING.fullmatch(bare) else local
    local = local.lower() if local.isascii() else local
    if domain is None:
        return local
    return f"{local}@{domain.lower() if domain.isascii() else domain}"


def _unquoted(local: str) -> str:
    return re.sub(r"\\(.)", r"\1", local[1:-1])


def is_routable_elsewhere(address: str) -> bool:
    """True if a provider might read another recipient into the local part (`%`, `!`, `"@"`)."""
    local, _ = split(address)
    # some providers normalise: U+FF20 becomes an @ there
    plain = unicodedata.normalize("NFKC", local)
    return any(mark in plain for mark in "%!@")


def folded(address: str) -> str:
    """Return one form for all spellings that may reach a mailbox, to refuse; `canonical` permits.

    Needless quotes go (RFC 5321 section 4.1.2), letters fold, a domain in Unicode becomes A-labels.
    """
    local, domain = split(address)
    if local.startswith('"'):
        local = _unquoted(local)
    local = unicodedata.normalize("NFKC", local).casefold()
    if domain is None:
        return local
    domain = domain.removesuffix(".")  # the root, as some programs write it
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:  # not a host name: compared as it stands
        domain = unicodedata.normalize("NFKC", domain)
    return f"{local}@{domain.casefold()}"


@lru_cache(maxsize=_KNOWN)
def mailbox(address: str) -> str:
    """Return the one name of a mailbox, by which it is told from others: `canonical`, and more.

    Letters of every alphabet are small in the local part: RFC 5321 section 2.4 lets a host tell
    them apart and warns against it. A domain in Unicode becomes A-labels. Nothing else is alike:
    `a+b@x` is not `a@x`, and no letter stands for another. What is no address stays as it is.
    """
    if address.isascii() and not address.startswith('"'):
        return address.lower().removesuffix(".")
    try:
        local, domain = split(address)
    except InvalidAddress:
        return address
    if local.startswith('"'):
        bare = _unquoted(local)
        local = bare if _DOT_STRING.fullmatch(bare) else local
    local = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower())
    return local if domain is None else f"{local}@{ascii_domain(domain)}"


def distinct(addresses: Iterable[str]) -> list[str]:
    """Return addresses in their order, of each mailbox the first one: nobody gets a mail twice."""
    found: dict[str, str] = {}
    for address in addresses:
        found.setdefault(mailbox(address), address)
    return list(found.values())


def ascii_domain(domain: str) -> str:
    """Return a domain in small letters and A-labels (IDNA 2008); as it stands where it has none."""
    domain = domain.removesuffix(".")
    if domain.isascii():
        return domain.lower()
    import idna  # 2 MiB, and nearly no address needs it

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:  # such as a label with an emoji: compared as it stands
        return unicodedata.normalize("NFC", domain).lower()
