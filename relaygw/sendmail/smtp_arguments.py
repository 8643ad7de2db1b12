"""What stands behind MAIL and RCPT in a -bs session, read as the front reads it.

Paths of the usual shape are read here, because the front's strict parser takes longer to load
than all of this program; every other path goes to that parser.
"""

from __future__ import annotations

from relaygw.inbound import replies
from relaygw.mail.drop import MAX_CONTENT_BYTES

_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-."


class Refusal(Exception):
    """A command is answered with this reply and counts as an error of the client."""


def parse_path_argument(keyword: bytes, argument: bytes, *, smtputf8: bool) -> tuple[bytes, bytes]:
    """Return the address behind `FROM:` or `TO:` and what follows it."""
    if argument[: len(keyword)].lower() != keyword:
        usage = "MAIL FROM:<address>" if keyword == b"from:" else "RCPT TO:<address>"
        raise Refusal(replies.BAD_ARGUMENT.format(usage=usage))
    path = argument[len(keyword) :].lstrip(b" \t")
    address, rest = _plain_path(path) or _strict_path(keyword, path, smtputf8=smtputf8)
    if rest and not rest.startswith((b" ", b"\t")):
        raise Refusal(replies.BAD_ADDRESS.format(code=501, status="5.1.3"))
    return address, rest.strip()


def _plain_path(path: bytes) -> tuple[bytes, bytes] | None:
    """Read `<local@domain>` of the usual shape, which needs no parser."""
    address, bracket, rest = path[1:].partition(b">")
    local, _, domain = address.partition(b"@")
    words = [*local.split(b"."), *domain.split(b".")]
    has_odd_byte = b"".join(words).translate(None, _PLAIN)
    has_odd_word = any(not word or word[:1] == b"-" or word[-1:] == b"-" for word in words)
    is_short = len(address) <= 320 and len(domain) <= 255 and all(len(word) <= 63 for word in words)
    if path[:1] != b"<" or not bracket or has_odd_byte or has_odd_word or not is_short:
        return None
    return address, rest


def _strict_path(keyword: bytes, path: bytes, *, smtputf8: bool) -> tuple[bytes, bytes]:
    from relaygw.errors import InvalidAddress
    from relaygw.mail.address import parse_path

    try:
        address, rest = parse_path(path, smtputf8=smtputf8)
    except InvalidAddress as error:
        is_sender = keyword == b"from:"
        status = "5.1.7" if is_sender and error.status == "5.1.3" else error.status
        raise Refusal(replies.BAD_ADDRESS.format(code=error.code, status=status)) from error
    return address.encode(), rest


def wants_smtputf8(rest: bytes) -> bool:
    """Check the parameters of MAIL; return whether SMTPUTF8 is among them."""
    if not rest:
        return False
    from relaygw.inbound.parameters import parse_mail_parameters

    parameters = parse_mail_parameters(rest)
    if parameters.problem is not None:
        raise Refusal(parameters.problem)
    if parameters.size_bytes > MAX_CONTENT_BYTES:
        raise Refusal(replies.TOO_BIG.format(limit=MAX_CONTENT_BYTES))
    return parameters.smtputf8
