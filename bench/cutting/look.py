"""What is on an image, by the gateway's own code: its checks, store and reader of drop files."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from bench.rig.message import digest, identify
from bench.rig.postgres import PostgresServer
from relaygw import roles
from relaygw.errors import RelaygwError
from relaygw.inbound.drop_file import DropReader
from relaygw.mail.drop import MAX_CONTENT_BYTES, is_complete
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.settings.load import load_settings
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store

_ALL = frozenset(DeliveryState)
_MOST = 10_000_000


@dataclass(slots=True)
class Found:
    """Messages by id; those that wait with the digest of what is stored."""

    queued: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)  # files of the maildrop
    delivered: set[str] = field(default_factory=set)
    twice: set[str] = field(default_factory=set)  # ids with more than one message in the queue
    problems: list[str] = field(default_factory=list)  # of the database and of files


def look(config: Path, state_home: Path, server: PostgresServer | None) -> Found:
    """Open the queue and the maildrop of a configuration as the gateway does after a cut."""
    found = Found()
    environment = {**os.environ, "XDG_STATE_HOME": str(state_home)}
    loaded = load_settings(config=config, environ=environment)
    try:
        found.problems += roles.examine_queue(loaded)
        roles.prepare_schema(loaded)
        with closing(roles.open_store(loaded)) as store:
            _read_queue(store, found)
    except RelaygwError as error:
        found.problems.append(f"{type(error).__name__}: {error}")
    if server is None:
        found.problems += _integrity(Path(loaded.settings.queue.url.removeprefix("sqlite:///")))
    else:
        found.problems += server.amcheck()
    if loaded.settings.maildrop.path is not None:
        _read_maildrop(Path(loaded.settings.maildrop.path), found)
    return found


def _read_queue(store: Store, found: Found) -> None:
    for entry in store.queue.search(Selection(states=_ALL), limit=_MOST):
        (recipient,) = entry.recipients
        message_id = recipient.address.partition("@")[0]
        if message_id in found.queued or message_id in found.delivered:
            found.twice.add(message_id)
        if any(part.state in OPEN for part in entry.deliveries):
            content = _content(store, entry)
            found.queued[message_id] = _digest(entry.sender, recipient.address, content)
        elif recipient.state == "delivered":
            found.delivered.add(message_id)


def _content(store: Store, entry: QueueEntry) -> bytes:
    chunks = (store.intake.read_chunk(entry.queue_id, n) for n in range(entry.chunk_count))
    return b"".join(chunk for chunk in chunks if chunk is not None)


def _digest(sender: str, recipient: str, content: bytes) -> str:
    return digest(sender, recipient, identify(content)[1])


def _integrity(database: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
        lines = [line for (line,) in connection.execute("PRAGMA integrity_check")]
    return [] if lines == ["ok"] else lines


def _read_maildrop(directory: Path, found: Found) -> None:
    names = deque(one.name for one in directory.iterdir() if is_complete(one.name))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        reader = DropReader(descriptor, limit_bytes=MAX_CONTENT_BYTES, spool_directory=directory)
        while names:
            batch = reader.read_batch(names)
            drops = [
                *batch.drops,
                *(one for name in batch.large for one in reader.read_large(name).drops),
            ]
            for drop in drops:
                (recipient,) = drop.recipients
                content = b"".join(drop.content.chunks(drop.content.head))
                drop.content.close()
                message_id = recipient.partition("@")[0]
                found.dropped[message_id] = _digest(drop.sender or "", recipient, content)
            # the name of a file says that it is whole
            found.problems += [f"{name}: not whole" for name in batch.unfinished]
            found.problems += [f"{name}: {reason}" for name, reason in batch.unfit]
            found.problems += [f"{name}: {error}" for name, error in batch.broken]
    finally:
        os.close(descriptor)
