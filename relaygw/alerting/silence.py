"""Mail that stops coming: what its rhythms are, since when the gateway took mail, what is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from relaygw.alerting.facts import Finding
from relaygw.mail.clock import DAY_MS, HOUR_MS
from relaygw.mail.words import counted, two_units
from relaygw.observe.history import Series
from relaygw.policy.expected_mail import Expect, unmet
from relaygw.policy.rhythm import WEEK, WEEKS, MailKind, Rhythm, rhythms_of
from relaygw.policy.silence import MOST_TOLD, LastMail, Silent, silent_kinds
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.store.watch import HISTORY_SLICE_MS, Incident

LOOK_EACH_MS = 30_000
LEARN_EACH_MS = 6 * HOUR_MS
_HOLE_MS = 3 * HISTORY_SLICE_MS  # without a slice of history nobody watched, and no mail came
_LOOK_BACK_MS = 8 * DAY_MS
_SHOP = "look at its cron, its queue of mail and its mail settings"


class SilenceWatch:
    """Looks for silence for the one instance that has the duty."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._expects = [
            Expect(expected.subject, int(expected.at_least.amount)) for expected in settings.expect
        ]
        self._uptime = _Uptime(store)
        self._rhythms: dict[MailKind, Rhythm] = {}
        self._learnt_ms: int | None = None
        self._silent: dict[str, Silent] = {}
        self._looked_ms: int | None = None
        self._found: list[Finding] = []

    def look(self, incidents: Sequence[Incident], *, now_ms: int) -> list[Finding]:
        """Return the kinds that are silent now. Raises StoreUnavailable."""
        if not self._settings.silence.enabled and not self._expects:
            return []
        if self._looked_ms is None or not 0 <= now_ms - self._looked_ms < LOOK_EACH_MS:
            self._looked_ms = now_ms
            self._uptime.look(now_ms)
            self._found = [*self._look_at_kinds(incidents, now_ms), *self._look_at_day(now_ms)]
        return self._found

    def _look_at_kinds(self, incidents: Sequence[Incident], now_ms: int) -> Iterator[Finding]:
        if not self._settings.silence.enabled:
            return
        last = self._store.rhythms.rhythmic()
        self._learn(last, now_ms)
        is_open = (incident for incident in incidents if incident.recovered_at_ms is None)
        told: dict[str, Silent | None] = {
            incident.key: None for incident in is_open if incident.rule == Rule.SILENCE
        }
        silent = silent_kinds(
            self._rhythms,
            last,
            now_ms=now_ms,
            up_since_ms=self._uptime.since_ms,
            told=told | self._silent,
        )
        self._silent = {silence.kind.key: silence for silence in silent}
        silent.sort(key=lambda silence: silence.kind.key not in told)
        yield from (_finding(silence, now_ms) for silence in silent[:MOST_TOLD])
        if len(silent) > MOST_TOLD:
            what = f"{len(silent) - MOST_TOLD} more kinds of mail stopped coming"
            remedy = "relaygw sources --by subject --since 7d shows what was last seen when"
            yield Finding(Rule.SILENCE, "others", what, remedy, is_certain=True)

    def _learn(self, last: Mapping[MailKind, LastMail], now_ms: int) -> None:
        if self._learnt_ms is not None and 0 <= now_ms - self._learnt_ms < LEARN_EACH_MS:
            return
        self._learnt_ms = now_ms
        hours = self._store.rhythms.kind_hours(last, now_ms - WEEKS * WEEK * HOUR_MS)
        self._rhythms = rhythms_of(hours)

    def _look_at_day(self, now_ms: int) -> Iterator[Finding]:
        """Look at what has to come each day, once the gateway has taken mail for a day."""
        if not self._expects or self._counting_since_ms(now_ms) > now_ms - DAY_MS:
            return
        came = self._store.rhythms.messages_by_template(now_ms - DAY_MS)
        for expect, number in unmet(self._expects, came):
            messages = f"{counted(number, 'message')} “{expect.subject}”"
            yield Finding(
                Rule.SILENCE,
                f"expect {expect.subject}",
                f"{messages} came within 24 hours, at least {expect.at_least} are expected",
                f"{_SHOP}; relaygw sources --by subject --since 24h shows what came",
                is_certain=True,
            )

    def _counting_since_ms(self, now_ms: int) -> int:
        since_ms = self._store.rhythms.counting_since_ms()
        if since_ms is None:  # no mail yet: since when there may have been some
            started = (
                instance.started_at_ms
                for instance in self._store.instances.registered()
                if instance.role == "front"
            )
            since_ms = min(started, default=now_ms)
        return max(since_ms, self._uptime.first_ms)


class _Uptime:
    """Since when the gateway is up, by the history: whoever watches leaves gauges there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last_ms: int | None = None
        self.first_ms = 0  # within the last days
        self.since_ms = 0

    def look(self, now_ms: int) -> None:
        """Take in what is new."""
        from_ms = now_ms - _LOOK_BACK_MS if self._last_ms is None else self._last_ms
        points = self._store.watch.history(from_ms, series=[Series.QUEUE])
        for at_ms in sorted({point.slice_at_ms for point in points}):
            if self._last_ms is None:
                self.first_ms = self.since_ms = at_ms
            elif at_ms - self._last_ms >= _HOLE_MS:
                self.since_ms = at_ms
            self._last_ms = at_ms


def _finding(silent: Silent, now_ms: int) -> Finding:
    kind = silent.kind
    what = f"{kind.stream} mail" if kind.template is None else f"mail “{kind.template}”"

    return Finding(
        Rule.SILENCE,
        kind.key,
        f"no {what} of {kind.sender_domain} came for {_span(now_ms - silent.last_ms)}; the "
        f"longest usual pause at this time is {_span(silent.usual_ms)}",
        f"{_SHOP}; relaygw sources --by subject --since 7d shows what was last seen when",
        since_ms=silent.last_ms,
        is_certain=True,
    )


def _span(span_ms: int) -> str:
    """Return a time in minutes, hours and days."""
    return two_units(max(1, span_ms // 60_000) * 60_000).removesuffix(" 0s")
