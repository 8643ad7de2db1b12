"""Pages: Jinja2 templates with escaping always on, and the static files that they name.

Addresses are below `web.base_path`. That of a static file holds the hash of its content, so a
browser may keep it for ever. These files are few and small, and stay in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from relaygw import __version__
from relaygw.web.gate.guards import PAGE_HEADERS
from relaygw.web.gate.identity import Role, principal_of
from relaygw.web.words import counted

MAX_NOTE_CHARACTERS = 200
_DIRECTORY = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES = {path.name: path.read_bytes() for path in _DIRECTORY.iterdir() if path.suffix in _TYPES}
_VERSIONS = {name: hashlib.sha256(body).hexdigest()[:16] for name, body in _FILES.items()}


def static_path(name: str) -> str:
    """Return the path of a file below `web.base_path`; raises KeyError for one there is not."""
    return f"/static/{_VERSIONS[name]}/{name}"


def static_routes() -> list[Route]:
    """Return the route of all files; everybody may read them."""
    return [Route("/static/{version}/{name}", _show, methods=["GET"])]


async def _show(request: Request) -> Response:
    name = request.path_params["name"]
    if _VERSIONS.get(name) != request.path_params["version"]:
        raise HTTPException(404)
    return Response(
        _FILES[name],
        media_type=_TYPES[Path(name).suffix],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )


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


def redirect(request: Request, path: str) -> Response:
    """Return the answer that leads to another page, by GET."""
    return RedirectResponse(request.scope.get("root_path", "") + path, status_code=303)


def note_of(form: FormData) -> str:
    """Return what an operator wrote why something is held or ended, on one line."""
    return " ".join(str(form.get("note", "")).split())[:MAX_NOTE_CHARACTERS]


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


_WORDS = {
    "read": "{} marked as read.",
    "unread": "{} marked as unread.",
    "deleted": "{} deleted.",
    "tagged": "Tags of {} changed.",
    "held": "{} held.",
    "released": "{} released: due now.",
    "retried": "{} due now.",
    "trashed": "{} in the trash for seven days.",
    "undeleted": "{} back in the queue: due now.",
    "moved": "{} moved.",
    "expired": "{} expired.",
    "provider_held": "The provider is held.",
    "provider_released": "The provider is released.",
}


def with_notice(path: str, did: str, number: int) -> str:
    """Return `path` so that its page says what was done."""
    given = urlencode({"did": did, "number": number})
    return f"{path}{'&' if '?' in path else '?'}{given}"


def notice_of(parameters: Mapping[str, str]) -> str:
    """Return what was done, "" when nothing was."""
    number = parameters.get("number", "")
    words = _WORDS.get(parameters.get("did", ""))
    if words is None or not (number.isascii() and number.isdigit() and len(number) < 10):
        return ""
    return words.format(counted(int(number), "message"))
