"""Ten shops, and what mail each sends: how often by hour and day, from where, with which subjects.

Nothing here is random: `traffic` draws from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DAY_H = 24
Curve = Sequence[float]  # share of a day's mail by hour of the day, 24 of them


def curve(peak_h: float, width_h: float, *, floor: float = 0.02) -> Curve:
    """Return a day with one peak, wrapped around midnight; its shares add up to one."""
    shares = []
    for hour in range(DAY_H):
        off = min(abs(hour + 0.5 - peak_h), DAY_H - abs(hour + 0.5 - peak_h))
        shares.append(floor + math.exp(-((off / width_h) ** 2)))
    return tuple(share / sum(shares) for share in shares)


def office(first_h: int, end_h: int) -> Curve:
    """Return a day with sharp edges and nothing outside of them."""
    return tuple(1 / (end_h - first_h) if first_h <= hour < end_h else 0.0 for hour in range(DAY_H))


EVENING = curve(19, 6)
NIGHT = curve(0.5, 4)
NOON = curve(13, 5)
EVEN_WEEK = (1.0,) * 7  # Monday first
WEEKEND = (0.5, 0.5, 0.5, 0.6, 1.0, 2.2, 2.4)
WORKDAYS = (1.0, 1.0, 1.0, 1.0, 0.9, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Mail of one subject that comes by itself: at random, or by a timetable."""

    subject: str
    a_day: float  # messages on a usual day
    day: Curve = EVENING
    week: Sequence[float] = EVEN_WEEK
    at_h: Sequence[float] = ()  # of a timetable: a batch at these hours; `a_day` is shared by them
    script: str = "33:Sendmail.php"  # as PHP names it
    user: str = ""
    stream: str = "transactional"
    recipients: int = 1
    grows_with_sale: bool = True
    is_promised: bool = False  # stops are planted here: it has a rhythm


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Newsletters: each with a subject of its own, sent off within hours."""

    days: Sequence[int]  # of the week, Monday 0
    at_h: float
    messages: int
    an_hour: int
    script: str = "33:newsletter.php"


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A shop with its gateway."""

    name: str
    domain: str
    flows: Sequence[Flow]
    campaigns: Sequence[Campaign] = ()
    hosts: int = 1
    scaled: bool = False  # hosts come and go each hour, with the load
    zone_h: int = 1  # its clock ahead of the gateway's, before the clocks change
    changes_clock_d: int | None = None  # on this day its clock goes back an hour
    sale_days: Sequence[int] = ()
    sale_factor: float = 10.0
    closed_days: Sequence[int] = ()  # holidays
    noise: float = 0.25  # of a day's number, as the sigma of its logarithm
    growth: float = 0.0  # of the numbers, over all days
    quiet_told: bool = False  # the sale days stand in guard.quiet
    expects: Sequence[tuple[str, int]] = ()


def _shop_flows(orders: float, *, day: Curve = EVENING, week: Curve = EVEN_WEEK) -> list[Flow]:
    """Return the usual mail of a shop with so many orders a day."""

    def flow(subject: str, share: float, **other: object) -> Flow:
        given: dict[str, object] = {"day": day, "week": week, **other}
        return Flow(subject=subject, a_day=orders * share, **given)  # type: ignore[arg-type]

    return [
        flow("Your order #{n} is confirmed", 1.0, is_promised=True),
        flow("Invoice {n}", 0.95, day=NOON, is_promised=True),
        flow("Your parcel {n} is on its way", 0.9, day=NOON, week=WORKDAYS),
        flow("Welcome {name}!", 0.2, script="33:index.php"),
        flow("Reset your password", 0.1, script="33:index.php"),
        flow("Contact form: {word}", 0.05, script="33:index.php"),
        flow("How did you like {quoted}?", 0.5, at_h=(10,), grows_with_sale=False),
        flow("Credit memo for order {n}", 0.03, day=NOON, week=WORKDAYS),
    ]


_DAY = Shop(name="day", domain="day.example", flows=_shop_flows(150), changes_clock_d=54)
_NIGHT = Shop(
    name="night", domain="night.example", flows=_shop_flows(80, day=NIGHT), noise=0.3, zone_h=-5
)
_WEEKEND = Shop(name="weekend", domain="weekend.example", flows=_shop_flows(60, week=WEEKEND))
_OFFICE = Shop(
    name="office",
    domain="office.example",
    flows=[
        Flow(
            subject="Order {n} received",
            a_day=90,
            day=office(8, 18),
            week=WORKDAYS,
            is_promised=True,
        ),
        Flow(
            subject="Delivery note {n}",
            a_day=80,
            day=office(7, 16),
            week=WORKDAYS,
            is_promised=True,
        ),
        Flow(subject="Stock report of {date}", a_day=1, at_h=(5.5,), is_promised=True),
        Flow(subject="Quote {n} for {name}", a_day=15, day=office(9, 17), week=WORKDAYS),
    ],
    closed_days=(32, 60),
    changes_clock_d=54,
)
_SALE = Shop(
    name="sale",
    domain="sale.example",
    flows=_shop_flows(120),
    campaigns=[Campaign(days=(3,), at_h=9, messages=4000, an_hour=2000)],
    sale_days=(38, 39, 66, 67, 68, 69),
    quiet_told=True,
)
_TINY = Shop(
    name="tiny",
    domain="tiny.example",
    flows=[
        Flow(subject="Your order #{n}", a_day=4, is_promised=True),
        Flow(subject="New order #{n}", a_day=4, is_promised=True),
        Flow(subject="Contact: {word}", a_day=0.5),
        Flow(subject="Reset your password", a_day=0.3),
    ],
    noise=0.4,
    closed_days=(40, 41, 42),
    expects=[("*order*", 1)],
)
_NEWSLETTERS = Shop(
    name="newsletters",
    domain="letters.example",
    flows=[
        Flow(subject="Please confirm your subscription", a_day=120, is_promised=True),
        Flow(subject="You have unsubscribed", a_day=30, is_promised=True),
        Flow(
            subject="Your digest of {date}",
            a_day=900,
            at_h=(6,),
            stream="promotional",
            is_promised=True,
        ),
    ],
    campaigns=[
        Campaign(days=(1, 4), at_h=8, messages=60_000, an_hour=20_000),
        Campaign(days=(6,), at_h=17, messages=25_000, an_hour=20_000),
    ],
)
_MARKET = Shop(
    name="market",
    domain="market.example",
    flows=_shop_flows(500),
    hosts=4,
    growth=0.5,
    expects=[("*order*", 100)],
)
_SCALED = Shop(
    name="scaled",
    domain="cloud.example",
    flows=_shop_flows(400),
    hosts=3,
    scaled=True,
    noise=0.3,
)
_BATCH = Shop(
    name="batch",
    domain="batch.example",
    flows=[
        Flow(
            subject="Order {n} is with us",
            a_day=300,
            at_h=[h + 0.25 for h in range(6, 24)],
            is_promised=True,
        ),
        Flow(subject="Invoices of {date}", a_day=250, at_h=(2,), week=WORKDAYS, is_promised=True),
        Flow(subject="Export of {date} is complete", a_day=1, at_h=(3,), is_promised=True),
        Flow(subject="Monthly statement {n}", a_day=2, day=NOON, week=WORKDAYS),
    ],
    growth=-0.3,
)
SHOPS = (
    *(_DAY, _NIGHT, _WEEKEND, _OFFICE, _SALE),
    *(_TINY, _NEWSLETTERS, _MARKET, _SCALED, _BATCH),
)
