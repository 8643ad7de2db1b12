"""Classes of mail: what is alike comes from one source, with one template of its subject."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

OTHER_SUBJECTS = "(other subjects)"
"""The template of all mail of a source that has too many."""
OTHER_SENDERS = "(other senders)"
"""The sender's domain of these."""
OTHER_SOURCES = "(other sources)"
"""The host of all mail from more sources than are counted apart."""
MailSource = tuple[str, str, str, int | None, str]  # host, listener, user, uid, script
LOCAL_HOST = "local"  # where the sendmail command of a gateway's own host leaves mail


@dataclass(frozen=True, slots=True, kw_only=True)
class MailClass:
    """A source (the first five), and what is alike in its mail. All texts are short."""

    host: str  # where a trusted relaygw took it, else the client's address, else LOCAL_HOST
    listener: str  # its port, as ":25"; "" is none, as with the next ones
    user: str
    uid: int | None
    script: str
    sender_domain: str  # of the envelope; "" of the null sender
    template: str  # see policy.template
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
            source_id=_id(*source),
            class_id=_id(*source, sender_domain, template, stream),
        )

    @property
    def source(self) -> MailSource:
        """What makes its source."""
        return self.host, self.listener, self.user, self.uid, self.script


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
