"""A gateway that was killed under traffic, and what was done to its files before the next start."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from smtplib import SMTPException

import pytest

from relaygw.mail.state import DeliveryState
from relaygw.store import log_check
from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.ports import free_port
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import RelaygwProcess, run_relaygw

CLIENTS = 3
ENOUGH = 60
PAGE = 4096
LOG_HEADER = 32
FRAME_HEADER = 24


@dataclass(frozen=True)
class Killed:
    """The state directory of a gateway after SIGKILL, and the mail that it had acknowledged."""

    state: Path
    acknowledged: frozenset[str]

    def copied_to(self, directory: Path) -> Path:
        """Copy all of it; return the database."""
        shutil.copytree(self.state, directory / "state", ignore=shutil.ignore_patterns("wake"))
        return directory / "state/queue.db"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    directory = tmp_path_factory.mktemp("killed")
    acknowledged: list[str] = []
    enough = threading.Event()
    with Gateway(directory, providers={"p": provider_settings(free_port())}) as gateway:

        def send_on() -> None:
            with suppress(OSError, SMTPException):  # the end comes in the middle
                while True:
                    content = b"Subject: order\r\n\r\n" + b"x" * 3000 + b"\r\n"
                    acknowledged.append(gateway.send("shop@a.test", ["c@b.test"], content))
                    if len(acknowledged) >= ENOUGH:
                        enough.set()

        clients = [threading.Thread(target=send_on) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        assert enough.wait(PATIENCE_S)
        kill_with_a_log(gateway, directory / "state/queue.db")
        for client in clients:
            client.join()
    return Killed(directory / "state", frozenset(acknowledged))


def log_of(database: Path) -> Path:
    return database.with_name("queue.db-wal")


def length_of_log(database: Path) -> int:
    """Return how many bytes of the log are in use: it is written again from its start."""
    log = log_of(database).read_bytes()
    salts, frame = log[16:24], PAGE + FRAME_HEADER
    starts = range(LOG_HEADER, len(log) - frame + 1, frame)
    in_use = takewhile(lambda start: log[start + 8 : start + 16] == salts, starts)
    return LOG_HEADER + frame * sum(1 for _ in in_use)


def kill_with_a_log(gateway: Gateway, database: Path) -> None:
    """Kill all at a moment when mail stands in the log: not right after it began anew."""
    while True:
        for pid in gateway.processes():
            os.kill(pid, signal.SIGSTOP)
        if length_of_log(database) > ENOUGH * PAGE:
            gateway.kill_all()
            return
        for pid in gateway.processes():
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)


def is_marked(database: Path) -> bool:
    """Tell whether the file itself says that it has a log."""
    with suppress(log_check.DriverError):  # it is being written
        return log_check.mark_of(database) is not None
    return False


def remove_log(database: Path) -> None:
    log_of(database).unlink()


def empty_log(database: Path) -> None:
    os.truncate(log_of(database), 0)


def cut_log(database: Path) -> None:
    os.truncate(log_of(database), length_of_log(database) // 2 // PAGE * PAGE)


def spoil_log(database: Path) -> None:
    with log_of(database).open("r+b") as log:
        log.seek(LOG_HEADER + 3 * (PAGE + FRAME_HEADER) + 500)
        log.write(os.urandom(64))


def swap_log(database: Path) -> None:
    other = database.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE other (text)")
        connection.commit()
        shutil.copy(other.with_name("other.db-wal"), log_of(database))


def leave_all_but_database(database: Path) -> None:
    alone = database.read_bytes()
    shutil.rmtree(database.parent)
    database.parent.mkdir(mode=0o700)
    database.write_bytes(alone)


def run(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a relaygw command with a gateway's configuration."""
    return run_relaygw(
        ["--config", str(gateway.config), *words],
        env=gateway.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def start_refused(gateway: Gateway) -> str:
    """Start a gateway that must not start; return what it said."""
    gateway.write_config()
    process = RelaygwProcess(
        ["--config", str(gateway.config), "serve"],
        env={**gateway.environment, "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    said = ""
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            said += line
            if "started: mode" in line:
                process.kill()
                break
    assert process.wait() == os.EX_DATAERR, said
    return said


@pytest.mark.parametrize(
    "damage",
    [remove_log, empty_log, cut_log, spoil_log, swap_log, leave_all_but_database],
)
def test_a_queue_without_its_whole_log_is_refused_and_the_remedy_is_told(
    killed: Killed, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(killed.copied_to(tmp_path))
    before = {path.name: path.stat().st_size for path in (tmp_path / "state").glob("queue.db*")}
    gateway = Gateway(tmp_path, providers={"p": provider_settings(free_port())})
    said = start_refused(gateway)
    assert "queue.db-wal" in said
    assert "relaygw db recover" in said
    checked = run(gateway, "db", "check")
    assert checked.returncode == os.EX_DATAERR, checked
    assert "queue.db-wal" in checked.stderr
    after = {path.name: path.stat().st_size for path in (tmp_path / "state").glob("queue.db*")}
    assert {name: after.get(name) for name in before} == before, "nothing was changed"


def remove_database(database: Path) -> None:
    database.unlink()


def empty_database(database: Path) -> None:
    os.truncate(database, 0)


@pytest.mark.parametrize("damage", [remove_database, empty_database])
def test_a_log_without_its_database_is_kept_and_nothing_is_begun_beside_it(
    killed: Killed, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    database = killed.copied_to(tmp_path)
    whole, log = database.read_bytes(), log_of(database).read_bytes()
    damage(database)
    gateway = Gateway(tmp_path, providers={"p": provider_settings(free_port())})
    assert "put it back beside the log" in start_refused(gateway)
    for words in (["db", "upgrade"], ["db", "check"], ["queue", "list"]):
        refused = run(gateway, *words)
        assert refused.returncode == os.EX_DATAERR, refused
        assert "put it back beside the log" in refused.stderr
    assert log_of(database).read_bytes() == log
    database.write_bytes(whole)
    with gateway:
        assert killed.acknowledged <= {entry.queue_id for entry in gateway.queue()}


def test_a_second_start_leaves_the_files_of_a_gateway_whose_database_was_moved(
    tmp_path: Path,
) -> None:
    providers = {"p": provider_settings(free_port())}
    with Gateway(tmp_path, providers=providers) as gateway:
        content = b"Subject: order\r\n\r\nhello\r\n"
        acknowledged = {gateway.send("a@a.test", ["b@b.test"], content) for _ in range(10)}
        # nothing of it opens a connection just now, which would make a new file under the name
        os.killpg(gateway.processes()[0], signal.SIGSTOP)
        database = tmp_path / "state/queue.db"
        moved = database.rename(tmp_path / "moved.db")
        second = run(gateway, "serve")
        assert second.returncode == os.EX_DATAERR, second
        assert "put it back beside the log" in second.stderr
        assert not database.exists()
        gateway.kill_all()
        moved.rename(database)
        gateway.start()
        assert acknowledged <= {entry.queue_id for entry in gateway.queue()}


def test_all_files_together_start_again_with_all_that_was_acknowledged(
    killed: Killed, tmp_path: Path
) -> None:
    killed.copied_to(tmp_path)
    with Gateway(tmp_path, providers={"p": provider_settings(free_port())}) as gateway:
        assert killed.acknowledged <= {entry.queue_id for entry in gateway.queue()}


def by_backup(database: Path) -> None:
    copy = database.with_name("copy.db")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    leave_only(database, copy)


def by_vacuum(database: Path) -> None:
    copy = database.with_name("copy.db")
    with closing(sqlite3.connect(database)) as source:
        source.execute(f"VACUUM INTO '{copy}'")
    leave_only(database, copy)


def leave_only(database: Path, copy: Path) -> None:
    content = copy.read_bytes()
    shutil.rmtree(database.parent)
    database.parent.mkdir(mode=0o700)
    database.write_bytes(content)


@pytest.mark.parametrize("back_up", [by_backup, by_vacuum])
def test_a_backup_that_sqlite_made_starts_without_a_word(
    killed: Killed, tmp_path: Path, back_up: Callable[[Path], None]
) -> None:
    back_up(killed.copied_to(tmp_path))
    with Gateway(tmp_path, providers={"p": provider_settings(free_port())}) as gateway:
        assert killed.acknowledged <= {entry.queue_id for entry in gateway.queue()}
        assert not [line for line in gateway.lines if "recover" in line]


def test_what_is_recovered_without_its_log_is_held_until_somebody_lets_it_go(
    killed: Killed, tmp_path: Path
) -> None:
    database = killed.copied_to(tmp_path)
    with closing(sqlite3.connect(database)) as connection:  # moves the log; it is not known who did
        connection.execute("SELECT count(*) FROM message").fetchone()
    shutil.rmtree(database.with_name("queue.db.locks"))
    with ThreadedProvider() as provider:
        gateway = Gateway(tmp_path, providers={"p": provider_settings(provider.port)})
        gateway.write_config()
        recovered = run(gateway, "db", "recover")
        assert recovered.returncode == 0, recovered
        assert "held" in recovered.stdout
        assert run(gateway, "db", "check").returncode == 0
        with gateway:
            queue = gateway.queue()
            states = {part.state for entry in queue for part in entry.deliveries}
            assert states <= {DeliveryState.HELD}
            assert {part.reason for entry in queue for part in entry.deliveries} <= {"recovered"}
            gateway.send("shop@a.test", ["c@b.test"], b"Subject: new\r\n\r\nhello\r\n")
            provider.wait_for_messages(1)
            gateway.wait_until(lambda: len(gateway.queue()) == len(queue), "only what is held")
            run(gateway, "queue", "release", "--reason", "recovered", "--yes")
            gateway.wait_until_empty()
            provider.wait_for_messages(1 + len(queue))


def pages_with(database: Path, words: bytes) -> Iterator[int]:
    content = database.read_bytes()
    for start in range(PAGE, len(content), PAGE):
        if words in content[start : start + PAGE]:
            yield start


def test_a_damaged_queue_gives_back_each_mail_or_tells_its_id(
    killed: Killed, tmp_path: Path
) -> None:
    database = killed.copied_to(tmp_path)
    with closing(sqlite3.connect(database)) as connection:  # its end moves the log
        connection.execute("SELECT count(*) FROM message").fetchone()
    content = list(pages_with(database, b"xxxxxxxx"))
    rows = list(pages_with(database, b"shop@a.test"))
    with database.open("r+b") as file:
        for start in (content[5], content[11], rows[len(rows) // 2]):
            file.seek(start)
            file.write(os.urandom(PAGE))
    gateway = Gateway(tmp_path, providers={"p": provider_settings(free_port())})
    gateway.write_config()
    checked = run(gateway, "db", "check")
    assert checked.returncode == os.EX_DATAERR, checked
    recovered = run(gateway, "db", "recover")
    assert recovered.returncode == 0, recovered
    with gateway:
        queued = {entry.queue_id for entry in gateway.queue()}
        whole = {queue_id for queue_id in queued if len(gateway.content(queue_id)) > 3000}
    assert whole == queued
    named = {queue_id for queue_id in killed.acknowledged if queue_id in recovered.stdout}
    assert queued | named >= killed.acknowledged
    assert queued
    assert named
    again = run(gateway, "db", "recover")
    assert again.returncode == 0
    assert "nothing" in again.stdout


def readiness(gateway: Gateway) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.web_port}/readyz") as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_log_that_goes_while_it_is_used_ends_the_intake_and_loses_nothing(
    tmp_path: Path,
) -> None:
    providers = {"p": provider_settings(free_port())}
    content = b"Subject: order\r\n\r\n" + b"x" * 3000 + b"\r\n"
    with Gateway(tmp_path, providers=providers, has_web=True) as gateway:
        acknowledged = {gateway.send("shop@a.test", ["c@b.test"], content) for _ in range(20)}
        assert readiness(gateway) == 200
        database = tmp_path / "state/queue.db"
        # a reader may be in the way of the first commits, and a log without it is not missed
        gateway.wait_until(lambda: is_marked(database), "the mark in the database")
        log_of(database).unlink()
        with suppress(AssertionError):  # what is taken while it is found out is safe, too
            for _ in range(20):
                acknowledged.add(gateway.send("shop@a.test", ["c@b.test"], content))
            pytest.fail("the front took twenty messages without a log")
        with gateway.connect() as client:
            for command in (b"HELO c", b"MAIL FROM:<a@b.test>", b"RCPT TO:<c@b.test>", b"DATA"):
                client.command(command)
            assert client.command(b"Subject: x\r\n\r\n.").startswith("451 4.3.0")
        gateway.wait_for_log("queue.db-wal.*relaygw")
        gateway.wait_until(lambda: readiness(gateway) == 503, "not ready")
        assert run(gateway, "queue", "list").returncode == os.EX_DATAERR
        gateway.kill_all()
    with Gateway(tmp_path, providers=providers) as gateway:
        assert acknowledged <= {entry.queue_id for entry in gateway.queue()}
