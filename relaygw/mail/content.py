"""Message content: line ends, the fields of its header, and what lists show of it.

Every line ends with CRLF (RFC 5321 section 2.3.8), so that no bare CR or LF can look like an end of
data to a server down the line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, TypedDict

from relaygw.mail.drop import MAX_HEADER_BYTES

MAX_LINE_BYTES = 998  # without its CRLF: providers must take it (RFC 5321 section 4.5.3.1.6)
READ_HEADER_BYTES = MAX_HEADER_BYTES + 2**16
"""How far a stored header is read: a longest one, and the fields put in front of it."""

_NAME = rb"[!-9;-~]++"
_FIELD = rb"(%b)[ \t]*+:([^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*+)"
_FIELD_START = re.compile(_NAME + rb"[ \t]*:")
_MBOX_LINE = re.compile(rb">?From ")
SOURCE_FIELD = "X-Relaygw-Source"  # where a message came from: see source_header
_SOURCE = SOURCE_FIELD.lower()
_STANDARD = frozenset(
    ("received", "date", "message-id", "subject", "x-php-originating-script", _SOURCE)
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+ *")
MAX_LINK_CHARACTERS = 200  # more is no number of an order, and is not kept
_MAX_AUTHOR_BYTES = 1000  # of From, that are looked at
_DOMAIN = re.compile(r"@([\w-]+(?:\.[\w-]+)*+)")
_MAX_SUBJECT_BYTES = 4096  # what is decoded and stored; the header itself is untouched


def normalise_line_ends(data: bytes) -> bytes:
    """Return `data` with every bare CR and bare LF turned into CRLF."""
    rest = data.replace(b"\r\n", b"")  # half the time of three counts
    if b"\n" not in rest and b"\r" not in rest:
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def has_long_line(data: bytes, *, carried_bytes: int = 0) -> bool:
    """True if a line is longer than MAX_LINE_BYTES without its CRLF, with a look per 998 bytes.

    `carried_bytes` of the first line came before `data`.
    """
    start, limit = -carried_bytes, MAX_LINE_BYTES + 2
    last = len(data) - limit
    while start <= last:
        line_end = data.rfind(b"\n", start if start > 0 else 0, start + limit)
        if line_end < 0:
            return True
        start = line_end + 1
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderFacts:
    """What acceptance needs to know of a header."""

    has_header: bool = True  # False: the content starts with text, not with a field
    is_mbox_line_first: bool = False
    hops: int = 0  # Received fields
    has_date: bool = False
    message_id: str = ""
    subject: str = ""
    script: str | None = None  # X-PHP-Originating-Script
    source: bytes | None = None  # the first X-Relaygw-Source, as it stands there
    source_fields: tuple[tuple[int, int], ...] = ()  # from where to where each of these is
    values: dict[str, str] = field(default_factory=dict)  # first value of each wanted field
    end: int = 0  # where the header block ends, without the blank line


class HeaderField(NamedTuple):
    """Where a field of a header stands: offsets into the content that it was found in."""

    name: bytes  # as it is written, without the spaces that some put before the colon
    start: int
    value_start: int  # behind the colon
    value_end: int  # before its last line end; folding is part of the value
    end: int  # behind its last line end


@lru_cache(maxsize=64)
def _field_patterns(names: frozenset[str] | None) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return a pattern of the field that a header begins with, and one of the others.

    A search for a line end is many times as quick as one for the beginning of a line, and most
    lines begin with a letter that none of the names begins with.
    """
    chosen = _NAME
    if names is not None:
        letters = re.escape("".join(sorted({name[0] for name in names})))
        chosen = f"(?=[{letters}])(?:{'|'.join(map(re.escape, sorted(names)))})".encode()
    field = _FIELD % chosen
    return re.compile(field, re.IGNORECASE), re.compile(b"\n" + field, re.IGNORECASE)


@lru_cache(maxsize=16)
def _wanted_names(wanted: frozenset[str]) -> frozenset[str]:
    return _STANDARD | wanted


def _found_fields(
    content: bytes, start: int, end: int, names: frozenset[str] | None
) -> Iterator[re.Match[bytes]]:
    """Return the fields between two offsets: name and value."""
    first, others = _field_patterns(names)
    found = first.match(content, start, end)
    rest = others.finditer(content, start, end)
    return rest if found is None else chain((found,), rest)


def _field_end(content: bytes, value_end: int, end: int) -> int:
    return value_end + 2 if content.startswith(b"\r\n", value_end, end) else value_end


def header_fields(
    content: bytes, start: int = 0, end: int | None = None, *, names: Collection[str] | None = None
) -> Iterator[HeaderField]:
    """Yield the fields of the header between `start` and `end` of normalised `content`, in order.

    A field is, for the whole program, a line that begins with a name of printable ASCII and a
    colon, and the lines behind it that begin with a space or a tab (RFC 5322 section 2.2, with the
    spaces of section 4.5.8). Only CRLF ends a line. Other lines are passed over. `names`, in lower
    case: only these fields. Time grows with the size alone.
    """
    end = len(content) if end is None else end
    for match in _found_fields(content, start, end, None if names is None else frozenset(names)):
        (name_start, _), (value_start, value_end) = match.span(1), match.span(2)
        field_end = _field_end(content, value_end, end)
        yield HeaderField(match[1], name_start, value_start, value_end, field_end)


def header_end(content: bytes, start: int = 0, limit: int | None = None) -> int:
    """Return where the header from `start` is over: before the empty line, else at `limit`."""
    if content.startswith(b"\r\n", start):
        return start
    limit = len(content) if limit is None else limit
    blank = content.find(b"\r\n\r\n", start, limit)
    return limit if blank < 0 else blank + 2


def read_header(content: bytes, wanted: frozenset[str] = frozenset()) -> HeaderFacts:
    """Return the facts of the header of normalised `content`, and `wanted` values (lower case)."""
    start = 0
    is_mbox = _MBOX_LINE.match(content) is not None
    if is_mbox:
        start = content.find(b"\r\n") + 2
    if content.startswith(b"\r\n", start):
        return HeaderFacts(is_mbox_line_first=is_mbox, end=start)
    if not _FIELD_START.match(content, start):
        return HeaderFacts(has_header=False, is_mbox_line_first=is_mbox)
    end = header_end(content, start)
    hops = 0
    first: dict[str, bytes] = {}
    source_fields: list[tuple[int, int]] = []
    for match in _found_fields(content, start, end, _wanted_names(wanted)):
        name = match[1].decode("ascii").lower()
        if name == "received":
            hops += 1
        elif name == _SOURCE:
            source_fields.append((match.start(1), _field_end(content, match.end(), end)))
        if name not in first:
            first[name] = match[2]
    script = first.get("x-php-originating-script")
    return HeaderFacts(
        is_mbox_line_first=is_mbox,
        hops=hops,
        has_date="date" in first,
        message_id=_plain(first.get("message-id", b"")),
        subject=_decoded(first.get("subject", b"")),
        script=None if script is None else _plain(script),
        source=first.get(_SOURCE),
        source_fields=tuple(source_fields),
        values={name: _decoded(first[name]) for name in wanted if name in first},
        end=end,
    )


def link_value(facts: HeaderFacts, name: str) -> str | None:
    """Return the value of the field by which pages link to mail; None without a usable one."""
    value = " ".join(facts.values.get(name.lower(), "").split())
    return value if 0 < len(value) <= MAX_LINK_CHARACTERS else None


def author_domain(content: bytes) -> str:
    """Return the domain of From, in lower case; "" where it has none."""
    end = header_end(content)
    for one in header_fields(content, 0, end, names={"from"}):
        value_end = min(one.value_end, one.value_start + _MAX_AUTHOR_BYTES)
        domains = _DOMAIN.findall(content[one.value_start : value_end].decode("utf-8", "replace"))
        return domains[-1].lower() if domains else ""  # a name in front of it may have an @
    return ""


def without_fields(content: bytes, fields: Sequence[tuple[int, int]]) -> bytes:
    """Return `content` without these ranges of it, which are in order."""
    kept = []
    start = 0
    for field_start, field_end in fields:
        kept.append(content[start:field_start])
        start = field_end
    return b"".join([*kept, content[start:]])


def _plain(raw: bytes) -> str:
    text = raw[:_MAX_SUBJECT_BYTES].decode("utf-8", "replace").strip()
    return text if text.isprintable() else _CONTROL.sub(" ", text).strip()


def _decoded(raw: bytes) -> str:
    """Return a header value for people: RFC 2047 words decoded, control characters gone."""
    text = _plain(raw)
    if "=?" not in text:
        return text
    words, end, rest = text.rpartition("?=")  # none begins behind it, and each begun has an end
    try:
        decoded = str(make_header(decode_header(words + end))) + rest
    except (HeaderParseError, LookupError, ValueError):  # unknown charset, broken base64
        return text
    # some charsets decode to lone surrogates, which no database can store
    return _CONTROL.sub(" ", decoded.encode("utf-8", "replace").decode()).strip()


# --- what lists show and searches look at ----------------------------------------------------


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


# --- templates of subjects --------------------------------------------------------------
# Templates of subjects: what stays the same when a program writes many alike.
#
# Folded are numbers and what holds digits (`#`), addresses (`@`), names behind a salutation or
# "from", quoted words, months and days of the week (`…`). Only the first letters of a subject are
# looked at, so the work and the result are bounded.


MAX_TEMPLATE = 120
_MAX_READ = 160
_MAX_WORD = 30
_MAX_QUOTED = 80
_LONGEST_NAME = 3  # words in front of a comma
_GAP, _NUMBER, _ADDRESS = "…", "#", "@"

# each is linear in the text, or nearly: a hostile subject costs no more than a long one
_QUOTES = re.compile(
    "|".join(
        f"{start}[^{start}{end}]{{0,{_MAX_QUOTED}}}{end}"
        for start, end in ('""', "„“", "“”", "»«", "«»", "‚‘", "‹›", "›‹")
    )
)
_QUOTE = re.compile('["„“«»‚‹›]')
_RUN = re.compile(r"[#№]?[A-Za-z\d_./:,-]+")
_ADDRESS_RUN = re.compile(r"[^\s<>(),;:\[\]]+")
_DIGIT = re.compile(r"\d")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENDS = ",.!?:;-)]"
_HEX = frozenset("abcdefABCDEF")
_DATES = _words(
    # English, German, French, Spanish, Italian, Dutch
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec "
    "monday tuesday wednesday thursday friday saturday sunday "
    "januar februar märz mai juni juli oktober dezember dez okt "
    "montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag "
    "janvier février mars avril juin juillet août septembre octobre novembre décembre "
    "lundi mardi mercredi jeudi vendredi samedi dimanche "
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre "
    "lunes martes miércoles jueves viernes sábado domingo "
    "gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre "
    "lunedì martedì mercoledì giovedì venerdì sabato domenica "
    "januari februari maart mei augustus "
    "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag"
)
_SALUTATIONS = _words(
    "hello hi hey dear hallo liebe lieber geehrte geehrter moin servus bonjour salut cher chère "
    "hola estimado estimada querido querida ciao caro cara gentile beste geachte "
    "welcome willkommen bienvenue danke thanks merci"
)
_TITLES = _words("mr mrs ms dr prof herr herrn frau mme mlle sr sra dhr mevr")
_FROM = _words("from by von durch de par di da del van door")


@lru_cache(maxsize=2048)
def subject_template(subject: str) -> str:
    """Return the template of a decoded subject: at most 120 characters, "" of an empty one."""
    text = subject[:_MAX_READ]
    if len(subject) > _MAX_READ:
        text = text.rpartition(" ")[0] or text  # the last word may have been cut
    if _QUOTE.search(text):
        text = _QUOTES.sub(_GAP, text)
    folded: list[str] = []
    names = 0  # how many of the next words may be a name
    for word in text.split():
        one, kind = _folded(word)
        if names and _is_name(word, kind):
            end = word[len(word.rstrip(_ENDS)) :] if kind != _TITLE else ""
            one, names = _GAP + end, 0 if end else names - 1
        else:
            names = _NAMES_BEHIND.get(kind, 0)
        if folded and one[0] in (_GAP, _NUMBER) and folded[-1] == one[0]:
            folded[-1] = one  # names of one word and of two are alike, as are numbers
        else:
            folded.append(one)
    _fold_ends(folded)
    return " ".join(folded)[:MAX_TEMPLATE]


_PLAIN, _SALUTED, _SAID_BY, _TITLE = range(4)
_NAMES_BEHIND = {_SALUTED: 4, _SAID_BY: 3, _TITLE: 2}


def _is_name(word: str, kind: int) -> bool:
    return kind == _TITLE or (kind == _PLAIN and word[0].isupper()) or word[-1] in ",!"


@lru_cache(maxsize=4096)
def _folded(word: str) -> tuple[str, int]:
    """Return a word as it stands in a template, and what it says of the next ones."""
    plain = word.strip(_ENDS + "(['").lower()
    if plain in _SALUTATIONS:
        return word, _SALUTED if word[-1] not in _ENDS or word[-1] == "," else _PLAIN
    if plain in _FROM:
        return word, _SAID_BY
    if plain in _TITLES:
        return word, _TITLE
    if plain in _DATES and word != "may":
        return _GAP, _PLAIN
    if "@" in word:
        return _ADDRESS_RUN.sub(_without_address, word), _PLAIN
    if len(word) >= 8 and _HEX.issuperset(word):
        return _NUMBER, _PLAIN
    if _DIGIT.search(word):
        word = _RUN.sub(_without_number, word)
    return (word if len(word) <= _MAX_WORD else _GAP), _PLAIN


def _without_number(run: re.Match[str]) -> str:
    text = run[0]
    if not _DIGIT.search(text):
        return text
    return _NUMBER + text[len(text.rstrip("_./:,-")) :]


def _without_address(run: re.Match[str]) -> str:
    return _ADDRESS if "@" in run[0] else run[0]


def _fold_ends(words: list[str]) -> None:
    """Fold a name that is spoken to, at begin or end: `Ann Lee, your cart`, `Come, Ann!`."""
    for number, word in enumerate(words[:_LONGEST_NAME]):
        if not word[0].isupper():
            break
        if word[-1] == "," and number + 1 < len(words):
            words[: number + 1] = [f"{_GAP},"]
            break
    if len(words) > 2 and words[-2][-1] == "," and words[-1][0].isupper():
        last = words[-1]
        words[-1] = _GAP + last[len(last.rstrip(_ENDS)) :]
