"""Section `content_check`: mail with card numbers, passwords and the like."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from relaygw.mail.iban import is_iban
from relaygw.settings.section import Section

_OnMatch = Literal["off", "warn", "hold"]


def _parse_iban(text: str) -> str:
    iban = "".join(text.split()).upper()
    if not is_iban(iban):
        raise ValueError("is not an IBAN; write e.g. DE89 3704 0044 0532 0130 00")
    return iban


_Iban = Annotated[str, AfterValidator(_parse_iban)]


class ContentCheck(Section):
    """What happens to mail with card numbers, passwords and the like, by its route's stream."""

    transactional: _OnMatch = "off"
    promotional: _OnMatch = "off"
    # of the shop itself, e.g. for advance payment: no find
    own_ibans: tuple[_Iban, ...] = Field(default=(), examples=[["DE89 3704 0044 0532 0130 00"]])

    @property
    def is_on(self) -> bool:
        """True where mail of a stream is looked at."""
        return (self.transactional, self.promotional) != ("off", "off")
