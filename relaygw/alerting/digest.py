"""The digest: what a day or a week was like, beside the same of a week before.

Its tables hold templates, domains, scripts and hosts, no addresses; all of it is plain text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from relaygw.mail.clock import clock_ms, local_time
from relaygw.mail.finding import Kind, words_of
from relaygw.mail.keys import unpacked
from relaygw.mail.words import age, printable, took, two_units
from relaygw.observe.history import Series
from relaygw.observe.waits import waits_of
from relaygw.settings.model import Settings
from relaygw.store.login_endings import endings_of
from relaygw.store.store import Store
from relaygw.store.watch import Incident

DAY_S = 86_400.0
_WEEK_MS = 7 * 86_400_000
_MOST = 10  # rows of a table
_MOST_NEW = 5
_NEWS_LEAST = 20  # messages that a difference is worth a word for
_NEWS_SHARE = 0.5
_ENTRY = 100  # characters
NONE = "–"
_COUNTS = {
    Series.MESSAGES: "Messages accepted",
    Series.ACCEPTED: "Recipients to send to",
    Series.DELIVERED: "Delivered",
    Series.DEFERRED: "Deferred, each time",
    Series.BOUNCED: "Bounced or expired",
    Series.BLOCKED: "Blocked",
    Series.CAPTURED: "Captured",
    Series.SUPPRESSED: "Suppressed",
    Series.COMPLAINTS: "Complaints",
    Series.REFUSED: "Refusals to clients",
}
_READ = (*_COUNTS, Series.BOUNCED_FOR, Series.DEFERRED_FOR, Series.IN_QUEUE, Series.FOUND)
_SOURCES = {
    "sender_domain": ("Top senders", "sender domain", "<>"),
    "template": ("Top templates", "subject", "(none)"),
    "script": ("Top scripts", "script", ""),
}


@dataclass(frozen=True, slots=True)
class Period:
    """A day or a week of this machine's zone, in the queue's time."""

    since_ms: int
    until_ms: int

    @property
    def words(self) -> str:
        """What it is called."""
        first, last = local_time(self.since_ms), local_time(self.until_ms - 1)
        if first.date() == last.date():
            return f"{first:%A, %d %b %Y}"
        return f"{first:%d %b} to {last:%d %b %Y}"

    def moved(self, by_ms: int) -> Period:
        """Return one as long, so much later."""
        return Period(self.since_ms + by_ms, self.until_ms + by_ms)


def last_period(now_ms: int, every_s: float) -> Period:
    """Return the last whole day, or week from Monday on, by this machine's zone."""
    now = local_time(now_ms)
    days = round(every_s / DAY_S)
    end = now.date() - timedelta(days=now.weekday() if days > 1 else 0)
    return Period(_midnight_ms(end - timedelta(days=days)), _midnight_ms(end))


def _midnight_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day).astimezone().timestamp()) * 1000


@dataclass(frozen=True, slots=True)
class Table:
    """One table: the first column is a name, the others are numbers or short words."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    more: int = 0  # rows that are left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """All that is told of a period."""

    host: str
    mode: str
    period: Period
    news: Sequence[str]  # sentences on what changed and what waits
    tables: Sequence[Table]
    link: str | None
    counts: Mapping[str, int] = field(default_factory=dict)  # for programs
    before: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The subject."""
        return f"[relaygw {self.host}] Digest of {self.period.words}"


def digest_of(store: Store, settings: Settings, period: Period) -> Digest:
    """Read what there is to tell of a period of the queue's time. Raises StoreUnavailable."""
    now_ms = clock_ms()
    here = period.moved(now_ms - store.clock_ms())
    now = _figures(store, settings, here)
    before = _figures(store, settings, here.moved(-_WEEK_MS))
    held = _held(store, now_ms)
    tables = [
        _counts_table(now, before),
        held,
        *(_source_table(now, before, by) for by in _SOURCES),
        _compared("Refusals to clients", "reply", now, before, Series.REFUSED),
        _compared("Bounced, why", "reason", now, before, Series.BOUNCED_FOR),
        _compared("Deferred, why", "reason", now, before, Series.DEFERRED_FOR),
        _slowest(now, before),
        _found(now, before),
        _incidents(store.watch.incidents(here.since_ms), here),
    ]
    written = f"when this was written, {local_time(now_ms):%d %b %H:%M}"  # not of the period
    waits = [
        f"Held {written}: {name}, {number} {'delivery' if number == '1' else 'deliveries'}."
        for name, number, _ in held.rows[:3]
    ]
    return Digest(
        host=settings.hostname,
        mode=settings.mode.value,
        period=period,
        news=[*waits, *_endings(store, settings, now_ms), *_news(now, before)],
        tables=[table for table in tables if table.rows],
        link=settings.web.url,
        counts={series.value: now.total(series) for series in _COUNTS},
        before={series.value: before.total(series) for series in _COUNTS},
    )


def _endings(store: Store, settings: Settings, now_ms: int) -> Iterator[str]:
    for ending in endings_of(store, settings):
        words = ending.words(now_ms)
        yield f"{words[0].upper()}{words[1:]}; {ending.remedy}."


# --- what was counted --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Figures:
    counts: Mapping[str, Counter[str]]  # by series and label
    sources: Mapping[str, Counter[str]]  # by what, and which
    new: Mapping[str, frozenset[str]]  # of these those that were never seen before

    def total(self, series: Series) -> int:
        return self.counts.get(series.value, Counter()).total()

    @property
    def has_no_mail(self) -> bool:
        return not any(self.counts.values())


def _figures(store: Store, settings: Settings, period: Period) -> _Figures:
    counts: dict[str, Counter[str]] = {}
    span_ms = period.until_ms - period.since_ms
    sums = store.watch.sums(
        period.since_ms, step_ms=span_ms, series=[member.value for member in _READ]
    )
    for step, series, label, number in sums:
        if step == 0:
            counts.setdefault(series, Counter())[label] += number
    sources: dict[str, Counter[str]] = {}
    new: dict[str, frozenset[str]] = {}
    for by in _SOURCES if settings.counts_sources else ():
        found = store.sources.sum_mail(by, period.since_ms, until_ms=period.until_ms)
        found = [total for total in found if total.key or by != "script"]
        sources[by] = Counter({str(total.key): total.messages for total in found})
        new[by] = frozenset(
            str(total.key) for total in found if total.first_seen_ms >= period.since_ms
        )
    return _Figures(counts, sources, new)


# --- tables ------------------------------------------------------------------------------------


def _entry(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _ENTRY else text[: _ENTRY - 1] + "…"


def _number(number: int) -> str:
    return f"{number:,}"


def _change(number: int, before: int, *, knows_before: bool = True) -> str:
    if not knows_before:
        return NONE
    if number == before:
        return "="
    if not before:
        return "new"
    share = round((number - before) * 100 / before)
    return f"{share:+} %" if share < 1000 else f"× {number / before:.0f}"


def _counts_table(now: _Figures, before: _Figures) -> Table:
    rows = []
    for series, name in _COUNTS.items():
        number, then = now.total(series), before.total(series)
        if number or then or series in (Series.MESSAGES, Series.DELIVERED, Series.BOUNCED):
            rows.append([name, *_beside(number, then, before)])
    return Table("Mail", ("", "number", "week before", "change"), rows)


def _beside(number: int, then: int, before: _Figures) -> list[str]:
    knows = not before.has_no_mail
    return [
        _number(number),
        _number(then) if knows else NONE,
        _change(number, then, knows_before=knows),
    ]


def _compared(title: str, head: str, now: _Figures, before: _Figures, series: Series) -> Table:
    found, then = (figures.counts.get(series.value, Counter()) for figures in (now, before))
    rows = [
        [_entry(label.replace("_", " ")), *_beside(number, then[label], before)]
        for label, number in found.most_common(_MOST)
    ]
    return Table(title, (head, "number", "week before", "change"), rows, _left(found))


def _left(found: Mapping[str, int]) -> int:
    return max(0, len(found) - _MOST)


def _source_table(now: _Figures, before: _Figures, by: str) -> Table:
    title, head, nothing = _SOURCES[by]
    found, then = (figures.sources.get(by, Counter[str]()) for figures in (now, before))
    rows = []
    for key, number in found.most_common(_MOST):
        change = "new" if key in now.new[by] else _change(number, then[key])
        rows.append([_entry(key) or nothing, _number(number), _number(then[key]), change])
    return Table(title, (head, "messages", "week before", "change"), rows, _left(found))


def _slowest(now: _Figures, before: _Figures) -> Table:
    found, then = (
        figures.counts.get(Series.IN_QUEUE.value, Counter()) for figures in (now, before)
    )
    providers = {label.rpartition(" ")[0] for label in found}
    times = [(name, waits_of(found.items(), name)) for name in providers]
    rows = []
    for name, waits in sorted(times, key=lambda each: -each[1].p95_s if each[1] else 0):
        was = waits_of(then.items(), name)
        if waits is not None:
            texts = (took(waits.p50_s), took(waits.p95_s), took(was.p95_s) if was else NONE)
            rows.append([_entry(name), _number(waits.mails), *texts])
    heads = ("provider", "mails", "half within", "95 % within", "week before")
    return Table("Slowest providers", heads, rows[:_MOST], max(0, len(rows) - _MOST))


def _found(now: _Figures, before: _Figures) -> Table:
    found, then = (figures.counts.get(Series.FOUND.value, Counter()) for figures in (now, before))
    rows = []
    for label, number in found.most_common():
        result, kind = unpacked(label)
        name = words_of({Kind(kind): 1}).partition(" ")[2] if kind in list(Kind) else kind
        rows.append([f"{name}, {result}", *_beside(number, then[label], before)])
    heads = ("found in mail", "messages", "week before", "change")
    return Table("Content check", heads, rows)


def _held(store: Store, now_ms: int) -> Table:
    held: Counter[str] = Counter()
    since_ms: dict[str, int] = {}
    for group in store.holds.held_mail():
        name = f"{group.cause.sentence} (route {group.route})"
        held[name] += group.deliveries
        since_ms[name] = min(group.since_ms, since_ms.get(name, group.since_ms))
    rows = [
        [_entry(name), _number(number), age(max(0, now_ms - since_ms[name]))]
        for name, number in held.most_common(_MOST)
    ]
    return Table("Held when this was written", ("why", "deliveries", "for"), rows, _left(held))


def _incidents(found: Iterable[Incident], period: Period) -> Table:
    rows = []
    for incident in found:
        if incident.since_ms < period.until_ms:
            ended_ms = incident.recovered_at_ms
            lasted = "lasts"
            if ended_ms is not None:  # the clock may have been set back meanwhile
                lasted = two_units(max(0, ended_ms - incident.since_ms))
            rows.append(
                [_entry(incident.summary), f"{local_time(incident.since_ms):%d %b %H:%M}", lasted]
            )
    heads = ("alert", "since", "lasted")
    return Table("Alerts", heads, rows[-_MOST:], max(0, len(rows) - _MOST))


# --- what changed ------------------------------------------------------------------------------


def _news(now: _Figures, before: _Figures) -> Iterator[str]:
    if before.has_no_mail:
        yield "There are no counts of the week before."
        return
    found = False
    for sentence in (*_changed_counts(now, before), *_come_and_gone(now, before)):
        found = True
        yield sentence
    if not found:
        yield "Nothing stands out against the week before."


def _changed_counts(now: _Figures, before: _Figures) -> Iterator[str]:
    for series, name in _COUNTS.items():
        number, then = now.total(series), before.total(series)
        if abs(number - then) >= max(_NEWS_LEAST, _NEWS_SHARE * then):
            yield f"{name}: {number:,}, the week before {then:,}."


def _come_and_gone(now: _Figures, before: _Figures) -> Iterator[str]:
    for by, (_, head, _) in _SOURCES.items():
        found, then = (figures.sources.get(by, Counter[str]()) for figures in (now, before))
        new = now.new.get(by, frozenset())
        come = [(key, n) for key, n in found.most_common() if key in new]
        yield from _sentences(f"New {head}", come, "{:,} messages")
        back = _only_in(found, then, but=new)
        yield from _sentences(head.capitalize(), back, "{:,} messages, none the week before")
        gone = _only_in(then, found)
        yield from _sentences(head.capitalize(), gone, "none, {:,} messages the week before")


def _only_in(
    found: Counter[str], others: Counter[str], *, but: frozenset[str] = frozenset()
) -> list[tuple[str, int]]:
    return [
        (key, number)
        for key, number in found.most_common()
        if number >= _NEWS_LEAST and not others[key] and key not in but
    ]


def _sentences(about: str, found: Sequence[tuple[str, int]], words: str) -> Iterator[str]:
    for key, number in found[:_MOST_NEW]:
        yield f"{about}: {_entry(key) or '(none)'}, {words.format(number)}."
    if len(found) > _MOST_NEW:
        yield f"{about}: {len(found) - _MOST_NEW:,} more."
