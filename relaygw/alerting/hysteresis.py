"""When findings become incidents, and when incidents are over."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from relaygw.alerting.facts import Finding
from relaygw.store.watch import Incident


class Hysteresis:
    """When findings become incidents, and when those are over: not before it has lasted.

    It is asked with what was found just now: what was found earlier lasts no longer by waiting.
    """

    def __init__(self, lasting_s: float) -> None:
        self._lasting_ms = int(lasting_s * 1000)
        self._since_ms: dict[tuple[str, str], int] = {}
        self._gone_ms: dict[tuple[str, str], int] = {}

    def begun(
        self, findings: Sequence[Finding], open_incidents: Sequence[Incident], *, now_ms: int
    ) -> list[tuple[Finding, int]]:
        """Return findings that have lasted and are no incidents yet, and since when they last."""
        found = {finding.kind: finding for finding in findings}
        self._since_ms = {
            kind: min(self._since_ms.get(kind, now_ms), finding.since_ms or now_ms, now_ms)
            for kind, finding in found.items()
        }
        known = {(open_incident.rule, open_incident.key) for open_incident in open_incidents}
        return [
            (finding, self._since_ms[kind])
            for kind, finding in found.items()
            if kind not in known
            and (finding.is_certain or now_ms - self._since_ms[kind] >= self._lasting_ms)
        ]

    def ended(
        self,
        findings: Sequence[Finding],
        open_incidents: Sequence[Incident],
        *,
        now_ms: int,
        is_over: Callable[[Incident], bool] = lambda _: False,
    ) -> list[Incident]:
        """Return incidents whose cause has been gone for as long; those that `is_over` at once."""
        found = {finding.kind for finding in findings}
        gone = {
            kind: open_incident
            for open_incident in open_incidents
            if (kind := (open_incident.rule, open_incident.key)) not in found
        }
        self._gone_ms = {kind: min(self._gone_ms.get(kind, now_ms), now_ms) for kind in gone}
        return [
            incident
            for kind, incident in gone.items()
            if now_ms - self._gone_ms[kind] >= self._lasting_ms or is_over(incident)
        ]

    def left_s(self, open_incidents: Sequence[Incident], *, now_ms: int) -> float:
        """Return when the next finding, or end, will have lasted: in seconds; inf without any.

        `open_incidents` are those that `begun` and `ended` were asked with.
        """
        known = {(open_incident.rule, open_incident.key) for open_incident in open_incidents}
        begun_ms = [at_ms for kind, at_ms in self._since_ms.items() if kind not in known]
        left_ms = [
            self._lasting_ms - (now_ms - at_ms) for at_ms in (*begun_ms, *self._gone_ms.values())
        ]
        return min((wait_ms / 1000 for wait_ms in left_ms if wait_ms > 0), default=math.inf)
