"""Which class of mail a message is, and which of them this front knows.

Memory is bounded whatever clients send: so many classes in all, so many of a source; what is more
is counted as one.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from relaygw.mail.envelope import Source
from relaygw.mail.hold import sender_domain
from relaygw.mail.mail_class import (
    LOCAL_HOST,
    OTHER_SCRIPTS,
    MailClass,
    MailSource,
    elsewhere,
    others_of,
    short_text,
    shown_source,
    source_id,
)
from relaygw.mail.subject_template import subject_template
from relaygw.mail.words import printable
from relaygw.store.sources import MAX_CLASSES, MAX_CLASSES_OF_SOURCE

MAX_NEW_SCRIPTS = 30  # an hour, of a host, login and uid
MAX_NEW_NAMED = 10  # hosts with login and uid an hour, that one client names
_NEW_WITHIN_S = 3600.0
_Key = tuple[str, str, str, int | None, str, str, str, str]  # source, domain, template, stream


class Known:
    """What the queue knows of classes: their ids, and how many each source has."""

    def __init__(self, ids: Sequence[tuple[str, str]] = ()) -> None:
        """`ids`: of each class, with that of its source."""
        self.apart = {class_id for class_id, _ in ids}
        self.of_source = Counter(source_id for _, source_id in ids)


class MailClasses:
    """Which class a message belongs to, as the queue knows them; a new one needs room.

    What is known keeps its place however many subjects a flood has.
    """

    def __init__(self) -> None:
        self._found: dict[_Key, MailClass] = {}  # so that no hash is made of each mail
        self._apart: set[str] = set()  # ids of classes that are counted apart
        self._of_source: Counter[str] = Counter()  # how many these are, by id of the source
        self._folded: set[str] = set()  # ids of those that the queue had no room for
        self._new_scripts: Counter[MailSource] = Counter()  # of this hour, by the rest of a source
        self._new_named: defaultdict[str, set[tuple[object, ...]]] = defaultdict(set)
        self._hour = 0

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._found)

    def of(self, source: Source, sender: str, subject: str, stream: str) -> MailClass:
        """Return the class of a message; costs a few microseconds."""
        key = (
            source.host or source.client or LOCAL_HOST,
            source.listener or "",
            source.user or "",
            source.uid,
            source.script or "",
            sender_domain(sender),
            subject_template(subject),
            stream,
        )
        return self._found.get(key) or self._find(key, source)

    def follow(self, known: Known) -> None:
        """Take what the queue knows now, which others counted, and which it has forgotten."""
        self._apart, self._of_source = known.apart, known.of_source
        self._folded.clear()
        self._found.clear()

    def fold(self, class_ids: Collection[str]) -> None:
        """Count these with the others of their source: the queue has no room for them."""
        self._folded.update(class_ids)
        for key, mail_class in self._found.items() if class_ids else ():
            if mail_class.class_id in class_ids:
                self._found[key] = others_of(mail_class.source, mail_class.stream)

    def _find(self, key: _Key, source: Source) -> MailClass:
        *_, domain, template, stream = key
        named_by = short_text(source.client or LOCAL_HOST) if source.host else None
        found = MailClass.of(
            self._source_of(shown_source(key[:5]), named_by),
            sender_domain=short_text(domain),
            template=printable(template),
            stream=stream,
        )
        if found.class_id not in self._apart and not self._take_place(found):
            is_known = self._of_source[found.source_id] > 0
            # not remembered: there is no end of these
            return others_of(found.source, stream) if is_known else elsewhere(stream)
        if len(self._found) >= MAX_CLASSES:
            self._found.clear()
        self._found[key] = found
        return found

    def _source_of(self, source: MailSource, named_by: str | None) -> MailSource:
        """Return a source, of too many new scripts or named hosts one for all: anybody names any.

        `named_by`: the client that names its host.
        """
        if self._of_source[source_id(source)] or (not source[4] and named_by is None):
            return source
        hour = int(time.monotonic() / _NEW_WITHIN_S)
        if hour != self._hour:
            self._hour, self._new_scripts, self._new_named = hour, Counter(), defaultdict(set)
        if named_by is not None:
            named = self._new_named[named_by]
            if source[:4] not in named and len(named) >= MAX_NEW_NAMED:
                return (named_by, source[1], "", None, OTHER_SCRIPTS)
            named.add(source[:4])
        if not source[4]:
            return source
        other: MailSource = (*source[:4], OTHER_SCRIPTS)
        self._new_scripts[other] += 1
        return source if self._new_scripts[other] <= MAX_NEW_SCRIPTS else other

    def _take_place(self, new: MailClass) -> bool:
        is_full = self._of_source[new.source_id] >= MAX_CLASSES_OF_SOURCE
        if is_full or len(self._apart) >= MAX_CLASSES or new.class_id in self._folded:
            return False
        self._apart.add(new.class_id)
        self._of_source[new.source_id] += 1
        return True
