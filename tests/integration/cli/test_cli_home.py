"""What commands say of a queue that belongs to another machine, and `relaygw db adopt`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from relaygw import roles
from relaygw.settings.load import load_settings
from relaygw.store import home as homes
from relaygw.store.home import Home, Machine, home_elsewhere
from relaygw.store.store import open_store
from tests.builders import NOW_MS, instance
from tests.integration.cli.conftest import Desk

HERE, CONTAINER, NOWHERE = Machine("h" * 32), Machine("", is_container=True), Machine("")
WORDS = "the queue belongs to another machine (shop1.test)"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    be(monkeypatch, HERE)
    yield


def be(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    for module in (roles, homes):
        monkeypatch.setattr(module, "this_machine", lambda: machine)


def mark_of(desk: Desk) -> str:
    return homes.mark_at(load_settings(config=desk.config, environ={}).settings, HERE)


def copy_queue(desk: Desk) -> None:
    """Have a copy of the file take the place of it, as of a copy beside it."""
    desk.store.close()
    path = Path(desk.url.removeprefix("sqlite:///"))
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)
    desk.store = open_store(desk.url)


def test_a_copy_of_the_file_on_the_same_machine_is_held(desk: Desk) -> None:
    settings = load_settings(config=desk.config, environ={}).settings
    roles.prepare_schema(load_settings(config=desk.config, environ={}))
    assert home_elsewhere(desk.store.homes, settings, HERE) is None
    path = Path(desk.url.removeprefix("sqlite:///"))
    path.rename(path.with_name("there.db"))
    path.with_name("there.db").rename(path)
    assert home_elsewhere(desk.store.homes, settings, HERE) is None
    copy_queue(desk)
    roles.prepare_schema(load_settings(config=desk.config, environ={}))
    said = " ".join(desk.run("status").stdout.split())
    assert "the queue belongs to another file of this machine" in said
    assert desk.run("db", "adopt").stdout.startswith("adopted: ")
    assert home_elsewhere(desk.store.homes, settings, HERE) is None


def test_a_home_of_before_learns_its_file(desk: Desk) -> None:
    desk.store.homes.learn(Home(mark=HERE.mark, hostname="gw.shop.test", since_ms=NOW_MS))
    roles.prepare_schema(load_settings(config=desk.config, environ={}))
    home = desk.store.homes.home()
    assert home is not None
    assert home.mark == mark_of(desk)


def test_what_was_restored_or_recovered_here_stays_at_home(desk: Desk, tmp_path: Path) -> None:
    roles.prepare_schema(load_settings(config=desk.config, environ={}))
    assert desk.run("db", "backup", str(tmp_path / "copy")).exit_code == 0
    desk.store.close()
    restored = desk.run("db", "restore", str(tmp_path / "copy"), "--yes")
    assert (restored.exit_code, "nothing is sent" in restored.stderr) == (0, False)
    desk.store = open_store(desk.url)
    home = desk.store.homes.home()
    assert home is not None
    assert home.mark == mark_of(desk)


def move_elsewhere(desk: Desk) -> None:
    desk.store.homes.learn(Home(mark="m" * 32, hostname="shop1.test", since_ms=NOW_MS))


def test_everybody_who_asks_is_told_and_adopting_ends_it(desk: Desk) -> None:
    queue_id = desk.add("a@cust.test")
    worker = instance("w")
    desk.store.instances.register(worker)
    assert WORDS not in desk.run("status").stdout
    move_elsewhere(desk)
    assert WORDS in " ".join(desk.run("status").stdout.split())
    explained = " ".join(desk.run("queue", "explain", queue_id).stdout.split())
    assert WORDS in explained
    assert "relaygw db adopt" in explained
    adopted = desk.run("db", "adopt")
    assert (adopted.exit_code, adopted.stdout) == (
        0,
        "adopted: the queue belonged to another machine (shop1.test)\n"
        f"it belongs to gw.shop.test (id {HERE.mark[:8]}) now\nwaiting: 1 delivery\n",
    )
    assert "made this machine the home of the queue" in desk.run("audit").stdout
    for words in (("status",), ("queue", "explain", queue_id)):
        assert WORDS not in " ".join(desk.run(*words).stdout.split())
    assert "nothing to do" in desk.run("db", "adopt").stdout


def test_a_restored_queue_keeps_its_home_and_says_so(desk: Desk, tmp_path: Path) -> None:
    move_elsewhere(desk)
    copy = tmp_path / "copy"
    assert desk.run("db", "backup", str(copy)).exit_code == 0
    desk.run("db", "adopt")
    desk.store.close()
    desk.store = Mock()
    restored = desk.run("db", "restore", str(copy), "--yes")
    assert restored.exit_code == 0
    assert WORDS in restored.stderr
    assert desk.run("db", "adopt").stdout.startswith("adopted: ")
    desk.store = open_store(desk.url)
    home = desk.store.homes.home()
    assert home is not None
    assert (home.mark, home.hostname) == (mark_of(desk), "gw.shop.test")


@pytest.mark.parametrize(
    ("mark", "machine", "mode", "is_held"),
    [
        ("m", HERE, "production", True),
        ("m", HERE, "staging", False),
        ("m", HERE, "sandbox", False),
        ("m", CONTAINER, "production", False),
        ("m", Machine("x", is_container=True), "production", False),
        ("m", NOWHERE, "production", True),
        (HERE.mark, HERE, "production", False),
        ("", HERE, "production", False),  # adopted on a machine without an id
        (None, HERE, "production", False),  # of a version that noted none
        (None, NOWHERE, "production", False),
    ],
)
def test_who_is_held(
    desk: Desk, mark: str | None, machine: Machine, mode: str, is_held: bool
) -> None:
    settings = load_settings(config=desk.config, environ={"RELAYGW__MODE": mode}).settings
    found = None if mark is None else Home(mark=mark, hostname="a", since_ms=NOW_MS)
    mine = Mock(home=Mock(return_value=found))
    assert (home_elsewhere(mine, settings, machine) is not None) is is_held


def test_a_machine_without_an_id_may_adopt_and_gets_one_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_elsewhere(desk)
    be(monkeypatch, NOWHERE)
    assert desk.run("db", "adopt").stdout.startswith("adopted: ")
    assert WORDS not in " ".join(desk.run("status").stdout.split())
    be(monkeypatch, HERE)
    roles.prepare_schema(load_settings(config=desk.config, environ={}))
    home = desk.store.homes.home()
    assert home is not None
    assert home.mark == mark_of(desk)


def test_in_a_container_nothing_is_learnt_and_nothing_adopted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, CONTAINER)
    roles.prepare_schema(load_settings(config=desk.config, environ={}))
    assert desk.store.homes.home() is None
    move_elsewhere(desk)
    assert desk.run("db", "adopt").stdout == (
        "the queue belongs to no machine, as in every container: nothing to do\n"
    )
