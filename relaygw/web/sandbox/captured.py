"""Captured mail as pages and API find it."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

from relaygw.store.captured import CapturedEntry
from relaygw.web.context import Desk, is_queue_id

MAX_TAGS = 20
"""Of a message."""
MAX_TAG_CHARACTERS = 100


def captured_of(desk: Desk, request: Request) -> CapturedEntry:
    """Return the captured message that the path names; raises 404 if there is none."""
    queue_id = request.path_params["queue_id"]
    found = desk.store.captured_entry(queue_id) if is_queue_id(queue_id) else None
    if found is None:
        raise HTTPException(404)
    return found
