"""Who is asking, and what that one may do.

`access` finds out before any endpoint runs, so an endpoint only asks here. Reading needs no
call of `require`: nobody without the role viewer gets as far as an endpoint, and whoever is
only a viewer sends no unsafe method past `access`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

_STATE_KEY = "principal"


class Role(IntEnum):
    """What somebody may do; each role may do what those before it may."""

    VIEWER = 1  # reads
    OPERATOR = 2  # deletes, tags, marks, releases to whom the lists allow
    ADMIN = 3  # releases to anyone

    @property
    def word(self) -> str:
        """The role as it is written in relaygw.yaml."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is asking: the name for the audit trail, the role, and the token for forms.

    `csrf` goes into each form as the field `csrf`, or into the header X-CSRF-Token.
    """

    name: str
    role: Role
    csrf: str
    how: Literal["session", "password", "token", "open"]  # open: nobody has to log in here

    @property
    def is_admin(self) -> bool:
        """True for the role that may release to anyone."""
        return self.role is Role.ADMIN


def principal_of(connection: HTTPConnection) -> Principal | None:
    """Return who sends a request or opens a websocket; None only where nobody has to log in:
    the login page, static files and health.
    """
    found: Principal | None = connection.scope.get("state", {}).get(_STATE_KEY)
    return found


def require(connection: HTTPConnection, role: Role) -> Principal:
    """Return who is asking if that one has `role` or more.

    Raises HTTPException: 401 for nobody, 403 for too small a role.
    """
    principal = principal_of(connection)
    if principal is None:
        raise HTTPException(401, "log in first")
    if principal.role < role:
        raise HTTPException(
            403, f"{principal.name} has the role {principal.role.word}; this needs {role.word}"
        )
    return principal


def set_principal(connection: HTTPConnection, principal: Principal) -> None:
    """Say who is asking; only `access` does."""
    connection.scope.setdefault("state", {})[_STATE_KEY] = principal
