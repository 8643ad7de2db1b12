"""What must not be mailed: card numbers, IBANs, passwords, keys. Found by shape, never kept.

Looks at the subject of a mail and the first 256 KiB behind its header: what is plain text or HTML
of that, decoded, at most 128 KiB; other kinds of parts are passed over. No search goes back over
what it has read, and of numbers that look like some 100 are tried.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Iterator
from html import unescape
from itertools import islice

from relaygw.mail.content import header_fields
from relaygw.mail.finding import IBAN_LENGTHS, Kind, is_iban

MAX_CONTENT_BYTES = 256 * 1024
MAX_TEXT_CHARACTERS = 128 * 1024
_MAX_PARTS = 100
_MAX_TRIED = 100
_MAX_FIELDS, _MAX_FIELD_BYTES = 20, 64 * 1024  # in which a part says what it is


def find_in(
    content: bytes, *, header_end: int, subject: str = "", own_ibans: Collection[str] = ()
) -> dict[Kind, int]:
    """Return how many of each kind are in a mail: of one and the same, one."""
    found: dict[Kind, int] = {}
    seen: set[str] = set()
    for text in _texts(content, header_end, subject):
        for kind, match, _ in _matches(text, own_ibans):
            if match not in seen:
                seen.add(match)
                found[kind] = found.get(kind, 0) + 1
    return {kind: found[kind] for kind in Kind if kind in found} if found else found


def shown_subject(subject: str, own_ibans: Collection[str] = ()) -> str:
    """Return a subject as it may be stored: cut where the first of what is found begins."""
    text = _plain(subject)
    secret_at = min((at for _, at in _secrets(text)), default=None)
    text = _URL.sub("<url>", text[:secret_at])
    others = ((at, kind) for kind, _, at in _others(text, own_ibans))
    end = None if secret_at is None else (len(text), Kind.SECRET)
    first = min(others, default=end)
    if first is None:
        return subject
    at, kind = first
    return f"{text[:at]}({kind.replace('_', ' ')} hidden)"


# --- the text of a mail ------------------------------------------------------------------------

# a line of hyphens in a text begins no part: a header has to follow
_EDGE = re.compile(
    rb"\r\n--[^\r\n]*+\r\n(?=(?:Content-[a-z-]++|MIME-Version|X-[a-z-]++)[ \t]*+:)", re.IGNORECASE
)
_ENCODING = re.compile(rb"^Content-Transfer-Encoding[ \t]*+:\s*+([a-z0-9-]+)", re.I | re.M)
_TYPE = re.compile(rb"^Content-Type[ \t]*+:\s*+([a-z0-9]++)(/[a-z0-9.+-]++)?", re.I | re.M)
_CHARSET = re.compile(rb"charset[ \t]*+=[ \t\"]*+([a-z0-9._-]{1,40})", re.I)
_CHARSETS = re.compile(r"utf-?(8|16|16[lb]e)|us-ascii|iso-8859-\d+|windows-\d+|cp\d+", re.I)
_OF_PARTS = frozenset(("content-type", "content-transfer-encoding"))
_READ_TYPES = frozenset((b"text", b"message", b"multipart"))
_READ_DATA = frozenset((b"/json", b"/xml", b"/x-pem-file", b"/x-sh", b"/sql", b"/x-yaml"))
_STYLE = re.compile(r"<(style|script)\b(?:[^<]++|<(?!/\1))*+", re.IGNORECASE)
_BREAK = re.compile(
    r"</?(?:br|p|div|tr|li|ul|ol|h[1-6]|table|blockquote|pre|title)\b[^<>]*+>", re.I
)
_CELL = re.compile(r"</?t[dh]\b[^<>]*+>", re.I)
_TAG = re.compile(r"<[/!a-z][^<>]*+>", re.I)
_BLANKS = re.compile(r"\s++")
_SPACES = re.compile(r"  ++")
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")  # Python refuses very long ones
_ODD_BLANKS = (
    dict.fromkeys("\xa0\u2007\u2009\u202f\u2002\u2003", " ")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\xad", "")
    | dict.fromkeys("\u2010\u2011\u2012\u2013", "-")
)


def _texts(content: bytes, header_end: int, subject: str) -> Iterator[str]:
    content = content[: header_end + MAX_CONTENT_BYTES]
    edges = islice(_EDGE.finditer(content, header_end), _MAX_PARTS)
    starts = [0, *(one.end() for one in edges)]
    left = MAX_TEXT_CHARACTERS
    yield subject
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        blank = header_end if start == 0 else content.find(b"\r\n\r\n", start, end)
        body = blank if blank >= 0 else end
        fields = islice(header_fields(content, start, body, names=_OF_PARTS), _MAX_FIELDS)
        header = b"".join([content[one.start : one.end][:_MAX_FIELD_BYTES] for one in fields])
        text = _text_of(header, content[body:end], left)
        left -= len(text)
        if text:
            yield _plain(text)
        if left <= 0:
            return


def _text_of(header: bytes, body: bytes, limit: int) -> str:
    kind = _TYPE.search(header)
    main, sub = (kind[1].lower(), (kind[2] or b"").lower()) if kind else (b"text", b"/plain")
    if main not in _READ_TYPES and sub not in _READ_DATA:
        return ""
    encoding = _ENCODING.search(header)
    match encoding[1].lower() if encoding else b"":
        case b"base64":
            data = body[: limit * 2].partition(b"\r\n--")[0].translate(None, b"\r\n\t ")
            try:
                body = binascii.a2b_base64(data[: len(data) // 4 * 4])
            except binascii.Error:
                return ""
        case b"quoted-printable":
            body = binascii.a2b_qp(body[: limit * 3])
    charset = _CHARSET.search(header)
    name = charset[1].decode("ascii") if charset else "utf-8"
    try:
        text = body[: limit * 2].decode(name if _CHARSETS.fullmatch(name) else "utf-8", "replace")
    except LookupError:
        text = body[: limit * 2].decode("latin-1")
    text = text[:limit]
    return _text_of_html(text) if sub == b"/html" or (sub != b"/plain" and "</" in text) else text


def _text_of_html(page: str) -> str:
    """Return the words of a page, a line for each block, and its addresses of the web gone."""
    text = _BLANKS.sub(" ", _STYLE.sub(" ", page))
    text = _TAG.sub("", _CELL.sub(" ", _BREAK.sub("\n", text)))
    text = _SPACES.sub(" ", text)
    return unescape(_LONG_NUMBER.sub(" ", text)) if "&" in text else text


def _plain(text: str) -> str:
    text = text.replace("\r\n", "\n")
    if not text.isascii():
        for odd, usual in _ODD_BLANKS.items():
            if odd in text:
                text = text.replace(odd, usual)
    return text


# --- what is in a text -------------------------------------------------------------------------

_URL = re.compile(r"://[^\s<>\"']++")
# most texts have nothing that looks like a number of a card or bank account: that shows much
# quicker in their bytes, with A for each capital and 0 for each digit
_SHAPE = bytes.maketrans(b"BCDEFGHIJKLMNOPQRSTUVWXYZ123456789", 25 * b"A" + 9 * b"0")
_OF_CARD, _OF_IBAN = 14 * b"0", b"AA00"


_Match = tuple[str, int]  # what, and where it begins


def _matches(text: str, own_ibans: Collection[str]) -> Iterator[tuple[Kind, str, int]]:
    for secret, at in _secrets(text):
        yield Kind.SECRET, secret, at
    yield from _others(_URL.sub("<url>", text) if "://" in text else text, own_ibans)


def _others(text: str, own_ibans: Collection[str]) -> Iterator[tuple[Kind, str, int]]:
    raw = text.encode("utf-8", "replace")
    shape = raw.translate(_SHAPE)
    if _OF_CARD in shape.translate(None, b" -"):
        for number, at in _card_numbers(text):
            yield Kind.CARD_NUMBER, number, at
    if _OF_IBAN in shape:
        for iban, at in _ibans(text):
            if iban not in own_ibans:
                yield Kind.IBAN, iban, at
    lowered = raw.lower()
    for name in _NAMES:
        if name in lowered:
            for password, at in _passwords(text):
                yield Kind.PASSWORD, password, at
            break


# whole, or in the groups that are printed on cards: with the same sign between them; the set that
# it begins with makes it quick
_CARD = re.compile(
    r"[2-6](?<![\w.-].)[0-9]{3}(?:"
    r"([ -]?)[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1?[0-9]{3})?"
    r"|([ -]?)[0-9]{6}\2[0-9]{5}"  # American Express
    r"|([ -])[0-9]{6}\3[0-9]{4}"  # Diners
    r")(?![\w-])"
)
_ISSUERS = re.compile(
    r"4(?:[0-9]{15}|[0-9]{18})"  # Visa
    r"|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}"  # Discover
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # JCB
    r"|62[0-9]{14}"  # UnionPay
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{12}"  # Maestro
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11}"  # Diners
)
_BEFORE = 40  # characters on the same line that may say what a number is
_IS_CARD = re.compile(r"card|karte|visa|master|amex|express|maestro|pan\b|cvv|cvc", re.I)
_OTHER = (
    r"order|bestell|auftrag|track|sendung|paket|parcel|shipment|rechnung|invoice|artikel|article|"
    r"sku\b|ean\b|gtin|isbn|imei|serial|serien|kunde|customer|ref\b|refer|referenz|transa|"
    r"verwendung|zweck|purpose|vorgang|mandat|gutschein|voucher|"
    r"\bid\b|konto|account|phone|tel\b|telefon|nr\.|no\.|#"
)
_IS_OTHER = re.compile(_OTHER, re.I)
# the end of the line above, when a number stands alone below it
_IS_OTHER_ABOVE = re.compile(rf"(?:{_OTHER})\w{{0,15}}(?: (?:number|code|id|no|nr))?[ :#]*\Z", re.I)


def _card_numbers(text: str) -> Iterator[_Match]:
    for match in islice(_CARD.finditer(text), _MAX_TRIED):
        digits = match[0].replace(" ", "").replace("-", "")
        if not _ISSUERS.fullmatch(digits) or not _has_luhn(digits):
            continue
        if digits == match[0]:  # in one piece it may be the number of anything
            before = text[max(0, match.start() - _BEFORE) : match.start()]
            if _is_of_other(before):
                continue
        yield digits, match.start()


def _is_of_other(before: str) -> bool:
    """Return whether the text in front of a number says that it is no card's."""
    above, _, line = before.rpartition("\n")
    if not line.strip():
        label = above.rstrip().rpartition("\n")[2]
        return bool(_IS_OTHER_ABOVE.search(label)) and not _IS_CARD.search(label)
    return bool(_IS_OTHER.search(line)) and not _IS_CARD.search(line)


def _has_luhn(digits: str) -> bool:
    total = sum(map(int, digits[-1::-2]))
    return (
        total + sum((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[int(one)] for one in digits[-2::-2])
    ) % 10 == 0


_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9].)[A-Z][0-9]{2}(?=[ -]?[A-Z0-9]{2})")


def _ibans(text: str) -> Iterator[_Match]:
    for match in islice(_IBAN.finditer(text), _MAX_TRIED):
        length = IBAN_LENGTHS.get(match[0][:2])
        if length is None:
            continue
        at, signs = match.start(), ""
        while len(signs) < length and at < len(text):
            sign = text[at]
            if sign.isascii() and sign.isalnum():
                signs += sign
            elif sign not in " -" or text[at - 1] in " -":
                break
            at += 1
        if not text[at : at + 1].isalnum() and is_iban(signs):
            yield signs, match.start()


_NAMES = (
    *(b"passwor", b"pass wor", b"kennwort", b"passphrase", b"zugangscode", b"wachtwoord"),
    *(b"mot de passe", b"contrase", b"pwd", b"passwd", b"login code", b"logincode"),
)
_NAMED = re.compile(
    r"(?:pass ?wor[dt]|kennwort|passphrase|zugangscode|login ?code|wachtwoord|mot de passe|"
    r"contrase[nñ]a|\bpwd|\bpasswd)"
    r"(?: (?:for|für|fuer) [^\n:=]{1,60})?"
    r"(?: (?:ist|is|lautet|wurde|was|set to|gesetzt auf|auf|nun|now|jetzt|est|es)){0,3}"
    r"[ \t\"'*_]{0,5}([:=]?)[ \t]{0,20}(\n?)[ \t>]{0,20}([^\s]{4,64})(?=([^\n]{0,3}))",
    re.IGNORECASE,
)
_SAYS = re.compile(r"\blautet\b|\bset to\b|gesetzt auf", re.I)
_VERB = re.compile(r" (?:is|ist|est|es) ", re.I)
_ONE_TIME = re.compile(r"(?:login ?code|zugangscode)[^0-9]*[0-9]{4,8}\Z", re.I)
_QUOTES = "\"'`*_„“”‚‘’«»"
_NO_PASSWORD = re.compile(
    r"[*•.x#_-]+|[<(\[{%].*|https?\b.*|"
    r"unchanged|unver(?:ä|ae)ndert|hidden|verborgen|encrypted|verschl(?:ü|ue)sselt|bekannt|known|"
    r"forgot(?:ten)?|vergessen|lost|verloren|expired|abgelaufen|required|erforderlich|optional|"
    r"changed|ge(?:ä|ae)ndert|reset(?:[ -]?(?:link|mail|email))?|zur(?:ü|ue)cksetzen|"
    r"zur(?:ü|ue)ckgesetzt|(?:selbst|frei|neu|self)?-?(?:gew(?:ä|ae)hlt|vergeben|chosen)|"
    r"\d{1,3}(?:%|\+|-[^\W\d]+|-\d{1,3})|"  # 100% safe, 2-factor, 8-20 characters
    r"[0-9]{1,4}[./-][0-9]{1,2}(?:[./-][0-9]{0,4})?|[0-9]{1,2}:[0-9]{2}\S*",  # a date, a time
    re.I | re.S,
)


def _passwords(text: str) -> Iterator[_Match]:
    """Yield words that stand where a password does, and look like one or stand there alone."""
    for match in islice(_NAMED.finditer(text), _MAX_TRIED):
        colon, broken, word, behind = match.groups()
        before = text[match.start() : match.start(3)]
        word = word.strip(_QUOTES).rstrip(".,;:!?").strip(_QUOTES)
        if len(word) < 4 or _NO_PASSWORD.fullmatch(word) or _ONE_TIME.match(before + word):
            continue
        is_named = bool(colon) or _SAYS.search(before)
        is_odd = not word.replace("-", "").replace("'", "").replace("’", "").isalpha()
        is_alone = not behind.strip(" .\t" + _QUOTES) and not broken
        if (is_named and (is_odd or is_alone)) or (is_odd and _VERB.search(before)):
            yield word, match.start(3)


_SECRETS = {  # what stands in all of them, so that most texts are searched for that alone
    sign: re.compile(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])")
    for sign, pattern in {
        "PRIVATE KEY-----": r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----\s*+[A-Za-z0-9+/=:, -]{8,64}",
        "AKIA": "AKIA[A-Z0-9]{16}",  # AWS
        "ASIA": "ASIA[A-Z0-9]{16}",
        "aws_secret_access_key": r"aws_secret_access_key\s{0,5}[=:]\s{0,5}[A-Za-z0-9/+]{40}",
        "gh": "gh[pousr]_[A-Za-z0-9]{36,255}",  # GitHub
        "github_pat_": r"github_pat_\w{22,255}",
        "glpat-": r"glpat-[\w-]{20,64}",  # GitLab
        "xox": "xox[abprs]-[A-Za-z0-9-]{10,255}",  # Slack
        "hooks.slack.com/": r"hooks\.slack\.com/services/T[A-Z0-9]{5,20}/B[A-Z0-9]{5,20}/\w{16,64}",
        "k_live_": "[rs]k_live_[A-Za-z0-9]{16,255}",  # Stripe
        "whsec_": "whsec_[A-Za-z0-9+/=]{24,128}",
        "AIza": r"AIza[\w-]{35}",  # Google
        "SG.": r"SG\.[\w-]{16,32}\.[\w-]{32,64}",  # SendGrid
        "npm_": "npm_[A-Za-z0-9]{36}",
        "earer ": "[Bb]earer [A-Za-z0-9._~+/-]{24,2000}=*+",
    }.items()
}


def _secrets(text: str) -> Iterator[_Match]:
    for sign, pattern in _SECRETS.items():
        if sign in text:
            for match in pattern.finditer(text):
                yield match[0], match.start()
