"""What people are told, as a text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from relaygw.mail.timestamp import rfc3339
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.watch import Incident

_PAGES = {
    Rule.QUEUE_AGE: "/queue",
    Rule.QUEUE_GROWTH: "/queue",
    Rule.IN_DOUBT: "/queue",
    Rule.NO_DELIVERY: "/queue",
    Rule.HELD: "/queue",
    Rule.ROUTE_GONE: "/queue",
    Rule.STUCK: "/queue",
}
"""The page that shows more, where it is not the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing to tell: trouble that lasts, or its end; times are ms since the epoch."""

    rule: str
    key: str
    summary: str
    remedy: str
    host: str
    since_ms: int
    recovered_at_ms: int | None = None
    link: str | None = None

    @property
    def is_over(self) -> bool:
        """True when the trouble has ended."""
        return self.recovered_at_ms is not None

    @property
    def title(self) -> str:
        """What it is about, in one line."""
        return f"[relaygw {self.host}] {'over: ' if self.is_over else ''}{self.summary}"

    @property
    def text(self) -> str:
        """All of it, in some lines."""
        lines = [self.title]
        if self.recovered_at_ms is None:
            lines += [f"What to do: {self.remedy}", f"Since {_readable(self.since_ms)}"]
        else:
            lasted = _duration((self.recovered_at_ms - self.since_ms) // 1000)
            lines.append(f"It lasted {lasted}, since {_readable(self.since_ms)}")
        return "\n".join([*lines, self.link] if self.link else lines)

    def as_json(self) -> dict[str, str | None]:
        """Return the fields as programs get them; times as RFC 3339 writes them."""
        ended_ms = self.recovered_at_ms
        return {
            "rule": self.rule,
            "key": self.key,
            "state": "recovered" if self.is_over else "open",
            "summary": self.summary,
            "remedy": self.remedy,
            "since": rfc3339(self.since_ms),
            "recovered_at": rfc3339(ended_ms) if ended_ms is not None else None,
            "host": self.host,
            "link": self.link,
            "text": self.text,
        }


def notice_of(incident: Incident, settings: Settings) -> Notice:
    """Return what to tell of an incident, or of its end."""
    base = settings.web.url
    page = _PAGES.get(Rule(incident.rule), "/") if incident.rule in set(Rule) else "/"
    return Notice(
        rule=incident.rule,
        key=incident.key,
        summary=incident.summary,
        remedy=incident.remedy,
        host=settings.hostname,
        since_ms=incident.since_ms,
        recovered_at_ms=incident.recovered_at_ms,
        link=f"{base}{page}" if base else None,
    )


def _readable(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%d %b %Y %H:%M:%S} UTC"


def _duration(seconds: int) -> str:
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m")]
    shown = [f"{number}{unit}" for number, unit in parts if number]
    return " ".join([*shown, f"{seconds % 60}s"][:2])
