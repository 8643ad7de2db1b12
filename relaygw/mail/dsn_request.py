"""What a sender wants to hear of its mail: NOTIFY, RET, ENVID and ORCPT of RFC 3461.

Values are kept in the form of the RFC, ENVID decoded. They come from strangers and end up in mail
that we write: `decode_xtext` returns printable ASCII or nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_ENVID_BYTES = 100  # length of ENVID as it is sent (section 4.4)
MAX_ORCPT_BYTES = 500  # of ORCPT, its type included (section 4.2)
NEVER = "NEVER"
SUCCESS, FAILURE, DELAY = "SUCCESS", "FAILURE", "DELAY"
_OCCASIONS = (SUCCESS, FAILURE, DELAY)
_RETURNS = ("FULL", "HDRS")
_NOT_XCHAR = re.compile(rb"[^!-*,-<>-~]")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DsnRequest:
    """The wishes for one message; the same NOTIFY for each of its recipients."""

    notify: str | None = None
    ret: str | None = None
    envid: str | None = None


NO_REQUEST = DsnRequest()


# --- wishes of programs on this machine: what is not right never costs a mail ------------------


def read_request(*, notify: str | None, ret: str | None, envid: str | None) -> DsnRequest:
    """Return the valid ones of these, in any case of letters."""
    if notify is None and ret is None and envid is None:
        return NO_REQUEST
    return DsnRequest(
        notify=None if notify is None else read_notify(notify),
        ret=None if ret is None else read_ret(ret),
        envid=envid if envid and _is_envid(envid) else None,
    )


def read_notify(text: str) -> str | None:
    """Return a NOTIFY in its usual form, None for what is none."""
    words = {word.strip() for word in text.upper().split(",")}
    if words == {NEVER}:
        return NEVER
    if not words <= set(_OCCASIONS):
        return None
    return ",".join(word for word in _OCCASIONS if word in words)


def read_ret(text: str) -> str | None:
    """Return a RET in its usual form, None for what is none."""
    return text.upper() if text.upper() in _RETURNS else None


def _is_envid(text: str) -> bool:
    return text.isascii() and text.isprintable() and len(encode_xtext(text)) <= MAX_ENVID_BYTES


# --- parameters of SMTP commands ---------------------------------------------------------------


def is_xtext(text: str) -> bool:
    """True for xtext (section 4)."""
    return _XTEXT.fullmatch(text) is not None


def decode_xtext(text: str) -> str | None:
    """Return the text of xtext; None if that is not printable ASCII, or it is no xtext."""
    if not is_xtext(text):
        return None
    decoded = _HEX.sub(lambda match: chr(int(match[1], 16)), text)
    return decoded if decoded.isascii() and decoded.isprintable() else None


def encode_xtext(text: str) -> bytes:
    """Return ASCII `text` as xtext (section 4)."""
    return _NOT_XCHAR.sub(lambda match: b"+%02X" % match[0][0], text.encode("ascii"))


def encode_utf8_address(address: str) -> str:
    """Return an address beyond ASCII in the ASCII form of RFC 6533, section 3."""
    return _NOT_QCHAR.sub(lambda match: rf"\x{{{ord(match[0]):02X}}}", address)


def read_envid(text: str) -> str | None:
    """Return the decoded value of ENVID; "" where it may not be shown, None: a wrong value."""
    if len(text) > MAX_ENVID_BYTES or not is_xtext(text):
        return None
    return decode_xtext(text) or ""


def read_orcpt(text: str) -> str | None:
    """Return an ORCPT to keep, in ASCII; "" where it may not be shown, None: a wrong value.

    In front of the semicolon stands what kind of address it is. Beyond ASCII: RFC 6533.
    """
    kind, semicolon, value = text.partition(";")
    if not semicolon or not _ADDRESS_TYPE.fullmatch(kind):
        return None
    if kind.lower() == "utf-8":
        value = "".join(
            character if character.isascii() else encode_utf8_address(character)
            for character in value
        )
    if not is_xtext(value):
        return None
    if len(kind) + 1 + len(value) > MAX_ORCPT_BYTES:
        return None if text.isascii() else ""  # its ASCII form alone is too long
    return f"{kind};{value}" if decode_xtext(value) is not None else ""


def shown_orcpt(orcpt: str | None) -> str | None:
    """Return a kept ORCPT as reports show it: `type; address`; None where there is none."""
    kind, _, value = (orcpt or "").partition(";")
    # in utf-8 addresses it is the form of RFC 6533 that is shown, and that has no xtext
    shown = value if kind.lower() == "utf-8" else decode_xtext(value)
    return f"{kind.lower()}; {shown}" if kind and shown else None


def mail_parameters(ret: str | None, envid: str | None) -> bytes:
    """Return the parameters behind the path of MAIL."""
    parameters = b"" if ret is None else b" RET=" + ret.encode("ascii")
    return parameters if envid is None else parameters + b" ENVID=" + encode_xtext(envid)


def rcpt_parameters(notify: str | None, orcpt: str | None = None) -> bytes:
    """Return the parameters behind the path of RCPT."""
    parameters = b"" if notify is None else b" NOTIFY=" + notify.encode("ascii")
    return parameters if orcpt is None else parameters + b" ORCPT=" + orcpt.encode("ascii")
