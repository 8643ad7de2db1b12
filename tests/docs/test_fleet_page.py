"""docs/fleet.md says what the code does: its SQL, its settings, its figures, its commands."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import psycopg
import pytest
import yaml

from relaygw.cli.drain import drain
from relaygw.delivery.waits import HEARTBEAT_S, LEASE_S
from relaygw.settings.load import load_settings
from relaygw.settings.model import check_queue_url
from relaygw.store import migrate
from relaygw.store.postgres import RECONNECT_S
from relaygw.store.store import open_store
from relaygw.supervisor import DRAIN_S
from tests.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/fleet.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
    return str(found)


def test_the_role_of_the_page_may_do_all_that_a_gateway_does(postgres: PostgresServer) -> None:
    name = f"fleet{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        for statement in block("sql").replace("relaygw", name).split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())
        url = postgres.url(name).replace("relaygw@", f"{name}@")
        try:
            migrate.upgrade(url)
            store = open_store(url)
            assert store.instances.registered() == []
            store.close()
        finally:
            postgres.drop_database(url)
            connection.execute(f"DROP ROLE {name}".encode())


def test_the_settings_of_the_page_load_over_the_file_to_start_from(tmp_path: Path) -> None:
    file = tmp_path / "relaygw.yaml"
    base = yaml.safe_load((ROOT / "config/gateway-fleet.yaml").read_text())
    file.write_text(yaml.safe_dump(base | yaml.safe_load(block("yaml"))))
    (listener,) = load_settings(config=file, environ={"HOME": "/"}).settings.listeners
    balancer = re.search(r"bind :(\d+)", block("haproxy"))
    assert balancer is not None and int(balancer[1]) == listener.bind.port
    assert "send-proxy-v2" in block("haproxy") and listener.proxy_protocol


def test_the_address_with_two_hosts_is_taken() -> None:
    (url,) = re.findall(r"`(postgresql://[^`]+)`", PAGE)
    assert check_queue_url(url) == url


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("heartbeat every 5 s", HEARTBEAT_S),
        ("After 20 s without one", LEASE_S),
        ("waits up to 10 s", RECONNECT_S),
        ("within 30 s more", DRAIN_S),
    ],
)
def test_the_figures_are_those_of_the_code(text: str, value: float) -> None:
    assert text in PAGE.replace("\n", " ")
    found = re.search(r"(\d+) s", text)
    assert found is not None and float(found[1]) == value


def test_the_grace_is_that_of_drain() -> None:
    (grace,) = [option for option in drain.params if option.name == "grace_s"]
    assert f"`--grace` ({str(grace.default)[:-1]} s;" in PAGE


def test_the_commands_are_there() -> None:
    commands = (ROOT / "docs/commands.md").read_text()
    named = set(re.findall(r"relaygw ((?:db|queue) [a-z]+|status|drain)\b", PAGE))
    assert len(named) >= 5
    for name in named:
        assert f"`relaygw {name}`" in commands, name
