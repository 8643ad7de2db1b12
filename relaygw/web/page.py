"""Templates to answers: Jinja2 with escaping always on, addresses below `web.base_path`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from relaygw import __version__
from relaygw.web.gate.guards import PAGE_HEADERS
from relaygw.web.gate.principal import Role, principal_of
from relaygw.web.static_files import static_path
from relaygw.web.words import counted

# names of hosts in a mail are not looked up just because its links are listed
_NO_LOOKUPS = {"X-DNS-Prefetch-Control": "off"}

_environment = Environment(
    loader=PackageLoader("relaygw.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals.update(counted=counted, version=__version__, mode="")
_environment.filters["number"] = lambda number: f"{number:,}"


def render(
    request: Request, name: str, context: Mapping[str, Any], *, status_code: int = 200
) -> Response:
    """Return the page that template `name` makes of `context`.

    Templates also have `principal` (or None), `csrf`, `is_operator`, `is_admin`, `url(path)` and
    `static(name)`.
    """
    page = render_text(request.scope.get("root_path", ""), name, {**_who(request), **context})
    headers = {**PAGE_HEADERS, **_NO_LOOKUPS}
    return HTMLResponse(page, status_code=status_code, headers=headers)


def render_text(root_path: str, name: str, context: Mapping[str, Any]) -> str:
    """Return what template `name` makes of `context`, for somebody who is not known."""
    return _environment.get_template(name).render(
        url=lambda path: root_path + path,
        static=lambda name: root_path + static_path(name),
        **context,
    )


def _who(request: Request) -> dict[str, Any]:
    principal = principal_of(request)
    role = principal.role if principal else 0
    return {
        "principal": principal,
        "csrf": principal.csrf if principal else "",
        "is_operator": role >= Role.OPERATOR,
        "is_admin": role >= Role.ADMIN,
    }
