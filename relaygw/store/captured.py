"""Captured mail as the web pages, the API and the command line see it: part of the store.

What the content of a message says is written beside it once somebody has read it (`index`); a
search finds only messages whose content was read, a list without conditions all of them. That
the content was read, that somebody opened a message, and sessions are not synced by themselves:
a power cut may forget the last ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.search import MailSearch

if TYPE_CHECKING:  # protocol.Store inherits from here
    from relaygw.store.protocol import AuditEntry, QueueEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedEntry:
    """A captured message; `facts` is None as long as nobody has read its content."""

    entry: QueueEntry
    facts: ContentFacts | None
    tags: tuple[str, ...] = ()  # in the order of the alphabet


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSession:
    """A login of the web pages; the token itself is with the browser only."""

    token_hash: str
    user_name: str
    created_at_ms: int
    seen_at_ms: int
    expires_at_ms: int


class CapturedMail(Protocol):
    """The sandbox in a database; `protocol.Store` says what holds for all methods."""

    # --- content -------------------------------------------------------------------------

    def unindexed(self, *, limit: int) -> list[QueueEntry]:
        """Return captured messages whose content was not read yet, oldest first."""

    def index(self, facts: Mapping[str, ContentFacts]) -> None:
        """Keep what the content of messages says, by queue id.

        Of no effect for a message that has it already, or that is not captured (any more).
        """

    # --- lists and searches --------------------------------------------------------------

    def find_captured(self, search: MailSearch, *, start: int, limit: int) -> list[CapturedEntry]:
        """Return matching messages, newest first, without the first `start`."""

    def count_captured(self, search: MailSearch) -> tuple[int, int]:
        """Return how many messages match, and how many of them are unread."""

    def captured_ids(self, search: MailSearch, *, limit: int, after: str = "") -> list[str]:
        """Return ids of matching messages in the order of acceptance, those after id `after`."""

    def captured_entry(self, queue_id: str | None) -> CapturedEntry | None:
        """Return a captured message, for None the newest one; None if there is none."""

    # --- changes -------------------------------------------------------------------------

    def mark_read(self, queue_ids: Sequence[str] | None, *, at_ms: int | None) -> int:
        """Mark captured messages (None: all there are now) as opened at a time, or unread.

        Returns how many changed. One that was opened before keeps its time. Many are marked in
        several transactions.
        """

    def delete_captured(self, queue_ids: Sequence[str] | None, *, entry: AuditEntry) -> int:
        """Delete captured mail (None: all of it) with its tags; audited; return how many.

        One that still waits to be sent to somebody only leaves the sandbox.
        """

    # --- tags ----------------------------------------------------------------------------

    def tags(self) -> dict[str, int]:
        """Return the tags in use, in the order of the alphabet, with their messages' number."""

    def set_tags(self, queue_ids: Sequence[str], tags: Sequence[str]) -> None:
        """Give captured messages exactly these tags.

        Tags that differ in case only are one: the spelling that is in use stays.
        """

    def rename_tag(self, old: str, new: str) -> int:
        """Rename a tag everywhere, into one in use too; return how many messages had it."""

    def delete_tag(self, tag: str) -> int:
        """Take a tag off all messages; return how many had it."""

    # --- sessions ------------------------------------------------------------------------

    def put_session(self, session: WebSession) -> None:
        """Write a login, or when it was last seen and when it expires."""

    def session(self, token_hash: str) -> WebSession | None:
        """Return a login, None when there is none; it may have expired."""

    def drop_session(self, token_hash: str) -> None:
        """End a login."""

    def drop_sessions_of(self, user_name: str) -> int:
        """End all logins of a user; return how many."""
