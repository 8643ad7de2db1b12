"""The mail of a shop, drawn at random from its profile; the same seed draws the same mail."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

from bench.shops.profiles import DAY_H, Flow, Shop
from relaygw.mail.mail_class import MailClass
from relaygw.mail.subject_template import subject_template

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
BEGIN_MS = int(datetime(2026, 8, 31, tzinfo=UTC).timestamp() * 1000)  # a Monday
_FIRST = "10.0.0.11"
_NAMES = ("Ann", "Ben Miller", "Çelik", "Dr. Eva Stein", "Fatma Yılmaz", "Greta", "Li Wei", "Ole")
_GOODS = ("Hat", "Blue shirt, L", "USB cable 2 m", "Tea", "Garden chair", "Set of 6 glasses")
_WORDS = (
    *("my parcel", "broken hat", "refund please", "question", "Return of order", "size chart"),
    *("invoice missing", "where is it?", "thank you", "press inquiry", "Frage zur Lieferung"),
)


class Mail(NamedTuple):
    """One message, or several at once."""

    at_ms: int
    mail_class: MailClass
    messages: int = 1
    recipients: int = 1
    refused: int = 0


@dataclass(frozen=True)
class Stop:
    """Mail that does not come: of one template, or all."""

    flow: str | None
    from_ms: int
    until_ms: int  # at the earliest

    def begins_before(self, flow: str, at_ms: int) -> bool:
        """True for mail that may not come because of it; its end is that of the mail's rhythm."""
        return self.from_ms <= at_ms and self.flow in (None, flow)


class Traffic:
    """All mail of a shop over some days."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop = shop
        self._random = random.Random(f"{shop.name} {seed}")

    def of_day(self, day: int) -> list[Mail]:
        """Return the mail of a day, by time; days are asked for one after the other."""
        shop, rng = self.shop, self._random
        busy = rng.lognormvariate(0, shop.noise) * (1 + shop.growth * day / 90)
        hosts = [self._hosts(hour, busy) for hour in range(DAY_H)]
        found: list[Mail] = []
        for flow in shop.flows:
            number = flow.a_day * self._factor(flow, day, busy)
            for at_ms in self._times(flow, day, number):
                # hosts that come and go serve the shop; its cron has one of its own
                host = _FIRST if flow.at_h else rng.choice(hosts[(at_ms // HOUR_MS) % DAY_H])
                found.append(Mail(at_ms, self.class_of(flow, host), 1, flow.recipients))
        found.extend(self._campaigns(day))
        return sorted(found, key=lambda one: one.at_ms)

    def class_of(self, flow: Flow, host: str) -> MailClass:
        """Return the class of a message with this flow's subject, as the front would."""
        template = subject_template(self._subject(flow.subject))
        return _class(
            (host, "", flow.user, 33, flow.script), self.shop.domain, template, flow.stream
        )

    def _subject(self, pattern: str) -> str:
        if "{" not in pattern:
            return pattern
        rng = self._random
        return pattern.format(
            n=rng.randrange(10**8, 10**9),
            name=rng.choice(_NAMES),
            word=rng.choice(_WORDS),
            quoted=f'"{rng.choice(_GOODS)}"',
            date=f"{datetime(2026, 9, 1) + timedelta(days=rng.randrange(90)):%d %B %Y}",
        )

    def _factor(self, flow: Flow, day: int, busy: float) -> float:
        shop, weekday = self.shop, day % 7
        if day in shop.closed_days and not flow.at_h:
            return 0.05
        factor = flow.week[weekday] * (1.0 if flow.at_h and flow.a_day <= 1 else busy)
        is_sale = day in shop.sale_days and flow.grows_with_sale
        return factor * (shop.sale_factor if is_sale else 1.0)

    def _times(self, flow: Flow, day: int, number: float) -> Iterator[int]:
        rng, day_ms = self._random, BEGIN_MS + day * DAY_MS - self._zone_ms(day)
        if flow.at_h:
            for hour in flow.at_h if number else ():
                at_ms = day_ms + int(hour * HOUR_MS) + rng.randrange(90_000)
                each = number / len(flow.at_h)
                for _ in range(1 if flow.a_day <= 1 else _poisson(rng, each)):
                    at_ms += rng.randrange(2000)
                    yield at_ms
            return
        for hour, share in enumerate(flow.day):
            for _ in range(_poisson(rng, number * share)):
                yield day_ms + hour * HOUR_MS + rng.randrange(HOUR_MS)

    def _zone_ms(self, day: int) -> int:
        shop = self.shop
        is_changed = shop.changes_clock_d is not None and day >= shop.changes_clock_d
        return (shop.zone_h - is_changed) * HOUR_MS

    def _hosts(self, hour: int, busy: float) -> list[str]:
        shop, rng = self.shop, self._random
        if not shop.scaled:
            return [f"10.0.0.{n}" for n in range(11, 11 + shop.hosts)]
        number = max(1, round(shop.hosts * busy * (0.4 + hour / DAY_H)))
        return [f"10.0.{rng.randrange(4)}.{rng.randrange(20, 120)}" for _ in range(number)]

    def _campaigns(self, day: int) -> Iterator[Mail]:
        for one in self.shop.campaigns:
            if day % 7 not in one.days:
                continue
            subject = f"{self._random.choice(_GOODS)}: news of week {day // 7}"
            flow = Flow(subject=subject, a_day=0, script=one.script, stream="promotional")
            mail_class = self.class_of(flow, _FIRST)
            at_ms = BEGIN_MS + day * DAY_MS + int(one.at_h * HOUR_MS) - self._zone_ms(day)
            left, a_minute = one.messages, max(1, one.an_hour // 60)
            while left > 0:
                part = min(left, a_minute)
                yield Mail(at_ms, mail_class, part, part, part // 200)
                left -= part
                at_ms += 60_000


def template_of(pattern: str) -> str:
    """Return the template of a subject that has numbers or dates in it, and nothing else."""
    return subject_template(pattern.format(n=123456789, date="01 September 2026"))


@cache
def _class(
    source: tuple[str, str, str, int | None, str], domain: str, template: str, stream: str
) -> MailClass:
    return MailClass.of(source, sender_domain=domain, template=template, stream=stream)


def _poisson(rng: random.Random, mean: float) -> int:
    """Return a number of events; of many the normal distribution is close enough."""
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, number = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        number += 1
    return number


# --- planted --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compromise:
    """A host, script or login that is misused."""

    name: str
    at_ms: int
    mails: tuple[Mail, ...]


_SHELL = "33:up.php"
_SPAM = (
    *("You have won a prize", "Cheap pills online", "Your account is suspended"),
    *("Invoice overdue - open the attachment", "Crypto doubles in a week"),
)
_KINDS = (
    *("new script", "script of the shop", "login", "known subject", "harvested addresses"),
    "form of the shop",
)


def _form(shop: Shop) -> Flow:
    """Return mail that visitors cause, and no timetable."""
    return next(one for one in reversed(shop.flows) if not one.at_h)


def compromise(shop: Shop, kind: int, at_ms: int, rng: random.Random) -> Compromise:
    """Return one of six kinds of misuse, some hundred mails from that time on."""
    name = _KINDS[kind % len(_KINDS)]
    host, flow = _FIRST, Flow(subject=rng.choice(_SPAM), a_day=0, script=_SHELL)
    an_hour, refused = rng.choice((60, 200, 600, 2000)), 0
    match name:
        case "script of the shop":
            flow = replace(flow, script="33:index.php")
        case "login":
            host, flow = "203.0.113.7", replace(flow, script="", user="shop")
        case "known subject":
            flow = replace(flow, subject=shop.flows[0].subject)
        case "harvested addresses":
            an_hour, refused = 100, 2
        case "form of the shop":
            flow, an_hour = _form(shop), 300
    traffic = Traffic(shop, rng.randrange(10**6))
    mails = []
    for _ in range(500):
        at_ms += int(rng.expovariate(an_hour / HOUR_MS))
        mails.append(Mail(at_ms, traffic.class_of(flow, host), 1, 4, refused))
    return Compromise(f"{name}, {an_hour} an hour", mails[0].at_ms, tuple(mails))
