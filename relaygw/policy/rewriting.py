"""How addresses are rewritten at acceptance, in the envelope and in header fields.

Rewriting is Postfix's generic, sender_canonical, virtual_alias and, with `header`,
recipient_canonical. What an address becomes is not looked up again. In headers only the address
itself is replaced; names, comments and folding stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from relaygw.mail.address import canonical, distinct, split
from relaygw.mail.content import header_fields
from relaygw.settings.addresses import EVERY_SENDER, NULL_SENDER, Rewrite

# as Postfix's cleanup
_SENDER_FIELDS = frozenset(
    {"from", "sender", "reply-to", "resent-from", "resent-sender", "resent-reply-to"}
    | {"errors-to", "return-receipt-to", "disposition-notification-to", "mail-followup-to"}
)
_FROM = frozenset(("from",))
_RECIPIENT_FIELDS = frozenset(("to", "cc", "resent-to", "resent-cc", "apparently-to"))
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]"
_NAME = rb"[A-Za-z0-9_.\-]"
_OTHER = rb"[^@\"(A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]"
_QUOTED = rb'"(?:[^"\\]++|\\.?)*+"?+'  # without an end it goes to that of the field
_COMMENT = rb"\((?:[^()\\]++|\\.?)*+"  # up to one within it, or its end
# an addr-spec or, between angle brackets, a bare local part; in front of it words that are none, a
# thousand at most: a search through megabytes would hold the interpreter all the while
_TOKEN = re.compile(
    rb"(?:%(other)b++|%(quoted)b|%(comment)b|(?<=%(atom)b)(?:%(atom)b++@?+|@)|@"
    rb"|(?!(?<=<)%(name)b++>)%(atom)b++(?:(?!@)|@(?!%(name)b))){0,1000}+"
    rb"(%(atom)b++@%(name)b++|(?<=<)%(name)b++(?=>))?"
    % {
        b"other": _OTHER,
        b"quoted": _QUOTED,
        b"comment": _COMMENT,
        b"atom": _ATOM,
        b"name": _NAME,
    },
    re.DOTALL,
)
_BARE = re.compile(rb"(?:[^<>@]*+<|\s*+)(%b++)>?\s*+" % _NAME)


class _Map:
    """Addresses and what they become, compiled once."""

    def __init__(self, entries: Mapping[str, tuple[str, ...]], delimiter: str | None) -> None:
        unique = {key: tuple(distinct(values)) for key, values in entries.items()}
        self._every = unique.pop(EVERY_SENDER, None)
        self.of_null = unique.pop(NULL_SENDER, ("",))[0]
        self._domains = {key[1:].lower(): unique.pop(key) for key in entries if key.startswith("@")}
        self._addresses = {canonical(key): values for key, values in unique.items()}
        self._delimiter = delimiter
        self.has_entries = bool(self._every or self._domains or self._addresses)

    def get(self, address: str, default_domain: str | None = None) -> tuple[str, ...]:
        """Return the addresses to use; one without a domain may get the default one first.

        The order is Postfix's: the address, without its extension, `@domain`; "*" is the last. Of
        relaygw's own `user@*` comes before `@domain`.
        """
        found = self._find(address) if self.has_entries else None
        if found is None and default_domain and split(address)[1] is None:
            address = f"{address}@{default_domain}"
            found = self._find(address)
        found = self._every if found is None else found
        if found is None:
            return (address,)
        local = split(address)[0]
        return tuple([f"{local}{target}" if target.startswith("@") else target for target in found])

    def _find(self, address: str) -> tuple[str, ...] | None:
        found = self._addresses.get(canonical(address))
        if found is not None:
            return found
        local, domain = split(address)
        user, sign, rest = "", "", ""
        if self._delimiter and not local.startswith('"'):
            user, sign, rest = local.partition(self._delimiter)
        if user and sign:
            found = self._addresses.get(canonical(user + address[len(local) :]))
            if found is not None:  # it is kept, by Postfix's propagate_unmatched_extensions
                return tuple([f"{sign}{rest}@".join(target.rsplit("@", 1)) for target in found])
        if not domain:
            return None
        found = self._addresses.get(canonical(f"{local}@*"))
        return self._domains.get(domain.lower()) if found is None else found


class Rewriter:
    """The `rewrite:` section, compiled once."""

    def __init__(self, rewrite: Rewrite, hostname: str) -> None:
        senders = {key: (value,) for key, value in rewrite.senders.items()}
        self._senders = _Map(senders, rewrite.recipient_delimiter)
        self._recipients = _Map(rewrite.recipients, rewrite.recipient_delimiter)
        self._default_domain = rewrite.default_domain
        self._hostname = hostname
        in_header = (
            ("senders", _SENDER_FIELDS, self._senders),
            ("recipients", _RECIPIENT_FIELDS, self._recipients),
        )
        self._in_header = [
            (fields, mapping)
            for name, fields, mapping in in_header
            if name in rewrite.header and mapping.has_entries
        ]
        self._whole = self._senders if "senders" in rewrite.header else _Map({}, None)

    def sender(self, address: str) -> str:
        """Return the envelope sender to use; the null sender has an entry of its own, or stays."""
        if not address:
            return self._senders.of_null
        return self._senders.get(address, self._default_domain or self._hostname)[0]

    def recipients(self, address: str) -> tuple[str, ...]:
        """Return whom to send to, each once; without a domain and without a rule it stays bare."""
        return self._recipients.get(address, self._default_domain)

    def headers(self, block: bytes) -> bytes:
        """Return a header block with the addresses in From and its like rewritten, as is wished.

        A recipient that becomes several addresses stays as it was.
        """
        for fields, mapping in self._in_header:
            block = _replace(block, fields, mapping)
        return block

    def whole_from(self, block: bytes) -> bytes:
        """Return a header block whose From is a whole address, as the envelope's sender is."""
        for found in header_fields(block, names=_FROM):
            bare = _BARE.fullmatch(block, found.value_start, found.value_end)
            if bare is not None:
                given, domain = bare[1].decode("ascii"), self._default_domain or self._hostname
                whole = self._whole.get(given, domain)[0].encode()
                return block[: bare.start(1)] + whole + block[bare.end(1) :]
        return block


def _replace(block: bytes, fields: frozenset[str], mapping: _Map) -> bytes:
    written, at = bytearray(), 0  # a list of all tokens would take thirty times their size
    for field in header_fields(block, names=fields):
        for token in _TOKEN.finditer(block[field.value_start : field.value_end]):
            if token[1] is None:
                continue
            address = token[1].decode("ascii")
            others = mapping.get(address)
            if others != (address,) and len(others) == 1:
                written += block[at : field.value_start + token.start(1)] + others[0].encode()
                at = field.value_start + token.end(1)
    return bytes(written + block[at:]) if at else block
