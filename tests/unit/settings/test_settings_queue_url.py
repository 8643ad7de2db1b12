"""The URL of the queue, where it names several servers."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import make_url

from relaygw.settings.model import check_queue_url


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgresql://u@db1:5433,db2:5434/q", "db1,db2", "5433,5434"),
        ("postgresql://u@db1:5433,db2/q", "db1,db2", "5433,5432"),
        ("postgresql://u@[::1]:5433,db2/q", "::1,db2", "5433,5432"),
        ("postgresql://u@/q?host=db1,db2&port=5433,5434", "db1,db2", "5433,5434"),
    ],
)
def test_several_servers_with_ports(url: str, hosts: str, ports: str) -> None:
    separator = "&" if "?" in url else "?"
    checked = check_queue_url(f"{url}{separator}target_session_attrs=read-write")
    assert make_url(checked).query["host"] == hosts
    told = conninfo_to_dict(checked)
    assert (told["host"], told["port"], told["user"]) == (hosts, ports, "u")
    assert told["target_session_attrs"] == "read-write"


def test_one_server_stays_as_written() -> None:
    for url in ("postgresql://u@db:5433/q", "postgresql://u@db1,db2/q", "postgresql://[::1]/q"):
        assert check_queue_url(url) == url


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="names no database"):
        check_queue_url("postgresql://u@db1:5433,db2:x/q")
