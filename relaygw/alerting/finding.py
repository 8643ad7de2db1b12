"""What a rule finds."""

from __future__ import annotations

from dataclasses import dataclass

from relaygw.settings.alerts import Rule


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is wrong now."""

    rule: Rule
    key: str
    summary: str
    remedy: str
    since_ms: int | None = None  # when it began, where that is known
    is_certain: bool = False  # told at once: it does not come and go

    @property
    def kind(self) -> tuple[str, str]:
        """What tells it from others."""
        return self.rule.value, self.key
