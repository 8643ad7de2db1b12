"""Why no session could be opened; the only place that knows what aiosmtplib's errors mean."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from aiosmtplib import SMTPException, SMTPReadTimeoutError, SMTPResponseException, SMTPTimeoutError

from relaygw.errors import RelaygwError
from relaygw.mail.outcome import Stage
from relaygw.mail.reply import SmtpReply
from relaygw.upstream.protocol import clean_text

_DSN = {Stage.CONNECT: "4.4.1", Stage.STARTTLS: "4.7.5", Stage.TLS: "4.7.5", Stage.AUTH: "4.7.0"}

_CERTIFICATE = (
    ("hostname mismatch", "set host to the name in the certificate"),
    ("ip address mismatch", "set host to the name in the certificate"),
    ("has expired", "the server needs a new certificate; also check this machine's clock"),
    ("not yet valid", "check this machine's clock"),
    (
        "",
        "if it has its own CA, name that in tls_ca; otherwise something intercepts the connection",
    ),
)
"""Parts of OpenSSL's words for a certificate that is not verified; the first match counts."""

LOOP = "is this gateway itself"
"""In the words of a connection that led back to a listener of the gateway that made it."""
_LOOP_REMEDY = (
    "correct host and port of the provider: they are those of a listener here, and its mail would "
    "come back until it bounces"
)


class UpstreamError(RelaygwError):
    """No session could be opened: `reply` and `detail` are shown, `said` is the reply unmasked.

    `is_foreign`: it was answered, and not as SMTP has it.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        reply: SmtpReply | None = None,
        detail: str,
        relay: str = "none",
        is_foreign: bool = False,
    ) -> None:
        super().__init__(f"{stage}: {detail}")
        self.stage = stage
        self.reply = reply
        self.said = reply
        self.detail = detail
        self.relay = relay
        self.is_foreign = is_foreign

    @property
    def dsn(self) -> str:
        """The enhanced status to report: the reply's, or one that fits the stage."""
        return self.reply.dsn if self.reply is not None else _DSN.get(self.stage, "4.4.2")

    def mask(self, masked: Callable[[str], str]) -> None:
        """Take a secret out of what is shown: some providers echo the AUTH command they refuse."""
        self.detail = masked(self.detail)
        self.args = (f"{self.stage}: {self.detail}",)
        if self.reply is not None:
            self.reply = SmtpReply(self.reply.code, tuple(map(masked, self.reply.lines)))
        # what it was raised from says the same, unmasked
        self.__cause__ = self.__context__ = None


class Unreached(NamedTuple):
    """For how many seconds connecting to a provider has been in vain, and why, where known."""

    seconds: float
    reason: str = ""


def known_remedy(detail: str) -> str | None:
    """Return the remedy for what can only be mended here, None for anything else."""
    if LOOP in detail:
        return _LOOP_REMEDY
    if "cannot be read" in detail or "the environment has no variable" in detail:
        return detail.partition("; ")[2] or None  # a secret's or a file's own
    lowered = detail.lower()
    if "certificate not verified" not in lowered:
        return None
    return next(remedy for part, remedy in _CERTIFICATE if part in lowered)


@contextmanager
def failing_at(
    stage: Stage, *, relay: str, limit_s: float, handshake: Stage | None = None
) -> Iterator[None]:
    """Turn what a step raises into an UpstreamError of `stage`, or of its TLS `handshake`."""
    try:
        yield
    except SMTPException as error:
        is_response = isinstance(error, (SMTPResponseException, SMTPReadTimeoutError))
        is_caused = error.__cause__ is not None and not isinstance(error.__cause__, SMTPException)
        if handshake is not None and is_caused and not is_response:
            stage = handshake
        reply = _reply_of(error)
        detail = f"{relay} said: {reply}" if reply else f"{_text_of(error)} ({relay})"
        if isinstance(error, SMTPTimeoutError):
            detail = f"no answer to {stage} within {limit_s:g} s ({relay})"
        is_foreign = reply is None and isinstance(error, SMTPResponseException)
        raise UpstreamError(
            stage, reply=reply, detail=detail, relay=relay, is_foreign=is_foreign
        ) from error
    except OSError as error:
        detail = f"{_text_of(error)} ({relay})"
        raise UpstreamError(handshake or stage, detail=detail, relay=relay) from error


def _reply_of(error: SMTPException) -> SmtpReply | None:
    """Return the refusal in `error`; other codes are no refusals and stay in the text."""
    if isinstance(error, SMTPResponseException) and 400 <= error.code <= 599:
        return SmtpReply(error.code, tuple(_clean(line) for line in error.message.split("\n")))
    return None


def _text_of(error: BaseException) -> str:
    # aiosmtplib's own words hide the cause behind "Error connecting to ... on port None"
    cause = error.__cause__ if isinstance(error.__cause__, (OSError, SMTPException)) else error
    match cause:
        case ssl.SSLCertVerificationError():
            return f"certificate not verified: {_clean(cause.verify_message)}"
        case SMTPResponseException(code=code, message=message):
            return _clean(f"unexpected reply {code} {message}" if code >= 0 else message)
        case SMTPException(message=message):
            return _clean(message)
        case _:
            return _clean(str(cause) or type(cause).__name__)


def _clean(text: str) -> str:
    return clean_text(text.encode("utf-8", "surrogateescape"))
