"""Whether the next envelope goes out behind a content, as far as a provider shows that it can.

RFC 2920 section 3.1 permits it wherever PIPELINING is offered, and not every server takes it. By
default one connection tries it where the provider is far enough to make a difference. The others
follow once its envelope was answered in step. A server that loses step costs one mail a second
question on a new connection, and is sent nothing in that way until the next reload.
"""

from __future__ import annotations

from collections.abc import Callable

from relaygw.settings.provider import Chaining as Setting
from relaygw.upstream.session import UpstreamSession

WORTH_FROM_S = 0.005
"""A round trip of which it is worth to save every second one."""
TRIAL_PATIENCE_S = 3.0
"""How long the first envelope behind a content waits for each answer."""
_TRIALS = 2
_BROKEN_OFF = 3  # in a row, by a closed connection


class Chaining:
    """What is known of one provider; `note` writes a line to the log."""

    def __init__(self, name: str, setting: Setting, note: Callable[[str], None]) -> None:
        self._name = name
        self._note = note
        self._is_asked_for = setting is True
        self._is_off = setting is False
        self._is_proven = setting is True
        self._round_trip_s = float("inf")  # the shortest that was seen
        self._trial: UpstreamSession | None = None
        self._patience_s = 0.0  # of that session otherwise
        self._failures = 0  # trials, or what was broken off in a row

    def may_follow(self, session: UpstreamSession) -> bool:
        """Return whether an envelope may go out behind the content that a session is to send.

        What follows from it is told by `ended`, or `given_up`.
        """
        if self._trial is session:  # what followed its last content was answered in step
            self.given_up(session)
            self._is_proven, self._failures = True, 0
        if self._is_off or self._is_proven:
            return not self._is_off
        self._round_trip_s = min(self._round_trip_s, session.round_trip_s)
        if self._trial is not None or self._round_trip_s < WORTH_FROM_S:
            return False
        self._trial, self._patience_s = session, session.chain_patience_s
        session.chain_patience_s = TRIAL_PATIENCE_S
        return True

    def ended(
        self, session: UpstreamSession, *, was_chained: bool, in_step: bool, is_taken: bool
    ) -> None:
        """Note how a transaction ended.

        `was_chained`: its own envelope was behind a content. `in_step`: it needs no new connection.
        `is_taken`: the provider took the mail.
        """
        if session.has_lost_step:
            self._stop()
        elif self._trial is session:
            # a refusal may be meant for the commands behind the content
            if was_chained or not is_taken:
                self._fail(session, _TRIALS)
            elif not session.is_chained:
                self.given_up(session)
        elif was_chained and self._is_proven:
            if in_step:
                self._failures = 0
            else:
                self._fail(session, _BROKEN_OFF)

    def given_up(self, session: UpstreamSession) -> None:
        """Note that what was begun on a session does not go on."""
        if self._trial is session:
            self._trial, session.chain_patience_s = None, self._patience_s

    def _fail(self, session: UpstreamSession, most: int) -> None:
        self.given_up(session)
        self._failures += 1
        if self._failures >= most:
            self._stop()

    def _stop(self) -> None:
        if self._is_off:
            return
        self._is_off = True
        self._trial = None
        if self._is_asked_for:
            self._note(
                f"warning: provider {self._name} does not handle chained transactions correctly; "
                "they are no longer chained; set its chain_transactions to false"
            )
        else:
            self._note(f"provider {self._name} does not take chained transactions; none are sent")
