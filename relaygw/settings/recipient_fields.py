"""Header fields that name recipients to a provider: recipient_fields.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from relaygw.settings.section import Section
from relaygw.settings.tree import read_own

_RECIPIENT_FIELDS = Path(__file__).with_name("recipient_fields.yaml")
GENERAL = "general"  # the entry of fields that mail servers of any kind know


class RecipientField(Section):
    """A header field in which somebody down the line may read addresses."""

    name: str
    carries: Literal["recipients", "envelope", "notices", "copy"]
    form: Literal["addresses", "json", "url"]
    addresses: tuple[str, ...] = ()  # of JSON: paths, keys joined by dots; lists are looked through
    harmless: tuple[str, ...] = ()
    json_only: bool = False
    source: str


class ServiceFields(Section):
    """The fields of one service; none where its pages name none."""

    sources: tuple[str, ...] = Field(min_length=1)
    note: str = ""
    fields: tuple[RecipientField, ...] = ()


@cache
def recipient_fields() -> Mapping[str, ServiceFields]:
    """Return the fields of all services, by preset, and the GENERAL ones."""
    values = read_own(_RECIPIENT_FIELDS).values
    return {name: ServiceFields.model_validate(entry) for name, entry in values.items()}
