"""Parameters of MAIL: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), AUTH (RFC 4954)."""

from __future__ import annotations

from dataclasses import dataclass

from relaygw.inbound import replies


@dataclass(frozen=True, slots=True)
class MailParameters:
    """What the client said; `problem` is the reply to give when it is not acceptable."""

    size_bytes: int = 0
    smtputf8: bool = False
    problem: str | None = None


NONE = MailParameters()


def parse_mail_parameters(raw: bytes) -> MailParameters:
    """Read the parameters behind the path of a MAIL command."""
    if not raw:
        return NONE
    size_bytes = 0
    smtputf8 = False
    for word in raw.split():
        name, _, value = word.upper().partition(b"=")
        if name == b"SIZE":
            if not value.isdigit():
                return _bad("SIZE")
            size_bytes = int(value[:30])
        elif name == b"BODY":
            if value == b"BINARYMIME":  # needs CHUNKING, which is not offered
                return MailParameters(problem=replies.UNKNOWN_PARAMETER.format(name="BODY"))
            if value not in (b"7BIT", b"8BITMIME"):
                return _bad("BODY")
        elif name == b"SMTPUTF8" and not value:
            smtputf8 = True
        elif name != b"AUTH" or not value:
            return MailParameters(problem=replies.UNKNOWN_PARAMETER.format(name=shown_name(name)))
    return MailParameters(size_bytes, smtputf8)


def shown_name(raw: bytes) -> str:
    """Return what of a parameter's name may be shown in a reply."""
    shown = raw[:40].decode("ascii", "ignore")
    return "".join(c for c in shown if c.isalnum() or c == "-") or "?"


def _bad(name: str) -> MailParameters:
    return MailParameters(problem=replies.BAD_PARAMETER.format(name=name))
