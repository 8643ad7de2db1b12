"""What stands behind MAIL and RCPT: a path and parameters.

SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), AUTH (RFC 4954), and where DSN is offered
RET, ENVID, NOTIFY and ORCPT (RFC 3461).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from relaygw.errors import InvalidAddress
from relaygw.inbound import replies
from relaygw.inbound.replies import Refusal
from relaygw.mail.dsn_request import (
    NO_REQUEST,
    DsnRequest,
    read_envid,
    read_notify,
    read_orcpt,
    read_ret,
)


class MailParameters(NamedTuple):
    """What stands behind the path of MAIL."""

    smtputf8: bool = False
    dsn: DsnRequest = NO_REQUEST


# no bare CR and the like: to another server it may be the end of a line, or part of a value
_IS_BEHIND = re.compile(rb"[ \t][^\x00-\x08\x0a-\x1f\x7f]*")
NO_PARAMETERS = MailParameters()
_DSN_VALUES = {b"RET": read_ret, b"ENVID": read_envid, b"NOTIFY": read_notify, b"ORCPT": read_orcpt}


def parse_mail(
    argument: bytes, *, limit_bytes: int, has_dsn: bool = False
) -> tuple[str, MailParameters]:
    """Return the sender and what is asked for it. Raises Refusal."""
    # what allows an address beyond ASCII stands behind it
    address, rest = _parse_path(argument, b"from:", "MAIL FROM:<address>", smtputf8=True)
    wanted = NO_PARAMETERS
    if rest:
        wanted = parse_parameters(rest, limit_bytes=limit_bytes, has_dsn=has_dsn)
    if not (wanted.smtputf8 or address.isascii()):
        raise Refusal(replies.BAD_ADDRESS.format(code=553, status="5.6.7"))
    return address, wanted


def parse_rcpt(
    argument: bytes, *, smtputf8: bool, has_dsn: bool = False
) -> tuple[str, str | None, str | None]:
    """Return the recipient, its NOTIFY and its ORCPT. Raises Refusal."""
    address, rest = _parse_path(argument, b"to:", "RCPT TO:<address>", smtputf8=smtputf8)
    if not address:
        raise Refusal(replies.BAD_ADDRESS.format(code=501, status="5.1.3"))
    if not rest:
        return address, None, None
    wishes: dict[bytes, str] = {}
    for name, _, value in _parameters(rest):
        if name not in (b"NOTIFY", b"ORCPT") or not has_dsn:
            raise _bad_parameter(replies.UNKNOWN_PARAMETER, name)
        wishes[name] = _dsn_value(name, value, smtputf8=smtputf8)
    return address, wishes.get(b"NOTIFY"), wishes.get(b"ORCPT") or None


def parse_parameters(raw: bytes, *, limit_bytes: int, has_dsn: bool = False) -> MailParameters:
    """Return the wishes in the parameters of MAIL. Raises Refusal."""
    size_bytes, smtputf8 = 0, False
    wishes: dict[bytes, str] = {}
    for name, equals, value in _parameters(raw):
        if has_dsn and name in (b"RET", b"ENVID"):
            wishes[name] = _dsn_value(name, value)
            continue
        problem = _problem(name, equals, value.upper())
        if problem is not None:
            raise _bad_parameter(problem, name)
        smtputf8 |= name == b"SMTPUTF8"
        if name == b"SIZE":
            size_bytes = int(value[:30])
    if size_bytes > limit_bytes:
        raise Refusal(replies.TOO_BIG.format(limit=limit_bytes))
    if not wishes:
        return MailParameters(smtputf8)
    dsn = DsnRequest(ret=wishes.get(b"RET"), envid=wishes.get(b"ENVID") or None)
    return MailParameters(smtputf8, dsn)


def _parameters(raw: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield name, in capitals, equals sign and value; each may stand once (RFC 5321, 4.1.1.11)."""
    seen: set[bytes] = set()
    for word in raw.split():
        name, equals, value = word.partition(b"=")
        name = name.upper()
        if name in seen:
            raise _bad_parameter(replies.BAD_PARAMETER, name)
        seen.add(name)
        yield name, equals, value


def _dsn_value(name: bytes, value: bytes, *, smtputf8: bool = False) -> str:
    """Return a value to keep, "" for one that is right and may never be shown. Raises Refusal."""
    try:
        read = _DSN_VALUES[name](value.decode("utf-8" if smtputf8 else "ascii"))
    except UnicodeDecodeError:
        read = None
    if read is None:
        raise _bad_parameter(replies.BAD_PARAMETER, name)
    return read


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
    if rest and not _IS_BEHIND.fullmatch(rest):
        raise Refusal(replies.BAD_ADDRESS.format(code=501, status="5.1.3"))
    return address, rest.strip()


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
