"""What a connection's TLS is worth, in words: version, certificate, and how long it lasts."""

from __future__ import annotations

import ssl
import time
from typing import NamedTuple

from relaygw.settings.provider import Provider, TlsPolicy

_SOON_DAYS = 14


class TlsWords(NamedTuple):
    """What was found; `remedy` is there where something should be done."""

    detail: str
    remedy: str = ""


def tls_words(tls: ssl.SSLObject | None, provider: Provider) -> TlsWords:
    """Describe the TLS of an open connection to `provider`; None: there is none."""
    if tls is None:
        if provider.tls is TlsPolicy.NONE:
            return TlsWords("none, as tls: none says")
        return TlsWords("not offered, mail goes in clear", "tls: required would refuse that")
    version = tls.version() or "TLS"
    certificate = tls.getpeercert()
    if not certificate:  # not verified, so Python does not read it
        return TlsWords(
            f"{version}, certificate not verified", "write tls: required, so that it is"
        )
    ends_at_s = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    day = time.strftime("%Y-%m-%d", time.gmtime(ends_at_s))
    days_left = int((ends_at_s - time.time()) // 86400)
    words = f"{version}, certificate verified, until {day}"
    if days_left < _SOON_DAYS:
        left = "1 day" if days_left == 1 else f"{days_left} days"
        return TlsWords(f"{words}, {left} left", "who runs the server has to renew it in time")
    return TlsWords(words)
