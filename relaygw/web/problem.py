"""A request that cannot be answered as it was asked, in the parts that help to ask again."""

from __future__ import annotations

from starlette.exceptions import HTTPException


class Problem(HTTPException):
    """Says what is wrong, what was expected and what to do; its text is for everyone."""

    def __init__(
        self,
        status_code: int,
        what: str,
        *,
        expected: str = "",
        remedy: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        text = what + (f"; expected {expected}" if expected else "")
        super().__init__(status_code, f"{text}; {remedy}" if remedy else text, headers)
        self.what = what
        self.expected = expected
        self.remedy = remedy
