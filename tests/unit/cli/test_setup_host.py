"""What setup does on a host: files with their owners, and systemd as a program of its name says."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from relaygw.cli import setup_host as host
from relaygw.cli.frame import CommandFailed
from relaygw.cli.setup_plan import NewFile
from relaygw.settings.load import DEFAULT_FILE
from relaygw.settings.model import Settings
from tests.rights import needs

WEB = host.user_entry("www-data")
SYSTEMCTL = """#!/bin/sh
echo "$@" >>{calls}
case "$1" in
{cases}
esac
"""


class Systemd:
    """A systemctl that notes what it is asked, and answers as it is told to."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._program = directory / "systemctl"
        self._calls = directory / "calls"
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        self.runs = directory / "systemd"
        self.runs.mkdir()
        monkeypatch.setattr(host, "_RUNS_SYSTEMD", self.runs)
        self.answer()

    def answer(self, **codes: int) -> None:
        cases = "".join(
            f"{verb.replace('_', '-')}) echo no $1 >&2; exit {code};;\n"
            for verb, code in codes.items()
        )
        self._program.write_text(SYSTEMCTL.format(calls=self._calls, cases=cases + "*) exit 0;;"))
        self._program.chmod(0o755)
        self._calls.write_text("")

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    return Systemd(tmp_path, monkeypatch)


def test_units_are_known_where_systemd_runs_and_has_them(
    systemd: Systemd,
) -> None:
    assert host.has_units()
    systemd.answer(cat=1)
    assert not host.has_units()
    systemd.answer()
    systemd.runs.rmdir()
    assert not host.has_units()
    assert systemd.calls() == []


def test_it_is_enabled_and_started_and_a_failure_names_the_journal(systemd: Systemd) -> None:
    assert host.is_enabled()
    systemd.answer(is_active=3)
    assert not host.is_enabled()
    systemd.answer()
    host.enable(is_new=False)
    units = "relaygw.socket relaygw.service"
    calls = ["daemon-reload", f"enable {units}", f"reset-failed {units}", f"start {units}"]
    assert systemd.calls() == calls
    systemd.answer(reset_failed=1)
    host.enable(is_new=False)
    assert systemd.calls() == calls
    systemd.answer(stop=1)
    with pytest.raises(CommandFailed, match=r"systemctl stop .*: no stop; see: journalctl"):
        host.enable(is_new=True)


def test_what_starts_the_gateway_is_systemd_where_it_has_the_service(systemd: Systemd) -> None:
    units = "relaygw.socket relaygw.service"
    assert host.start_command(DEFAULT_FILE) == f"systemctl start {units}"
    assert host.start_command(Path("/other.yaml")) == "relaygw serve"
    systemd.answer(is_enabled=1)
    assert host.start_command(DEFAULT_FILE) == f"systemctl enable --now {units}"


def test_an_address_that_another_program_has_is_named_before_anything_is_enabled(
    systemd: Systemd,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        host.refuse_taken_addresses(settings(bind))  # by relaygw itself: it is active
        systemd.answer(is_active=3)
        with pytest.raises(CommandFailed, match=rf"cannot listen on {bind}: .* nothing was enab"):
            host.refuse_taken_addresses(settings(bind))
    host.refuse_taken_addresses(settings(bind))
    assert {call.split()[0] for call in systemd.calls()} == {"is-active"}


def test_other_listeners_are_told_to_the_socket() -> None:
    assert host.socket_file(settings("127.0.0.1:25")) is None
    told = host.socket_file(settings("0.0.0.0:25", "[::1]:587"))
    assert told is not None
    assert told.text == "[Socket]\nListenStream=\nListenStream=0.0.0.0:25\nListenStream=[::1]:587\n"


def settings(*binds: str) -> Settings:
    return Settings.model_validate(
        {
            "mode": "sandbox",
            "web": {"bind": "127.0.0.1:0"},
            "listeners": [{"bind": one, "allow": ["10.0.0.0/8"]} for one in binds],
        }
    )


@needs("root")
def test_files_belong_to_the_service_and_to_root(tmp_path: Path) -> None:
    assert WEB is not None
    owner = host.Owner(WEB)
    own = NewFile(path=tmp_path / "own", is_own=True)
    secret = NewFile(path=own.path / "key", text="s3cr3t\n", is_own=True)
    config = NewFile(path=tmp_path / "config", text="mode: sandbox\n")
    for one in (own, secret, config):
        host.write(one, owner)
    found = {one: one.path.stat() for one in (own, secret, config)}
    assert [(stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) for s in found.values()] == [
        (0o700, WEB.pw_uid, WEB.pw_gid),
        (0o600, WEB.pw_uid, WEB.pw_gid),
        (0o640, 0, WEB.pw_gid),
    ]
    assert owner.words(secret) == "mode 0600, www-data:www-data"
    assert owner.words(config) == "mode 0640, root:www-data"
    with pytest.raises(FileExistsError):
        host.write(config, owner)
    assert "s3cr3t" not in repr(secret)


def test_files_of_nobody_else_are_the_callers_alone(tmp_path: Path) -> None:
    config = NewFile(path=tmp_path / "config", text="mode: sandbox\n")
    host.write(config, host.Owner(None))
    assert stat.S_IMODE(config.path.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [config.path]


def test_its_own_file_for_the_socket_follows_the_listeners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "relaygw.socket.d/listeners.conf"
    monkeypatch.setattr(host, "DROP_IN", file)
    usual, gateway = settings("127.0.0.1:25"), settings("0.0.0.0:25")
    assert host.socket_change(usual) == ""
    for wanted, change in ((gateway, "write"), (settings("[::1]:25"), "write"), (usual, "remove")):
        assert host.socket_change(wanted) == change
        host.put_socket_file(wanted)
        assert host.socket_change(wanted) == ""
    assert not file.exists()
    file.write_text("[Socket]\nFreeBind=no\n")
    with pytest.raises(CommandFailed, match=r"lacks the addresses of listeners \(0.0.0.0:25\)"):
        host.socket_change(gateway)
