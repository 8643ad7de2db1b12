"""All tables as one, to compare schemas."""

from __future__ import annotations

from sqlalchemy import MetaData

import relaygw.store.queue_tables
import relaygw.store.side_tables  # noqa: F401
from relaygw.store.schema import metadata, partial_indexes


def whole_metadata() -> MetaData:
    """Return `metadata` with its partial indexes, whose dialects cost 3 MiB: to compare schemas."""
    while partial_indexes:
        partial_indexes.pop()()
    return metadata
