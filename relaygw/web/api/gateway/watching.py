"""What is watched, in the gateway's API: status, incidents, history, the audit trail."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relaygw.mail.timestamp import rfc3339
from relaygw.observe.history.series import Series
from relaygw.operations.audit import audit_object
from relaygw.operations.status import status_object, take_snapshot, warnings
from relaygw.store.audit import Trail
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint, Incident
from relaygw.web import words
from relaygw.web.api.gateway.asked import known_parameters, limit_of, since_of
from relaygw.web.context import WebContext
from relaygw.web.problem import Problem

_DAY_MS = 86_400_000
_HOURS_MS = 6 * 3_600_000


class WatchingApi:
    """The endpoints that only tell."""

    def __init__(self, desk: WebContext) -> None:
        self._desk = desk

    async def status(self, request: Request) -> Response:
        """Answer what `relaygw status --json` prints, and what it warns of."""
        known_parameters(request, ())
        store, settings = self._desk.store, self._desk.settings
        snapshot = await self._desk.read(lambda: take_snapshot(store, settings))
        told = {**status_object(snapshot, settings), "warnings": list(warnings(snapshot))}
        return JSONResponse(told)

    async def incidents(self, request: Request) -> Response:
        """Answer what is wrong, and what was since a time: a day ago, if none is given."""
        given = known_parameters(request, {"since"})
        since_ms = since_of(given, default_ms=words.now_ms() - _DAY_MS)
        found = await self._desk.read(lambda: self._desk.store.watch.incidents(since_ms))
        return JSONResponse({"incidents": [_incident(one) for one in found]})

    async def history(self, request: Request) -> Response:
        """Answer what was counted since a time: the last six hours, if none is given."""
        given = known_parameters(request, {"since", "series"})
        since_ms = since_of(given, default_ms=words.now_ms() - _HOURS_MS)
        series = given.getlist("series")
        known = [one.value for one in Series]
        for name in series:
            if name not in known:
                raise Problem(400, f"series {name[:40]!r} is none", expected=", ".join(known))
        found = await self._desk.read(
            lambda: self._desk.store.watch.history(since_ms, series=series)
        )
        return JSONResponse(
            {"slice_s": HISTORY_SLICE_MS // 1000, "points": [_point(one) for one in found]}
        )

    async def audit(self, request: Request) -> Response:
        """Answer what was changed, newest first."""
        given = known_parameters(request, {"limit", "since", "actor", "action", "target"})
        trail = Trail(
            since_ms=since_of(given, default_ms=0) if "since" in given else None,
            actor=given.get("actor"),
            action=given.get("action"),
            target=given.get("target"),
        )
        limit = limit_of(given)
        store = self._desk.store
        found = await self._desk.read(lambda: store.audit.entries(limit=limit, trail=trail))
        return JSONResponse({"entries": [audit_object(one) for one in found]})


def _incident(one: Incident) -> dict[str, Any]:
    ended_ms = one.recovered_at_ms
    return {
        "incident_id": one.incident_id,
        "rule": one.rule,
        "key": one.key,
        "summary": one.summary,
        "remedy": one.remedy,
        "since": rfc3339(one.since_ms),
        "told": list(one.told),
        "recovered_at": None if ended_ms is None else rfc3339(ended_ms),
        "recovery_told": list(one.recovery_told),
    }


def _point(one: HistoryPoint) -> dict[str, Any]:
    return {
        "at": rfc3339(one.slice_at_ms),
        "series": one.series,
        "label": one.label,
        "amount": one.amount,
    }
