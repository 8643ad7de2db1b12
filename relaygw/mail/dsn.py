"""What a sender wants to hear of the delivery: NOTIFY, RET and ENVID of RFC 3461.

Values are kept in the form of the RFC, ENVID decoded. Whatever is not right is left out and
never costs a mail: these are wishes. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_ENVID_BYTES = 100
"""Length of ENVID as it is sent (section 4.4)."""
NEVER = "NEVER"
_OCCASIONS = ("SUCCESS", "FAILURE", "DELAY")
_RETURNS = ("FULL", "HDRS")
_NOT_XCHAR = re.compile(rb"[^!-*,-<>-~]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DsnRequest:
    """The wishes for one message; the same NOTIFY for each of its recipients."""

    notify: str | None = None
    ret: str | None = None
    envid: str | None = None


NO_REQUEST = DsnRequest()


def read_request(*, notify: str | None, ret: str | None, envid: str | None) -> DsnRequest:
    """Return what of these is right, in any case of letters."""
    if notify is None and ret is None and envid is None:
        return NO_REQUEST
    return DsnRequest(
        notify=None if notify is None else _read_notify(notify),
        ret=ret.upper() if ret and ret.upper() in _RETURNS else None,
        envid=envid if envid and _is_envid(envid) else None,
    )


def _read_notify(text: str) -> str | None:
    words = {word.strip() for word in text.upper().split(",")}
    if words == {NEVER}:
        return NEVER
    if not words <= set(_OCCASIONS):
        return None
    return ",".join(word for word in _OCCASIONS if word in words)


def _is_envid(text: str) -> bool:
    return text.isascii() and text.isprintable() and len(encode_xtext(text)) <= MAX_ENVID_BYTES


def encode_xtext(text: str) -> bytes:
    """Return ASCII `text` as xtext (section 4)."""
    return _NOT_XCHAR.sub(lambda match: b"+%02X" % match[0][0], text.encode("ascii"))


def mail_parameters(ret: str | None, envid: str | None) -> bytes:
    """Return what stands behind the path of MAIL."""
    parameters = b"" if ret is None else b" RET=" + ret.encode("ascii")
    return parameters if envid is None else parameters + b" ENVID=" + encode_xtext(envid)


def rcpt_parameters(notify: str | None) -> bytes:
    """Return what stands behind the path of RCPT."""
    return b"" if notify is None else b" NOTIFY=" + notify.encode("ascii")
