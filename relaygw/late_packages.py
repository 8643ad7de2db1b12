"""Packages that are loaded when something first needs them: whether they are there is seen early.

Loaded at the start, the pages' alone would take 9 MB (PSS) of each gateway.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from relaygw.errors import PackageMissing

PACKAGES = {
    "alembic": "alembic",
    "anyio": "anyio",
    "argon2": "argon2-cffi",
    "flufl.bounce": "flufl.bounce",  # of the process that reads bounce mails
    "httpx2": "httpx2",
    "idna": "idna",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",  # of jinja2
    "nh3": "nh3",
    "standardwebhooks": "standardwebhooks",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
}
"""Modules that every installation has, and the packages that bring them."""
_FIRST_TEMPLATE = Path(__file__).parent / "web/templates/base.html"


def missing_parts() -> Iterator[str]:
    """Yield what of the program is not there; loads none of it, so what is broken may be there."""
    for module, package in PACKAGES.items():
        if not _is_there(module):
            yield str(PackageMissing(package))
    if not os.access(_FIRST_TEMPLATE, os.R_OK):
        yield (
            f"{_FIRST_TEMPLATE}: this template of the pages is not there, or not for this user; "
            "install relaygw again"
        )


def missing_package(error: ModuleNotFoundError) -> PackageMissing:
    """Return the warning about a module that could not be loaded."""
    module = (error.name or str(error)).partition(".")[0]
    return PackageMissing(PACKAGES.get(module, module))


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # not even what it is in
        return False
