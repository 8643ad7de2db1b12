"""What root's commands make in a directory of state belongs to its owner; who that is."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from relaygw import state_owner
from relaygw.cli import check_findings, main, setup_host
from relaygw.cli.db import _make_directory
from relaygw.errors import SettingsUnreadable, StoreUnavailable
from relaygw.settings import load
from relaygw.settings.load import load_settings
from relaygw.settings.secrets import sharing_command
from relaygw.store.queue_lock import lock_directory_of
from relaygw.store.store import open_store
from tests.forked import run_relaygw
from tests.integration.cli.conftest import Desk
from tests.rights import needs

pytestmark = needs("root")

USER, GROUP = 4321, 4322


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory that other users may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def queue(desk: Desk) -> Iterator[Path]:
    """The queue of a desk, which nobody has open."""
    desk.add("a@cust.test")
    desk.store.close()
    yield Path(desk.url.removeprefix("sqlite:///"))
    desk.store = open_store(desk.url)


def give(*paths: Path, uid: int = USER, gid: int = GROUP) -> None:
    for path in paths:
        os.chown(path, uid, gid, follow_symlinks=False)


def run(desk: Desk, *words: str) -> str:
    """Run a command in a process that has loaded all: not all may read the program of tests."""
    done = run_relaygw(["--config", desk.config, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_files_of_the_queue_belong_to_its_owner_and_root_is_named(desk: Desk, queue: Path) -> None:
    shutil.rmtree(lock_directory_of(queue))
    give(queue.parent, queue)
    run(desk, "queue", "hold", "--all", "--yes")
    made = [*queue.parent.rglob("*")]
    assert {one.name for one in made} >= {"users", "progress", "lock", "gate", "turnstile"}
    assert {(one.stat().st_uid, one.stat().st_gid) for one in made} == {(USER, GROUP)}
    assert '"actor":"root' in run(desk, "audit", "--json")


@pytest.mark.parametrize("is_there", [True, False])
def test_the_queue_belongs_to_whom_it_belonged(
    desk: Desk, queue: Path, tmp_path: Path, is_there: bool
) -> None:
    copy = tmp_path / "queue.copy"
    run(desk, "db", "backup", str(copy))
    give(queue.parent, *queue.parent.rglob("*"))
    if not is_there:
        for one in sorted(queue.parent.rglob("*"), reverse=True):
            one.rmdir() if one.is_dir() else one.unlink()
    run(desk, "db", "restore", str(copy), "--yes")
    found = {one.name: one.stat().st_uid for one in queue.parent.rglob("*")}
    assert found.keys() >= {"queue.db", "queue.db.locks", "users"}
    assert set(found.values()) == {USER}, found


def test_the_directory_of_a_queue_is_made_for_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_host, "SERVICE_USER", "www-data")
    _make_directory(f"sqlite:///{tmp_path}/state/queue.db")
    made = (tmp_path / "state").stat()
    assert made.st_uid == pwd.getpwnam("www-data").pw_uid
    assert stat.S_IMODE(made.st_mode) == 0o700


# --- who the owner is -----------------------------------------------------------------------


def test_a_directory_that_is_to_be_made_has_the_owner_of_that_above(tmp_path: Path) -> None:
    give(tmp_path)
    assert state_owner.owner_of(tmp_path / "a/b").st_uid == USER
    (tmp_path / "link").symlink_to("a/../b")
    give(tmp_path / "link")
    assert state_owner.owner_of(tmp_path / "link/state").st_uid == USER


@pytest.mark.parametrize("what", ["a link", "a parent", "a mode", "a group", "a loop"])
def test_others_may_not_choose_whom_root_becomes(tmp_path: Path, what: str) -> None:
    parent = tmp_path / "parent"
    (parent / "state").mkdir(parents=True)
    path = parent / "state"
    give(path)
    assert state_owner.owner_of(path).st_uid == USER
    if what == "a link":
        path = parent / "link"
        path.symlink_to(tmp_path)
        give(path)
    elif what == "a parent":
        give(parent, uid=USER + 1)
    elif what == "a loop":
        path = parent / "link"
        path.symlink_to(path)
    else:
        parent.chmod(0o777 if what == "a mode" else 0o775)
        give(parent, uid=0, gid=GROUP + 1)
    told = {"a loop": "Too many levels", "a link": "is a link of .* to .*; remove it"}
    expected = told.get(what, "chown -h root .* && chmod go-w ")
    with pytest.raises(StoreUnavailable, match=expected):
        state_owner.owner_of(path)
    give(path, uid=0, gid=0)
    if what in ("a mode", "a group"):
        with pytest.raises(StoreUnavailable, match=r"chmod go-w [^,]*$"):
            state_owner.owner_of(path)
        give(path)
    parent.chmod(0o1777)
    if what in ("a mode", "a group"):
        assert state_owner.owner_of(path).st_uid == USER, "there names are their owners'"


def test_what_is_started_meanwhile_cannot_become_root(tmp_path: Path) -> None:
    give(tmp_path)
    with state_owner.as_owner_of(tmp_path):
        assert os.getresuid() == (USER, USER, 0)
        assert os.getresgid() == (GROUP, GROUP, GROUP)
        assert os.getgroups() == []
        with state_owner.as_caller():
            assert os.geteuid() == 0
        shown = ["grep", "-h", "^[UG]id\\|^Groups\\|^CapPrm", "/proc/self/status"]
        said = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        child = os.fork()
        if child == 0:
            state_owner.forget_caller()
            try:
                os.setresuid(0, 0, 0)
            except PermissionError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    assert os.getresuid() == (0, 0, 0)
    assert said.split() == [
        "Uid:", *[str(USER)] * 4, "Gid:", *[str(GROUP)] * 4, "Groups:", "CapPrm:", "0" * 16,
    ]  # fmt: skip


@pytest.mark.parametrize("is_of_root", [True, False])
def test_a_file_named_by_root_is_read_as_the_owner_of_its_directory(
    tmp_path: Path, *, is_of_root: bool
) -> None:
    state, place = tmp_path / "state", tmp_path / "place"
    for one in (state, place):
        one.mkdir()
    give(state, *([] if is_of_root else [place]))
    with state_owner.as_owner_of(state), state_owner.as_reader_of(place / "file"):
        assert os.geteuid() == (0 if is_of_root else USER)


def test_check_acts_as_the_user_of_the_unit_wherever_the_queue_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, state = tmp_path / "relaygw.yaml", tmp_path / "state"
    config.write_text(f"mode: sandbox\nqueue: {{url: 'sqlite:///{state}/queue.db'}}\n")
    state.mkdir(mode=0o700)
    give(state)
    loaded = load_settings(config=config, environ={})
    user = pwd.getpwnam("www-data")
    shown = ["User=www-data", "ProtectSystem=no"]
    monkeypatch.setattr(setup_host, "shown_of_service", lambda *_: shown)
    for is_of_service, uid in ((False, USER), (True, user.pw_uid)):
        monkeypatch.setattr(check_findings, "is_of_service", lambda _, answer=is_of_service: answer)
        check_findings.act_as_service(loaded)
        acting, groups = os.geteuid(), {os.getegid(), *os.getgroups()}
        found = [*check_findings.closed_places(loaded)]
        state_owner.return_to_caller()
        assert (acting, user.pw_gid in groups) == (uid, is_of_service)
    told = f"queue.url: www-data may not write to {state}; run as root: chown www-data {state}"
    assert (True, told) in found


@pytest.mark.parametrize(("user", "is_seen"), [("www-data", True), ("games", False)])
def test_check_says_nothing_of_the_rights_of_a_bystander(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, is_seen: bool
) -> None:
    config, closed = tmp_path / "relaygw.yaml", tmp_path / "closed"
    closed.mkdir(mode=0o700)
    config.write_text(
        f"mode: sandbox\nqueue: {{url: 'sqlite:///{closed}/queue.db'}}\n"
        "heartbeat_url: env:RELAYGW_TEST_UNSET\nlog: {target: 'file:/var/log/mail.log'}\n"
        "providers: {p: {preset: postmark, password: env:X, events: "
        "{secret: env:RELAYGW_TEST_UNSET}}}\nevents: {bind: '0.0.0.0:8026'}\n"
    )
    config.chmod(0o644)
    command = ["check", "--config", str(config)]
    CliRunner().invoke(main, command)  # as root: not all may read the program, which this loads
    monkeypatch.setattr(setup_host, "shown_of_service", lambda *_: ["User=www-data"])
    for module in (check_findings, setup_host):
        monkeypatch.setattr(module, "is_of_service", lambda _: True)
    state_owner.become_user(pwd.getpwnam(user))
    monkeypatch.setattr(state_owner, "caller_uid", os.geteuid)
    done = CliRunner().invoke(main, command)
    assert ("run it as root to see what the service sees" in done.stderr) is not is_seen
    for words in (f"may not write to {closed}", "heartbeat_url: env:", "/var/log is the system's"):
        assert (words in done.stderr) is is_seen
    assert "chown www-data /var/log" not in done.stderr


def test_the_remedy_for_a_link_opens_the_directories_on_both_ways(tmp_path: Path) -> None:
    live, archive = tmp_path / "live/gw", tmp_path / "archive/gw"
    for directory in (live, archive):
        directory.mkdir(parents=True)
    (archive / "key1.pem").write_text("key")
    (link := live / "key.pem").symlink_to("../../archive/gw/key1.pem")
    for closed in (live, live.parent, archive.parent, archive / "key1.pem"):
        closed.chmod(0o600 if closed.is_file() else 0o700)
    give(state := tmp_path)
    with state_owner.as_owner_of(state):
        command = sharing_command(link)
    assert str(archive) not in command.split()  # whose mode lets everybody enter
    subprocess.run(command, shell=True, check=True)
    with state_owner.as_owner_of(state):
        assert link.read_text() == "key"


def test_the_remedies_let_the_service_list_and_read_the_parts_of_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, state = tmp_path / "relaygw.yaml", tmp_path / "state"
    config.write_text(f"queue: {{url: 'sqlite:///{state}/queue.db'}}\n")
    (parts := tmp_path / "conf.d").mkdir(mode=0o700)
    (part := parts / "a.yaml").write_text("mode: sandbox\n")
    part.chmod(0o600)
    state.mkdir()
    give(state)
    loaded = load_settings(config=config, environ={})

    def remedies() -> list[str]:
        with state_owner.as_owner_of(state):
            return [
                text.partition("; run as root: ")[2]
                for text in check_findings.file_problems(loaded)
            ]

    for is_of_directory in (True, False):
        found = remedies()
        assert any(command.endswith(f" {parts}") for command in found) is is_of_directory
        assert found
        subprocess.run(found[0], shell=True, check=True)
    assert remedies() == []
    monkeypatch.setenv("STATE_DIRECTORY", str(state))  # as systemd does
    with state_owner.as_owner_of(state):
        assert load_settings(config=config, environ={}).files == (config, part)
    parts.chmod(0o700)
    monkeypatch.setattr(load, "place_below", lambda _: "/home/shop")
    hidden = f"systemd hides /home/shop, where {parts} leads, from the service"
    with state_owner.as_owner_of(state), pytest.raises(SettingsUnreadable, match=hidden):
        load_settings(config=config, environ={})
    monkeypatch.setattr(load, "place_below", lambda _: None)
    with state_owner.as_owner_of(state):  # no rights help where systemd hides them
        assert [*check_findings.file_problems(loaded, {str(parts), str(part)})] == []
    with state_owner.as_owner_of(state), pytest.raises(SettingsUnreadable) as caught:
        load_settings(config=config, environ={})
    subprocess.run(str(caught.value).partition("; run as root: ")[2], shell=True, check=True)
    assert remedies() == []
