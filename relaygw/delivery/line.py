"""A line: one place among a provider's connections, and what is sent on it without a pause.

Where the provider's `chain_transactions` is on, the envelope of the next delivery goes out behind
the content of this one (RFC 2920 section 3.1), which saves a round trip a message. The next
content still waits until the outcome of this one is durable, so that a line never has more than
one message in doubt.
"""

from __future__ import annotations

from collections.abc import Callable

from relaygw.mail.envelope import ClaimedDelivery
from relaygw.upstream.outgoing import OutgoingMail
from relaygw.upstream.pool import Pool
from relaygw.upstream.session import UpstreamSession

TakeNext = Callable[[], ClaimedDelivery | None]
Prepare = Callable[[ClaimedDelivery], OutgoingMail | None]


class Line:
    """Lends out sessions of a pool, and keeps one back while the next mail is begun on it.

    `take_next` gives the delivery that this line will carry next, if any; `prepare` the mail of
    one that can be sent in a single transaction. `lost_step` is called when the provider did not
    answer a chained envelope as it should.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        take_next: TakeNext | None,
        prepare: Prepare,
        lost_step: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._take_next = take_next
        self._prepare = prepare
        self._lost_step = lost_step
        self._kept: UpstreamSession | None = None
        self._following: ClaimedDelivery | None = None

    async def acquire(self, mail: OutgoingMail, *, fresh: bool = False) -> UpstreamSession:
        """Return a session for `mail`, which must be released; raises UpstreamError.

        `fresh`: on a new connection.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            if kept.expects(mail):
                return kept
            kept.abort()
            self._pool.release(kept)
        return await self._pool.acquire(fresh=fresh)

    def release(self, session: UpstreamSession) -> None:
        """Take a session back: to the pool, unless the next mail is begun on it."""
        if session.has_lost_step:
            self._take_next = None
            self._lost_step()
        if session.is_chained:
            self._kept = session
        else:
            self._pool.release(session)

    def next_mail(self, session_uses: int) -> OutgoingMail | None:
        """Choose the delivery that follows; return its mail if it may be begun already."""
        if self._take_next is None or session_uses >= self._pool.max_messages_per_connection:
            return None
        if self._following is None:
            self._following = self._take_next()
        return self._prepare(self._following) if self._following is not None else None

    def take_following(self) -> ClaimedDelivery | None:
        """Return the delivery that was chosen, which has to be delivered or given back."""
        following, self._following = self._following, None
        return following

    def close(self) -> None:
        """Give up what was begun: nothing of its content was sent."""
        if self._kept is not None:
            self._kept.abort()
            self._pool.release(self._kept)
            self._kept = None
