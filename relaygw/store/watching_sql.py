"""History, duties and incidents on a SQL database: transactions around their statements."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping

from sqlalchemy import Connection

from relaygw.mail.standing import HeldMail, MailInHand
from relaygw.policy.untended import LostInstance
from relaygw.store import history, incidents, standing
from relaygw.store.transactions import Transactions, Write
from relaygw.store.watching import Count, HistoryPoint, Incident


class SqlWatching(Transactions):
    """`watching.Watching` in SQLAlchemy Core; see there for what each method promises."""

    @abstractmethod
    def _now_ms(self, connection: Connection) -> int:
        """Return the database's time in milliseconds."""

    # --- history -------------------------------------------------------------------------

    def add_history(self, at_ms: int, amounts: Mapping[Count, int]) -> None:
        if amounts:
            with self._write(Write.UNSYNCED) as connection:
                history.add(connection, at_ms, amounts)

    def raise_history(self, at_ms: int, amounts: Mapping[Count, int]) -> None:
        if amounts:
            with self._write(Write.UNSYNCED) as connection:
                history.keep_greatest(connection, at_ms, amounts)

    def history(self, since_ms: int, *, series: Collection[str] = ()) -> list[HistoryPoint]:
        with self._read() as connection:
            return history.points(connection, since_ms, series)

    def forget_watched(self, before_ms: int) -> bool:
        with self._write(Write.UNSYNCED) as connection:
            incidents.forget(connection, before_ms)
            standing.forget_lost(connection, before_ms)
            return history.forget(connection, before_ms)

    # --- duties --------------------------------------------------------------------------

    def duty(self, name: str, incarnation: str) -> bool:
        with self._read() as connection:
            known = incidents.has_duty(
                connection, name, incarnation, now_ms=self._now_ms(connection)
            )
        if known is not None:
            return known
        with self._write(Write.UNSYNCED) as connection:
            return incidents.take_duty(
                connection, name, incarnation, now_ms=self._now_ms(connection)
            )

    # --- incidents -----------------------------------------------------------------------

    def open_incident(self, incident: Incident) -> bool:
        with self._write() as connection:
            return incidents.open_one(connection, incident)

    def end_incident(self, incident_id: str, *, at_ms: int) -> None:
        with self._write() as connection:
            incidents.end(connection, incident_id, at_ms=at_ms)

    def note_told(self, incident_id: str, channel: str, *, is_recovery: bool) -> None:
        with self._write() as connection:
            incidents.note_told(connection, incident_id, channel, is_recovery=is_recovery)

    def incidents(self, since_ms: int) -> list[Incident]:
        with self._read() as connection:
            return incidents.listed(connection, since_ms)

    # --- what stands still ---------------------------------------------------------------

    def doubtful(self) -> dict[str, int]:
        with self._read() as connection:
            return incidents.doubtful(connection)

    def held_mail(self) -> list[HeldMail]:
        with self._read() as connection:
            return standing.held_mail(connection)

    def in_hand_since(self, before_ms: int) -> list[MailInHand]:
        with self._read() as connection:
            return standing.in_hand_since(connection, before_ms)

    def lost_instances(self, since_ms: int) -> list[LostInstance]:
        with self._read() as connection:
            return standing.lost_instances(connection, since_ms)
