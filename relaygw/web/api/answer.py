"""What the answers of the gateway's API are made of: each is checked against its class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema


def said(description: str, **more: Any) -> Any:
    """Return a field with a description."""
    return Field(description=description, **more)


def one_of(values: Iterable[str]) -> WithJsonSchema:
    """Return the schema of a text that is one of these."""
    return WithJsonSchema({"type": "string", "enum": sorted(map(str, values))})


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
QueueId = Annotated[str, Field(pattern=r"^[A-Z0-9]{10,20}$")]


class Answer(BaseModel):
    """An object that always has exactly these fields."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
