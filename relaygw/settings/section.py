"""What all sections of the model share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

# strict: without it pydantic reads `true` as the number 1
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
"""A whole number from 1."""
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


class Section(BaseModel):
    """Base of all sections: frozen, an unknown key is an error, null means the default."""

    # inputs stay out of exception texts: one of them may be a password in a wrong place
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if v is not None or k not in cls.model_fields}
