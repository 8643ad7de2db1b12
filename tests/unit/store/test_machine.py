"""Which machine this is, as far as its files say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from relaygw.store.home import PROGRAM, Machine, this_machine
from tests.rights import needs

AN_ID = "0f9a3c5d7e1b42a68c0d2e4f6a8b1c3d"


@pytest.fixture(autouse=True)
def outside_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "container"):
        monkeypatch.delenv(name, raising=False)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_id_is_told_from_others_and_is_not_shown(tmp_path: Path) -> None:
    write(tmp_path, "etc/machine-id", AN_ID + "\n")
    mine = this_machine(tmp_path)
    assert len(mine.mark) == 32
    assert mine.mark != AN_ID
    assert mine == this_machine(tmp_path)
    write(tmp_path, "etc/machine-id", AN_ID.replace("0", "1") + "\n")
    assert this_machine(tmp_path).mark not in ("", mine.mark)


@needs("id")
def test_it_is_the_one_that_systemd_derives() -> None:
    words = ["systemd-id128", "machine-id", f"--app-specific={PROGRAM}"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert this_machine().mark == told.strip()


@pytest.mark.parametrize("text", ["", "\n", "uninitialized\n", "0" * 32, AN_ID[:-1], "é" * 32])
def test_what_is_no_id_is_none(tmp_path: Path, text: str) -> None:
    write(tmp_path, "etc/machine-id", text)
    assert this_machine(tmp_path) == Machine("")
    write(tmp_path, "var/lib/dbus/machine-id", AN_ID)  # of a machine without systemd
    assert this_machine(tmp_path).mark


@pytest.mark.parametrize("name", [".dockerenv", "run/.containerenv", "run/systemd/container"])
def test_a_container_is_known_by_what_made_it(tmp_path: Path, name: str) -> None:
    assert not this_machine(tmp_path).is_container
    write(tmp_path, name, "")
    assert this_machine(tmp_path).is_container
