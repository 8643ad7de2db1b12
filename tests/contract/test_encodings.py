"""Mail in every language on PostgreSQL: in a database that can hold it, whatever a role has set."""

from __future__ import annotations

import os
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.errors import UnfitServer
from relaygw.store.database import Place
from relaygw.store.migrate import set_up_if_empty
from relaygw.store.selection import Selection
from relaygw.store.store import open_store
from tests.builders import accepted
from tests.e2e.gateway import Gateway
from tests.e2e.pooler import pooler
from tests.forked import run_relaygw
from tests.postgres import PostgresServer
from tests.queues import make_queue


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_all_mail_is_refused_with_the_remedy(
    tmp_path: Path, postgres: PostgresServer, encoding: str
) -> None:
    how = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    url = postgres.create_database(how)
    wanted = rf"encoding {encoding}, .* CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
    with pytest.raises(UnfitServer, match=wanted):
        set_up_if_empty(Place.of(url))
    with closing(open_store(url)) as store, pytest.raises(UnfitServer, match=wanted):
        store.instances.registered()
    gateway = Gateway(tmp_path, mode="sandbox", queue={"url": url})
    gateway.write_config()
    for command, exit_code in (("check", os.EX_CONFIG), ("serve", os.EX_UNAVAILABLE)):
        words = ("--config", gateway.config, command)
        done = run_relaygw(words, capture_output=True, text=True, timeout=90)
        assert done.returncode == exit_code, done.stderr
        assert re.search(wanted, done.stderr)
    assert postgres.execute("SELECT to_regclass('message')", url) == [(None,)]
    postgres.drop_database(url)


@pytest.mark.parametrize("is_pooled", [False, True], ids=["direct", "pooled"])
def test_a_role_of_another_encoding_keeps_every_subject(
    postgres: PostgresServer, postgres_url: str, is_pooled: bool
) -> None:
    make_queue(postgres_url)
    database = postgres_url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {database} SET client_encoding = latin1")
    if is_pooled:
        with pooler(postgres, postgres_url, "transaction") as url:
            keep_subject(url)
    else:
        keep_subject(postgres_url)


def keep_subject(url: str) -> None:
    with closing(open_store(url)) as store:
        message = replace(accepted(), subject="5 € für Ωmega 雪")
        store.intake.accept_batch([message])
        (found,) = store.queue.search(Selection(), limit=9)
        assert found.subject == message.subject
