"""What to do about a session that cannot be opened: remedies in plain words, pure.

A reply is explained by the catalogue; here stands what no reply says.
"""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.mail.outcome import SmtpReply, Stage
from relaygw.settings.provider import Provider, TlsPolicy
from relaygw.upstream.classifier import Classifier
from relaygw.upstream.failure import UpstreamError

_CERTIFICATE = (
    ("hostname mismatch", "write as host the name that the certificate is for"),
    ("ip address mismatch", "write as host the name that the certificate is for"),
    ("has expired", "the server needs a new certificate; check this machine's clock, too"),
    ("not yet valid", "check this machine's clock"),
    ("", "if it has a CA of its own, name that in tls_ca; else something reads along on the way"),
)
"""Parts of OpenSSL's words for a certificate that is not verified; the first match counts."""
USUAL_PORTS = (587, 2525, 465, 25, 2587, 2465, 8025, 8465, 443)
"""The ports on which mail services take submissions, the likeliest first."""
IMPLICIT_TLS_PORTS = (465, 2465, 8465, 443)
"""Those with TLS from the first byte; the others begin in clear."""
FOR_UNKNOWN_NAME = "check the spelling of host, and this machine's DNS"


def advise(error: UpstreamError, provider: Provider, *, ehlo_name: str) -> str:
    """Return what to do about `error`, "" where its own text says so."""
    said = _of_reply(provider, error.stage, error.said) if error.said is not None else ""
    return said or _of_stage(error, provider, ehlo_name)


def certificate_remedy(detail: str) -> str | None:
    """Return what to do about a certificate that is not verified; None: `detail` tells of none."""
    lowered = detail.lower()
    if "certificate not verified" not in lowered:
        return None
    return next(remedy for part, remedy in _CERTIFICATE if part in lowered)


def advise_port(provider: Provider, open_ports: Sequence[int]) -> str:
    """Return what to do when the provider's port is shut and these others are open."""
    if not open_ports:
        return (
            "no other usual port works either; check host and port, and have the firewall let "
            f"port {provider.port} out"
        )
    is_protected = provider.tls in (TlsPolicy.REQUIRED, TlsPolicy.IMPLICIT)
    port = open_ports[0]
    tls = TlsPolicy.IMPLICIT if port in IMPLICIT_TLS_PORTS else TlsPolicy.REQUIRED
    and_tls = f" and tls: {tls}" if is_protected and tls is not provider.tls else ""
    works = " ".join(map(str, open_ports))
    return f"ports that work here: {works}; write port: {port}{and_tls}"


def advise_sender(provider: Provider, reply: SmtpReply) -> str:
    """Return what to do about a refused MAIL FROM."""
    said = _of_reply(provider, Stage.MAIL, reply)
    return said or "have the address or its domain verified at the provider"


def _of_reply(provider: Provider, stage: Stage, reply: SmtpReply) -> str:
    meaning = Classifier(provider).meaning(stage, reply)
    return " ".join(text for text in (meaning.explanation, meaning.remedy) if text)


def _of_stage(error: UpstreamError, provider: Provider, ehlo_name: str) -> str:
    match error.stage:
        case Stage.EHLO:
            return f"the provider was greeted as {ehlo_name}: see hostname"
        case Stage.STARTTLS:
            return "check host and port; a firewall may take STARTTLS out (Cisco: no fixup smtp)"
        case Stage.TLS if (remedy := certificate_remedy(error.detail)) is not None:
            return remedy
        case Stage.TLS if provider.tls is TlsPolicy.IMPLICIT:
            return f"port {provider.port} may not speak TLS at once: try tls: required"
        case Stage.TLS:
            return "the server may know nothing newer than TLS 1.1, which is not used"
        case Stage.AUTH if "to be used here" in error.detail:
            return "write as auth what the provider offers"
        case Stage.AUTH if error.reply is not None:
            return "check username and password"
        case _:
            return ""
