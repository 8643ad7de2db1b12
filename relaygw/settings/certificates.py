"""Certificates of listeners: whether they can be used, what clients think of them, and their end.

A handshake in memory, which trusts that certificate alone, judges as a client does. The end is read
from the PEM file (RFC 7468, RFC 5280 section 4.1): the standard library tells it only of one that
it has verified, so not of one that has expired.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from relaygw.errors import SettingsError
from relaygw.settings.listeners import ListenerTls
from relaygw.settings.model import Settings
from relaygw.settings.secrets import loose_permissions
from relaygw.settings.tree import Keys, Tree

WARN_DAYS = 21
_MAX_BYTES = 2**20
_X509_HAS_EXPIRED = 10  # OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED
_X509_NOT_YET_VALID = 9
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.S)
_VERSION = 0xA0
_UTC_TIME = 0x17
_LONG_LENGTH = 0x80


def server_context(tls: ListenerTls) -> ssl.SSLContext:
    """Return the context of a listener's handshakes: TLS 1.2 or later; raises SettingsError."""
    assert tls.cert is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    for path in dict.fromkeys((tls.cert, tls.key or tls.cert)):
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be read ({error.strerror}); write the path of a PEM file that the "
                "gateway may read"
            ) from error
    try:
        context.load_cert_chain(tls.cert, tls.key, password=_refuse_password)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(_unusable(tls, error)) from error
    return context


def _refuse_password() -> bytes:
    raise ValueError("encrypted")  # a service has nobody to ask


def _unusable(tls: ListenerTls, error: Exception) -> str:
    key = tls.key or tls.cert
    if str(error) == "encrypted":
        return f"{key} is encrypted; store the key without a passphrase, mode 0600"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"{key} is not the key of {tls.cert}; write a matching pair"
    return f"{tls.cert} with the key in {key} cannot be used; both must be PEM files"


def broken_certificates(settings: Settings, tree: Tree, *, owners: Collection[int]) -> list[str]:
    """Return a line for each listener whose certificate is of no use, or whose key is loose.

    Files that this user may not read have nothing wrong: the gateway runs as another one.
    """
    problems = []
    for number, listener in enumerate(settings.listeners):
        tls = listener.tls
        if tls.mode == "off" or tls.cert is None:
            continue
        problem = loose_permissions(Path(tls.key or tls.cert), owners=owners)
        try:
            server_context(tls)
        except SettingsError as error:
            if not isinstance(error.__cause__, PermissionError):
                problem = str(error)
        if problem:
            problems.append(tree.line_for(("listeners", number, "tls"), problem))
    return problems


def unusable_certificates(settings: Settings) -> Iterator[str]:
    """Yield why this user cannot use the certificate or key of a listener."""
    for number, listener in enumerate(settings.listeners):
        if listener.tls.mode != "off":
            try:
                server_context(listener.tls)
            except SettingsError as error:
                yield f"listeners.{number}.tls: {error}"


def certificate_files(settings: Settings) -> dict[Keys, str]:
    """Return the files of certificates and their keys by where the user wrote them."""
    files: dict[Keys, str | None] = {}
    for number, listener in enumerate(settings.listeners):
        for key in ("cert", "key"):
            files["listeners", number, "tls", key] = getattr(listener.tls, key)
    for name, provider in settings.providers.items():
        files["providers", name, "tls_ca"] = provider.tls_ca
        files["providers", name, "oauth", "certificate"] = getattr(
            provider.oauth, "certificate", None
        )
    return {keys: file for keys, file in files.items() if file is not None}


def doubtful_certificates(settings: Settings) -> Iterator[str]:
    """Yield what clients would not like about the certificates of `settings`."""
    for number, listener in enumerate(settings.listeners):
        if listener.tls.mode == "off":
            continue
        try:
            doubts = list(_doubts(server_context(listener.tls), settings.hostname, listener.tls))
        except SettingsError as error:
            doubts = [str(error)]
        for doubt in doubts:
            yield f"listeners.{number}.tls: {doubt}"


def _doubts(server: ssl.SSLContext, hostname: str, tls: ListenerTls) -> Iterator[str]:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is its own anchor
    client.load_verify_locations(tls.cert)
    try:
        certificate = _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        reasons = {_X509_HAS_EXPIRED: "has expired", _X509_NOT_YET_VALID: "is not valid yet"}
        words = reasons.get(error.verify_code, f"is not accepted: {error.verify_message}")
        yield f"the certificate {words}; clients that verify it cannot send: renew {tls.cert}"
        return
    left_days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400
    if left_days < WARN_DAYS:
        yield f"the certificate expires in {left_days:.0f} days; renew {tls.cert}"
    entries = certificate.get("subjectAltName", ())
    assert isinstance(entries, tuple)
    names = [value for kind, value in entries if kind in ("DNS", "IP Address")]
    if not any(_covers(name, hostname) for name in names):
        yield (
            f"the certificate is for {', '.join(names) or 'no name'}, not for {hostname}; clients "
            "that verify it must connect by a name in it"
        )


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, object]:
    """Return the server's certificate as the client has verified it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sslobject = client.wrap_bio(down, up)
    other = server.wrap_bio(up, down, server_side=True)
    while True:
        is_done = True
        for end in (sslobject, other):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                is_done = False
        if is_done:
            return dict(sslobject.getpeercert() or {})


def _covers(name: str, hostname: str) -> bool:
    name, hostname = name.lower(), hostname.lower()
    if name.startswith("*."):
        return hostname.partition(".")[2] == name[2:]
    return name == hostname


def certificate_end(path: Path) -> datetime:
    """Return when the first certificate of a file ends; raises OSError, ValueError."""
    with path.open("rb") as file:
        found = _PEM.search(file.read(_MAX_BYTES).decode("ascii", errors="replace"))
    if found is None:
        raise ValueError(f"{path} holds no PEM certificate")
    try:
        return _end(ssl.PEM_cert_to_DER_cert(found[0]))
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path} holds an unreadable certificate") from error


def _end(der: bytes) -> datetime:
    (_, certificate), *_ = _elements(der)
    (_, signed), *_ = _elements(certificate)
    fields = [content for tag, content in _elements(signed) if tag != _VERSION]
    _serial, _algorithm, _issuer, validity, *_ = fields
    _, (tag, end) = _elements(validity)
    text = end.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 50 and above are of the last century
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element, one after the other (X.690 section 8.1)."""
    position = 0
    while position < len(der):
        tag, length = der[position], der[position + 1]
        position += 2
        if length & _LONG_LENGTH:
            size = length - _LONG_LENGTH
            length = int.from_bytes(der[position : position + size])
            position += size
        yield tag, der[position : position + length]
        position += length
