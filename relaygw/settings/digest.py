"""Section `digest`: a regular report, by mail or to a webhook."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from relaygw.settings.addresses import Address
from relaygw.settings.secrets import SecretUrl
from relaygw.settings.section import DAY_S, Interval, Section


class Digest(Section):
    """A regular report: by mail, or to a webhook."""

    to: Address | None = Field(default=None, examples=["ops@example.com"])
    sender: Address | None = None  # of that mail: an address that the providers accept
    webhook: SecretUrl | None = Field(default=None, examples=["env:DIGEST_URL"])
    every: Interval = DAY_S

    @property
    def is_on(self) -> bool:
        """True where somebody gets it."""
        return self.to is not None or self.webhook is not None

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that it comes daily or weekly, with what goes with its kind."""
        if self.every not in (DAY_S, 7 * DAY_S):
            yield "every", "is neither 1d nor 7d; write one of them"
        if self.sender is not None and self.to is None:
            yield "sender", "is for a digest by mail; add to, or remove it"
