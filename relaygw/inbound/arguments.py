"""What stands behind MAIL and RCPT: a path and parameters.

SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), AUTH (RFC 4954).
"""

from __future__ import annotations

from relaygw.errors import InvalidAddress
from relaygw.inbound import replies
from relaygw.inbound.replies import Refusal


def parse_mail(argument: bytes, *, limit_bytes: int) -> tuple[str, bool]:
    """Return the sender and whether SMTPUTF8 is asked for. Raises Refusal."""
    # what allows an address beyond ASCII stands behind it
    address, rest = _parse_path(argument, b"from:", "MAIL FROM:<address>", smtputf8=True)
    smtputf8 = bool(rest) and parse_parameters(rest, limit_bytes=limit_bytes)
    if not (smtputf8 or address.isascii()):
        raise Refusal(replies.BAD_ADDRESS.format(code=553, status="5.6.7"))
    return address, smtputf8


def parse_rcpt(argument: bytes, *, smtputf8: bool) -> str:
    """Return the recipient. Raises Refusal."""
    address, rest = _parse_path(argument, b"to:", "RCPT TO:<address>", smtputf8=smtputf8)
    if not address:
        raise Refusal(replies.BAD_ADDRESS.format(code=501, status="5.1.3"))
    if rest:
        raise _bad_parameter(replies.UNKNOWN_PARAMETER, rest.partition(b"=")[0])
    return address


def _parse_path(
    argument: bytes, keyword: bytes, usage: str, *, smtputf8: bool
) -> tuple[str, bytes]:
    if argument[: len(keyword)].lower() != keyword:
        raise Refusal(replies.BAD_ARGUMENT.format(usage=usage))
    # here, since it loads longer than the sendmail command, which reads usual paths by itself
    from relaygw.mail.address import parse_path

    try:
        address, rest = parse_path(argument[len(keyword) :].lstrip(b" \t"), smtputf8=smtputf8)
    except InvalidAddress as error:
        status = error.status
        if keyword == b"from:" and status == "5.1.3":
            status = "5.1.7"  # RFC 3463: that subject is the sender's
        raise Refusal(replies.BAD_ADDRESS.format(code=error.code, status=status)) from error
    if rest and not rest.startswith((b" ", b"\t")):
        raise Refusal(replies.BAD_ADDRESS.format(code=501, status="5.1.3"))
    return address, rest.strip()


def parse_parameters(raw: bytes, *, limit_bytes: int) -> bool:
    """Return whether SMTPUTF8 is among the parameters of MAIL. Raises Refusal."""
    size_bytes = 0
    seen: set[bytes] = set()
    for word in raw.upper().split():
        name, equals, value = word.partition(b"=")
        problem = _problem(name, equals, value)
        if name in seen:  # RFC 5321 section 4.1.1.11: each at most once
            problem = replies.BAD_PARAMETER
        if problem is not None:
            raise _bad_parameter(problem, name)
        seen.add(name)
        if name == b"SIZE":
            size_bytes = int(value[:30])
    if size_bytes > limit_bytes:
        raise Refusal(replies.TOO_BIG.format(limit=limit_bytes))
    return b"SMTPUTF8" in seen


def _problem(name: bytes, equals: bytes, value: bytes) -> str | None:
    match name:
        case b"SIZE":
            return None if value.isdigit() else replies.BAD_PARAMETER
        case b"BODY":
            if value == b"BINARYMIME":  # needs CHUNKING, which is not offered
                return replies.UNKNOWN_PARAMETER
            return None if value in (b"7BIT", b"8BITMIME") else replies.BAD_PARAMETER
        case b"SMTPUTF8":  # RFC 6531 section 3.4: it has no value
            return replies.BAD_PARAMETER if equals else None
        case b"AUTH":
            return None if value else replies.UNKNOWN_PARAMETER
        case _:
            return replies.UNKNOWN_PARAMETER


def _bad_parameter(reply: str, name: bytes) -> Refusal:
    shown = "".join(c for c in name[:40].decode("ascii", "ignore") if c.isalnum() or c == "-")
    return Refusal(reply.format(name=shown or "?"))
