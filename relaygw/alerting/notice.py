"""What people are told of an incident, and what takes it to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from relaygw.errors import PackageMissing, RelaygwError
from relaygw.mail.clock import rfc3339, rfc3339_or_none, utc_text
from relaygw.mail.words import fields, two_units
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.watch import Incident

NOT_INSTALLED = str(PackageMissing("apprise"))
_FORM = "%d %b %Y %H:%M:%S"
_OF_THE_QUEUE = frozenset(
    {Rule.QUEUE_AGE, Rule.QUEUE_GROWTH, Rule.IN_DOUBT, Rule.NO_DELIVERY}
    | {Rule.HELD, Rule.ROUTE_GONE, Rule.STUCK}
)
"""Rules of which the page of the queue shows more; of the others the first page does."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell: trouble that lasts, or its end."""

    incident: Incident
    host: str
    link: str | None = None

    @property
    def is_over(self) -> bool:
        """True when the trouble has ended."""
        return self.incident.recovered_at_ms is not None

    @property
    def title(self) -> str:
        """What it is about, in one line."""
        return f"[relaygw {self.host}] {'over: ' if self.is_over else ''}{self.incident.summary}"

    @property
    def text(self) -> str:
        """All of it, in some lines."""
        incident, since = self.incident, utc_text(self.incident.since_ms, _FORM)
        if incident.recovered_at_ms is None:
            lines = [self.title, f"What to do: {incident.remedy}", f"Since {since}"]
        elif incident.recovered_at_ms < incident.since_ms:
            lines = [self.title, f"It began at {since}, by a clock that was set back since"]
        else:
            lasted = two_units(incident.recovered_at_ms - incident.since_ms)
            lines = [self.title, f"It lasted {lasted}, since {since}"]
        return "\n".join([*lines, self.link] if self.link else lines)

    def as_json(self) -> dict[str, str | None]:
        """Return the fields as programs get them; times as RFC 3339 writes them."""
        about = {"host": self.host, "link": self.link, "text": self.text}
        return {**incident_object(self.incident), **about}


def incident_object(incident: Incident) -> dict[str, str | None]:
    """Return an incident as programs get it: those that are told, and `--json`."""
    ended_ms = incident.recovered_at_ms
    return {
        **fields(incident, "rule", "key"),
        "state": "open" if ended_ms is None else "recovered",
        **fields(incident, "summary", "remedy"),
        "since": rfc3339(incident.since_ms),
        "recovered_at": rfc3339_or_none(ended_ms),
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
    """Return the text about an incident, or about its end."""
    base = settings.web.url
    page = "/queue" if incident.rule in _OF_THE_QUEUE else "/"
    return Notice(incident, host=settings.hostname, link=f"{base}{page}" if base else None)
