"""What must not be mailed: card numbers, IBANs, passwords, keys. Found by shape, never kept.

Looks at the subject of a mail and the first 256 KiB behind its header: what is plain text or HTML
of that, decoded, at most 128 KiB; other kinds of parts are passed over. No search goes back over
what it has read, and of numbers that look like some 100 are tried.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import islice

from relaygw.mail.finding import Kind
from relaygw.mail.iban import IBAN_LENGTHS, is_iban
from relaygw.policy.content_text import plain_text, texts_of

_MAX_TRIED = 100


def find_in(
    content: bytes, *, header_end: int, subject: str = "", own_ibans: Collection[str] = ()
) -> dict[Kind, int]:
    """Return how many of each kind are in a mail: of one and the same, one."""
    found: dict[Kind, int] = {}
    seen: set[str] = set()
    for text in texts_of(content, header_end, subject):
        for kind, match, _ in _matches(text, own_ibans):
            if match not in seen:
                seen.add(match)
                found[kind] = found.get(kind, 0) + 1
    return {kind: found[kind] for kind in Kind if kind in found} if found else found


def shown_subject(subject: str, own_ibans: Collection[str] = ()) -> str:
    """Return a subject as it may be stored: cut where the first of what is found begins."""
    text = plain_text(subject)
    secret_at = min((at for _, at in _secrets(text)), default=None)
    text = _URL.sub("<url>", text[:secret_at])
    others = ((at, kind) for kind, _, at in _others(text, own_ibans))
    end = None if secret_at is None else (len(text), Kind.SECRET)
    first = min(others, default=end)
    if first is None:
        return subject
    at, kind = first
    return f"{text[:at]}({kind.replace('_', ' ')} hidden)"


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
        total + sum((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[int(digit)] for digit in digits[-2::-2])
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
