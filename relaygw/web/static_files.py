"""Style sheet, scripts and pictures of the pages: read once, named by their content.

An address holds the hash of what it leads to, so a browser may keep it for ever, and a new
version has a new address. The files are few and small, and stay in memory.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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
