"""Classes of mail: what is alike comes from one source, with one template of its subject."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from relaygw.mail.words import printable

OTHER_SUBJECTS = "(other subjects)"
"""The template of all mail of a source that has too many."""
OTHER_SENDERS = "(other senders)"
"""The sender's domain of these."""
OTHER_SCRIPTS = "(other scripts)"
"""The script of all mail of a host, login and uid that has too many new ones within an hour."""
OTHER_SOURCES = "(other sources)"
"""The host of all mail from more sources than are counted apart."""
MailSource = tuple[str, str, str, int | None, str]  # host, listener, user, uid, script
LOCAL_HOST = "local"  # where the sendmail command of a gateway's own host leaves mail
_MAX_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class MailClass:
    """A source (the first five), and what is alike in its mail. All texts are short."""

    host: str  # where a trusted relaygw took it, else the client's address, else LOCAL_HOST
    listener: str  # its port, as ":25"; "" is none, as with the next ones
    user: str
    uid: int | None
    script: str
    sender_domain: str  # of the envelope; "" of the null sender
    template: str  # see mail.content
    stream: str
    source_id: str
    class_id: str

    @classmethod
    def of(
        cls,
        source: MailSource,
        *,
        sender_domain: str,
        template: str,
        stream: str,
    ) -> MailClass:
        """Return a class with its ids, which are the same wherever it is made."""
        host, listener, user, uid, script = source
        return cls(
            host=host,
            listener=listener,
            user=user,
            uid=uid,
            script=script,
            sender_domain=sender_domain,
            template=template,
            stream=stream,
            source_id=source_id(source),
            class_id=_id(*source, sender_domain, template, stream),
        )

    @property
    def source(self) -> MailSource:
        """What makes its source."""
        return self.host, self.listener, self.user, self.uid, self.script


def shown_source(source: MailSource) -> MailSource:
    """Return a source as classes name it: short, and the same at all gateways of a queue."""
    host, listener, user, uid, script = source
    port = listener[listener.rfind(":") :]  # they listen on different addresses
    return short_text(host), port, short_text(user), uid, short_text(script)


def short_text(text: str) -> str:
    """Return a text shortened to be stored and shown."""
    return printable(text[:_MAX_TEXT])


@lru_cache(maxsize=1024)
def source_id(source: MailSource) -> str:
    """Return the id of a source as classes name it."""
    return _id(*source)


def sender_words(mail_class: MailClass) -> str:
    """Return who sends a class of mail, in a few words."""
    who = [
        mail_class.host,
        *([f"user {mail_class.user}"] if mail_class.user else []),
        *([f"uid {mail_class.uid}"] if mail_class.uid is not None else []),
        *([mail_class.script] if mail_class.script else []),
    ]
    return " ".join(who)


@lru_cache(maxsize=1024)
def others_of(source: MailSource, stream: str) -> MailClass:
    """Return the class of all mail of a source and stream that is not counted apart."""
    return MailClass.of(source, sender_domain=OTHER_SENDERS, template=OTHER_SUBJECTS, stream=stream)


def elsewhere(stream: str) -> MailClass:
    """Return the class of all mail of sources that are not counted apart."""
    return others_of((OTHER_SOURCES, "", "", None, ""), stream)


def _id(*parts: object) -> str:
    """16 hex digits; lengths go with the texts, so that no two lists of parts are alike."""
    text = "".join(f"{len(str(part))}:{part}" for part in parts)
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


@dataclass(slots=True)
class ClassCount:
    """What was accepted of a class within an hour, as a front counts it."""

    mail_class: MailClass
    first_ms: int
    last_ms: int = 0
    messages: int = 0
    recipients: int = 0
    refused: int = 0
    gap_ms: int = 0  # the longest between two of these

    def add(self, at_ms: int, recipients: int, refused: int) -> None:
        """Count a message."""
        after_ms = at_ms - self.last_ms
        if after_ms > self.gap_ms and self.messages:
            self.gap_ms = after_ms
        if after_ms > 0:
            self.last_ms = at_ms
        self.messages += 1
        self.recipients += recipients
        self.refused += refused

    def join(self, other: ClassCount) -> None:
        """Add another count of the same hour, whose class is counted with this one's."""
        early, late = sorted((self, other), key=lambda count: count.first_ms)
        between_ms = max(0, late.first_ms - early.last_ms)
        self.gap_ms = max(self.gap_ms, other.gap_ms, between_ms)
        self.first_ms = early.first_ms
        self.last_ms = max(self.last_ms, other.last_ms)
        self.messages += other.messages
        self.recipients += other.recipients
        self.refused += other.refused
