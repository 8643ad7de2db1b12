"""A queue whose schema has the right number and lacks something: refused, in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from sqlalchemy import text

from relaygw.errors import SchemaMismatch
from relaygw.mail.clock import clock_ms
from relaygw.store import recovery
from relaygw.store.database import Place
from relaygw.store.migrate import _BESIDE, check_parts, check_schema, current_revision
from relaygw.store.schema import index_names, metadata
from relaygw.store.selection import Selection
from relaygw.store.store import open_store
from tests.builders import accepted
from tests.e2e.gateway import Gateway
from tests.forked import run_relaygw
from tests.queues import make_queue

_MIGRATIONS = Path(__file__).parents[2] / "migrations/versions"
_LANDED = Path(__file__).with_name("landed_migrations.json")


@pytest.fixture(params=["sqlite", "postgres"])
def own_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a queue whose schema a test may change."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    return url


def change(url: str, *statements: str) -> None:
    store = open_store(url)
    with store.database.write() as tx:
        for one in statements:
            tx.execute(text(one))
    store.close()


def test_what_lacks_is_named(own_url: str) -> None:
    place = Place.of(own_url)
    check_parts(place)
    change(
        own_url,
        "DROP TABLE recent_mail",
        "ALTER TABLE storm DROP COLUMN held",
        "DROP INDEX incident_open",
    )
    wanted = ["table recent_mail", "column storm.held", "index recent_mail_at"]
    with pytest.raises(SchemaMismatch, match=", ".join(wanted)) as refused:
        check_parts(place)
    assert "lacks table" in str(refused.value) and "; restore a backup, or " in str(refused.value)
    assert "index incident_open: it was made by" in str(refused.value)
    check_schema(place)  # the number is as it was


@pytest.mark.parametrize(("command", "exit_code"), [("db check", 78), ("serve", 69)])
def test_neither_a_start_nor_a_check_takes_it(
    tmp_path: Path, own_url: str, command: str, exit_code: int
) -> None:
    change(own_url, "DROP TABLE recent_mail")
    (tmp_path / "gw").mkdir()
    gateway = Gateway(tmp_path / "gw", mode="sandbox", queue={"url": own_url})
    gateway.write_config()
    words = ("--config", gateway.config, *command.split())
    done = run_relaygw(words, capture_output=True, text=True, timeout=90)
    assert done.returncode == exit_code, done.stderr
    assert "lacks table recent_mail, index recent_mail_at: it was made by" in done.stderr


def test_a_queue_of_a_later_version_is_told_and_not_waited_for(
    tmp_path: Path, own_url: str
) -> None:
    """Nothing is changed, and systemd does not start it again: 78."""
    change(own_url, "UPDATE alembic_version SET version_num = '0099'")
    (tmp_path / "gw").mkdir()
    gateway = Gateway(tmp_path / "gw", mode="sandbox", queue={"url": own_url})
    gateway.write_config()
    for command in ("serve", "status", "db upgrade", "db check"):
        words = ("--config", gateway.config, *command.split())
        done = run_relaygw(words, capture_output=True, text=True, timeout=90)
        assert done.returncode == 78, (command, done.stderr)
        assert "the queue has schema 0099, newer than " in done.stderr
        assert "install the version that made it" in done.stderr
        assert "run: relaygw db upgrade" not in done.stderr
    assert current_revision(own_url) == "0099"


def test_a_schema_of_another_kind_is_not_called_newer(own_url: str) -> None:
    change(own_url, "UPDATE alembic_version SET version_num = 'a1b2c3d4e5f6'")
    with pytest.raises(SchemaMismatch, match="a1b2c3d4e5f6, which this version does not know"):
        check_schema(Place.of(own_url))


def test_each_part_is_looked_for(own_url: str) -> None:
    """None may be missed: what is in the code is compared with what a look names."""
    how = " CASCADE" if own_url.startswith("postgresql:") else ""
    change(own_url, *(f"DROP TABLE {name}{how}" for name in metadata.tables))
    parts = [f"table {name}" for name in metadata.tables]
    parts += [f"index {name}" for name in index_names() if not how or name not in _BESIDE]
    with pytest.raises(SchemaMismatch, match=f"lacks {', '.join(parts)}: "):
        check_parts(Place.of(own_url))
    assert len(set(parts)) == len(parts) > 60


def test_recovery_of_such_a_queue_makes_a_whole_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store, message = open_store(url), accepted()
    store.intake.accept_batch([message])
    store.close()
    change(url, "DROP TABLE recent_mail", "ALTER TABLE storm DROP COLUMN held")
    done = recovery.recover(url, is_released=False, now_ms=clock_ms(), tell=lambda _: None)
    assert (done.recovered, done.held, done.damaged) == (1, 0, {})
    check_parts(Place.of(url))
    store = open_store(url)
    assert [one.queue_id for one in store.queue.search(Selection(), limit=9)] == [message.queue_id]
    store.close()
    again = recovery.recover(url, is_released=False, now_ms=clock_ms(), tell=lambda _: None)
    assert again.aside is None


def test_a_migration_that_landed_is_never_changed() -> None:
    """A queue that has it would keep the old form under the same number: write another one.

    A new migration is noted here with its digest.
    """
    landed = json.loads(_LANDED.read_text())
    now = {
        one.name: hashlib.sha256(one.read_bytes()).hexdigest()[:16]
        for one in sorted(_MIGRATIONS.glob("*.py"))
    }
    assert now == landed
