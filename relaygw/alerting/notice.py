"""What people are told, as a text and as JSON, and what every channel to them can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from relaygw.errors import RelaygwError
from relaygw.mail.clock import rfc3339, utc_text
from relaygw.mail.words import two_units
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.watch import Incident

_FORM = "%d %b %Y %H:%M:%S"
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
            lines += [f"What to do: {self.remedy}", f"Since {utc_text(self.since_ms, _FORM)}"]
        else:
            lasted = two_units(self.recovered_at_ms - self.since_ms)
            lines.append(f"It lasted {lasted}, since {utc_text(self.since_ms, _FORM)}")
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


class NotSent(RelaygwError):
    """A notice did not reach its receiver; the text says why, and holds no secret."""


class Channel(Protocol):
    """One receiver of notices."""

    async def send(self, notice: Notice) -> str:
        """Return once the receiver has taken a notice, with words on who that was.

        Raises NotSent, after some seconds at most.
        """


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
