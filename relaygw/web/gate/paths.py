"""Paths below `web.base_path`, which is the root path of every request that gets in."""

from __future__ import annotations

import re

from starlette.types import Scope

LOGIN, LOGOUT = "/login", "/logout"
_FREE = frozenset({LOGIN, "/healthz", "/livez", "/readyz"})
_MACHINE = ("/api/", "/view/", "//view/", "/metrics")  # two slashes: see api/routes.py
# what a browser takes for another host, or drops before it looks, is no path here
_OWN_PATH = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]*)?")
_STEPS_UP = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
DOCS = "/api/docs"
"""A page for people among what is for programs."""
MAX_PATH = 2000
"""Characters of a path that is kept until after a login."""


def route_path(scope: Scope) -> str:
    """Return the path of a request without `web.base_path`."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_free(path: str) -> bool:
    """True for what everybody may ask for: the login page and what it is made of, health."""
    return path in _FREE or path.startswith("/static/")


def is_for_programs(path: str) -> bool:
    """True where programs log in by HTTP basic or a token, and nobody is sent to a page."""
    return path.startswith(_MACHINE) and path != DOCS


def own_path(text: str, root_path: str) -> str:
    """Return `text` if it is a path of ours to go to after a login, else the first page.

    Never another host, however a browser reads it, and nothing that breaks a header.
    """
    is_path = len(text) <= MAX_PATH and _OWN_PATH.fullmatch(text) is not None
    # a browser takes these for steps out of the root path, also when they are encoded
    is_path = is_path and not _STEPS_UP.search(text.partition("?")[0])
    below = text.removeprefix(root_path) if is_path and text.startswith(root_path + "/") else "/"
    gate = below.partition("?")[0].partition("#")[0]
    return root_path + ("/" if gate in (LOGIN, LOGOUT) else below)
