"""The headers of the copies of mail that a Postfix's `always_bcc` puts into a Maildir."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from relaygw.mail.content import read_header

_PLACES = ("new", "cur")
_RECIPIENT_OF_COPY = ("delivered-to", "x-original-to")  # added by local(8) and virtual(8)
_MAX_HEADER_BYTES = 2**18
_MAX_KNOWN = 100_000
_LINE_END = re.compile(rb"\r?\n")


class Copies:
    """What copies tell of mail; new ones are looked for when a mail is not known."""

    def __init__(self, directory: Path, fields: frozenset[str]) -> None:
        """Read what is there of `fields` (lower case); raises OSError where it is not a Maildir."""
        self.addresses: set[str] = set()
        """Who gets the copies: his mail is none of the shop's."""
        self._places = [directory / name for name in _PLACES]
        self._fields = fields
        self._seen: set[str] = set()
        self._known: OrderedDict[str, Mapping[str, str] | None] = OrderedDict()
        self._look()

    def header_of(self, message_id: str | None) -> Mapping[str, str] | None:
        """Return the values of the fields by lower-case name; None: there is no copy.

        Nor is there one where copies of the same Message-ID differ in them.
        """
        if message_id is None:
            return None
        if message_id not in self._known:
            self._look()
        return self._known.get(message_id)

    def _look(self) -> None:
        for place in self._places:
            for file in place.iterdir():
                name = file.name.partition(":")[0]  # without the flags, which change
                if name not in self._seen:
                    self._seen.add(name)
                    self._read(file)

    def _read(self, file: Path) -> None:
        try:
            with file.open("rb") as copy:
                head = _LINE_END.sub(b"\r\n", copy.read(_MAX_HEADER_BYTES))
        except FileNotFoundError:  # its reader has moved it
            self._seen.discard(file.name.partition(":")[0])
            return
        facts = read_header(head, self._fields.union(_RECIPIENT_OF_COPY))
        values = facts.values
        self.addresses |= {values[one].lower() for one in _RECIPIENT_OF_COPY if one in values}
        told = {one: values[one] for one in self._fields & values.keys()}
        is_same = self._known.setdefault(facts.message_id, told) == told
        self._known[facts.message_id] = told if is_same else None
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
