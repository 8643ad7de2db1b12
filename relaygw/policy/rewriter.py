"""Address rewriting at acceptance: Postfix's generic, sender_canonical, recipient_canonical.

In headers only the address itself is replaced; names, comments and folding stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from relaygw.mail.address import canonical, split
from relaygw.mail.content import header_fields
from relaygw.settings.model import Rewrite

_SENDER_FIELDS = frozenset(("from", "sender", "reply-to"))
_FROM = frozenset(("from",))
_RECIPIENT_FIELDS = frozenset(("to", "cc"))
# an addr-spec or, between angle brackets, a bare local part
_TOKEN = re.compile(
    rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]+@[A-Za-z0-9_.\-]+|(?<=<)[A-Za-z0-9_.\-]+(?=>)"
)

_BARE = re.compile(rb"(\s*(?:[^<>@]*<)?)([A-Za-z0-9_.\-]+)(>?\s*)")


class _Map:
    def __init__(self, entries: Mapping[str, str]) -> None:
        self._addresses = {
            canonical(key): value for key, value in entries.items() if not key.startswith("@")
        }
        self._domains = {
            key[1:].lower(): value for key, value in entries.items() if key.startswith("@")
        }
        self.has_entries = bool(entries)

    def get(self, address: str) -> str | None:
        found = self._addresses.get(canonical(address))
        if found is None:
            _, domain = split(address)
            found = self._domains.get(domain.lower()) if domain else None
        return found

    def rewritten(self, address: str, default_domain: str | None) -> str:
        """Return the address to use; one without a domain may get the default one first."""
        found = self.get(address) if self.has_entries else None
        if found is not None:
            return found
        if not default_domain or split(address)[1] is not None:
            return address
        qualified = f"{address}@{default_domain}"
        return self.get(qualified) or qualified


class Rewriter:
    """The `rewrite:` section, compiled once."""

    def __init__(self, rewrite: Rewrite, hostname: str) -> None:
        self._senders = _Map(rewrite.senders)
        self._recipients = _Map(rewrite.recipients)
        self._default_domain = rewrite.default_domain
        self._hostname = hostname

    def sender(self, address: str) -> str:
        """Return the envelope sender to use; the null sender stays."""
        domain = self._default_domain or self._hostname
        return self._senders.rewritten(address, domain) if address else address

    def recipient(self, address: str) -> str:
        """Return the recipient to use; one without a domain and without a rule stays bare."""
        return self._recipients.rewritten(address, self._default_domain)

    def headers(self, block: bytes) -> bytes:
        """Return a header block with the addresses in From, To and their like rewritten."""
        if self._senders.has_entries:
            block = _replace(block, _SENDER_FIELDS, self._senders)
        if self._recipients.has_entries:
            block = _replace(block, _RECIPIENT_FIELDS, self._recipients)
        return block

    def whole_from(self, block: bytes) -> bytes:
        """Return a header block whose From is a whole address, as the envelope's sender is."""
        for found in header_fields(block, names=_FROM):
            bare = _BARE.fullmatch(block, found.value_start, found.value_end)
            if bare is not None:
                whole = self.sender(bare[2].decode("ascii")).encode()
                return block[: bare.start(2)] + whole + block[bare.end(2) :]
        return block


def _replace(block: bytes, fields: frozenset[str], mapping: _Map) -> bytes:
    def one(token: re.Match[bytes]) -> bytes:
        try:
            found = mapping.get(token[0].decode("ascii"))
        except ValueError:
            return token[0]
        return token[0] if found is None else found.encode()

    parts = []
    start = 0
    for found in header_fields(block, names=fields):
        parts += [
            block[start : found.value_start],
            _TOKEN.sub(one, block[found.value_start : found.value_end]),
        ]
        start = found.value_end
    return b"".join([*parts, block[start:]])
