"""When findings become incidents, and when those are over: not before it has lasted. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.alerting.findings import Finding
from relaygw.store.watch import Incident

Kind = tuple[str, str]
"""Rule and key."""


class Lasting:
    """Knows since when something was found, and since when it was not found any more."""

    def __init__(self, lasting_s: float) -> None:
        self._lasting_ms = int(lasting_s * 1000)
        self._since_ms: dict[Kind, int] = {}
        self._gone_ms: dict[Kind, int] = {}

    def begun(
        self, findings: Sequence[Finding], open_incidents: Sequence[Incident], *, now_ms: int
    ) -> list[tuple[Finding, int]]:
        """Return findings that have lasted and are no incidents yet, and since when they last."""
        found = {kind_of(finding): finding for finding in findings}
        self._since_ms = {
            kind: min(self._since_ms.get(kind, now_ms), finding.since_ms or now_ms, now_ms)
            for kind, finding in found.items()
        }
        known = {(one.rule, one.key) for one in open_incidents}
        return [
            (finding, self._since_ms[kind])
            for kind, finding in found.items()
            if kind not in known and now_ms - self._since_ms[kind] >= self._lasting_ms
        ]

    def ended(
        self, findings: Sequence[Finding], open_incidents: Sequence[Incident], *, now_ms: int
    ) -> list[Incident]:
        """Return incidents whose cause has been gone for as long."""
        found = {kind_of(finding) for finding in findings}
        gone = {kind: one for one in open_incidents if (kind := (one.rule, one.key)) not in found}
        self._gone_ms = {kind: min(self._gone_ms.get(kind, now_ms), now_ms) for kind in gone}
        return [
            one for kind, one in gone.items() if now_ms - self._gone_ms[kind] >= self._lasting_ms
        ]


def kind_of(finding: Finding) -> Kind:
    """Return what tells a finding from others."""
    return finding.rule.value, finding.key
