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
    seen: set[bytes] = set()
    for word in raw.upper().split():
        name, equals, value = word.partition(b"=")
        problem = _problem(name, equals, value)
        if name in seen:  # RFC 5321 section 4.1.1.11: each at most once
            problem = replies.BAD_PARAMETER
        if problem is not None:
            return MailParameters(problem=problem.format(name=shown_name(name)))
        seen.add(name)
        if name == b"SIZE":
            size_bytes = int(value[:30])
    return MailParameters(size_bytes, b"SMTPUTF8" in seen)


def _problem(name: bytes, equals: bytes, value: bytes) -> str | None:
    """Return the reply to give to a parameter that is not acceptable."""
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


def shown_name(raw: bytes) -> str:
    """Return what of a parameter's name may be shown in a reply."""
    shown = raw[:40].decode("ascii", "ignore")
    return "".join(c for c in shown if c.isalnum() or c == "-") or "?"
