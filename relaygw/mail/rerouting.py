"""Deliveries on their way to other routes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteWay:
    """The route that some recipients of a delivery take by the rules of now."""

    route: str
    stream: str
    rcpt_nos: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerouting:
    """A delivery on its way to other routes: it takes the first, new ones take the others."""

    queue_id: str
    delivery_no: int
    route: str  # the one it was on
    ways: tuple[RouteWay, ...]
