"""What `relaygw check` says to run ends what it found, and the service can use what it needs."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.forked import run_relaygw
from tests.queues import make_queue
from tests.rights import needs

SERVICE = pwd.getpwnam("nobody")
COMMAND = re.compile(r"run(?: as root)?: ((?:chgrp|chmod|chown) .*)$", re.MULTILINE)
MOST_ROUNDS = 2


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # tmp_path is for this user alone
        directory = Path(name)
        directory.chmod(0o755)
        for part in ("secrets", "state", "log", "maildrop"):
            (directory / part).mkdir()
            os.chown(directory / part, SERVICE.pw_uid, SERVICE.pw_gid)
        make_queue(f"sqlite:///{directory}/state/queue.db")
        os.chown(directory / "state/queue.db", SERVICE.pw_uid, SERVICE.pw_gid)
        key = directory / "secrets/key"
        key.write_text("a-secret\n")
        key.chmod(0o640)
        os.chown(key, 0, SERVICE.pw_gid)
        yield directory


def configuration(place: Path) -> Path:
    provider = {
        "host": "smtp.example.com",
        "username": "u",
        "password": f"file:{place}/secrets/key",
    }
    settings: dict[str, Any] = {
        "mode": "production",
        "queue": {"url": f"sqlite:///{place}/state/queue.db"},
        "maildrop": {"path": f"{place}/maildrop"},
        "log": {"target": f"file:{place}/log/mail.log"},
        "providers": {"main": provider},
        "routes": [{"name": "default", "providers": ["main"]}],
    }
    config = place / "relaygw.yaml"
    config.write_text(yaml.safe_dump(settings))
    return config


TROUBLES = {
    "a secret of root that all may read": lambda place: change(place / "secrets/key", 0, 0, 0o644),
    "a secret of root alone": lambda place: change(place / "secrets/key", 0, 0, 0o600),
    "a secret of the service that all may read": lambda place: change(
        place / "secrets/key", SERVICE.pw_uid, SERVICE.pw_gid, 0o644
    ),
    "a directory of root": lambda place: change(place / "secrets", 0, 0, 0o700),
    "a configuration of root": lambda place: change(place / "relaygw.yaml", 0, 0, 0o600),
    "a log of root": lambda place: change_new(place / "log/mail.log", 0, 0o600),
    "a directory of the log": lambda place: change(place / "log", 0, 0, 0o755),
    "a maildrop of root": lambda place: change(place / "maildrop", 0, 0, 0o755),
    "a queue of root": lambda place: change(place / "state/queue.db", 0, 0, 0o600),
}


def change(path: Path, uid: int, gid: int, mode: int) -> None:
    os.chown(path, uid, gid)
    path.chmod(mode)


def change_new(path: Path, uid: int, mode: int) -> None:
    path.touch()
    change(path, uid, 0, mode)


def found_by_check(config: Path) -> str:
    done = run_relaygw(
        ["--config", str(config), "check"], capture_output=True, text=True, check=False
    )
    return "\n".join(line for line in done.stderr.splitlines() if "hostname" not in line)


@needs("root")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_it_says_to_run_ends_it(place: Path, trouble: str) -> None:
    config = configuration(place)
    assert not COMMAND.findall(found_by_check(config))
    TROUBLES[trouble](place)
    for _ in range(MOST_ROUNDS):
        found = found_by_check(config)
        commands = COMMAND.findall(found)
        for command in commands:
            subprocess.run(["sh", "-c", command], check=True)
        if not commands:
            break
    assert not COMMAND.findall(found_by_check(config)), found
    as_service = {"user": SERVICE.pw_uid, "group": SERVICE.pw_gid, "extra_groups": []}
    key = place / "secrets/key"
    subprocess.run(["cat", key], check=True, capture_output=True, **as_service)
    assert not key.stat().st_mode & 0o007
    log = "log/mail.log" if (place / "log/mail.log").exists() else "log"
    for path in ("state/queue.db", "maildrop", log):
        subprocess.run(["test", "-w", place / path], check=True, **as_service)


@needs("root")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_it_is_found(place: Path, trouble: str) -> None:
    config = configuration(place)
    TROUBLES[trouble](place)
    assert COMMAND.findall(found_by_check(config))
