"""The queue, as commands open it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from relaygw.errors import StoreUnavailable

if TYPE_CHECKING:
    from relaygw.settings.load import LoadedSettings
    from relaygw.store.store import Store


@contextmanager
def open_queue(loaded: LoadedSettings) -> Iterator[Store]:
    """Open the queue of a configuration. Raises SchemaMismatch, StoreUnavailable, SettingsError."""
    from relaygw import roles

    if not loaded.settings.queue.is_postgres:
        check_queue_file(loaded.settings.queue.url)
    with closing(roles.open_store(loaded)) as store:
        yield store


def check_queue_file(url: str) -> None:
    """Raise StoreUnavailable where SQLite would make a new file or tell less."""
    path = Path(url.removeprefix("sqlite:///"))
    try:
        path.stat()
    except FileNotFoundError:
        from relaygw.store.store import refuse_lost_database

        refuse_lost_database(path)
        raise StoreUnavailable(
            f"{path}: no queue there yet; relaygw setup, or relaygw serve, creates it"
        ) from None
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}; run this as relaygw's user") from error
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreUnavailable(f"{path}: Permission denied; run this as relaygw's user")
