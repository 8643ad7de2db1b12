"""Root's commands and the packages' scripts where the service's user has put links and pipes.

Nothing of root's is changed, read out or run as root, whatever lies in the directories of that
user. The commands are those of the parser, so that a new one is among them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from relaygw.cli import main
from relaygw.store.store import open_store
from tests.builders import accepted
from tests.forked import RelaygwProcess
from tests.queues import make_queue
from tests.rights import needs

pytestmark = needs("root")

SERVICE = pwd.getpwnam("nobody")
SCRIPTS = Path(__file__).parents[2] / "packaging/scripts"
TMPFILES = Path(__file__).parents[2] / "packaging/tree/usr/lib/tmpfiles.d/relaygw.conf"
SECRET = "of-root-alone"
PATIENCE_S = 20.0
HANGS = -1
MADE_LATER = (
    "queue.db-wal", "queue.db-shm", "queue.db-journal", "queue.db.restoring", "queue.db.recovering",
    "queue.db.locks/moved", "draining", "service.pid",
)  # fmt: skip
"""What no command leaves behind, and some make."""
LOOKED_INTO = (
    "queue.db-wal", "queue.db-shm", "queue.db-journal", "users", "progress", "moved"
)  # fmt: skip
"""Files of a queue without which no command comes further."""
CONFIG = """\
mode: production
hostname: gw.test
queue: {{url: "sqlite:///{base}/home/state/queue.db"}}
listeners: [{{bind: "127.0.0.1:0"}}]
web: {{bind: "127.0.0.1:0"}}
maildrop: {{path: {base}/home/spool/maildrop}}
log: {{target: "file:{base}/home/log/mail.log"}}
providers: {{main: {{host: 127.0.0.1, port: 1, tls: none}}}}
routes: [{{name: default, providers: [main]}}]
alerts: [{{command: {base}/bin/notes-its-user}}]
"""
WORDS = {
    "check": ["--online"],
    "classify": ["main", "451 4.7.1 later"],
    "drain": ["--wait", "0s"],
    "guard allow": ["x"],
    "guard hold": ["x"],
    "guard release": ["x"],
    "import-postfix": ["{base}/root/postfix", "--output", "{base}/made/{number}.yaml"],
    "import-queue": ["{base}/root/postfix"],
    "install-sendmail": ["--prefix", "{base}/made/usr"],
    "db backup": ["{base}/made/{number}.db"],
    "db restore": ["{base}/root/copy.db", "--yes"],
    "queue export": ["--state", "all", "--output", "{base}/made/{number}.mbox"],
    "queue move": ["--all", "--to", "main", "--yes"],
    "send-test": ["--to", "a@b.test", "--timeout", "0"],
    "setup": ["--yes", "--offline", "--no-sendmail"],
    "shadow run": ["--maillog", "{base}/given"],
    "shadow report": ["{base}/given", "--output", "{base}/made/{number}.html"],
    "suppress add": ["a@b.test"],
    "suppress remove": ["a@b.test"],
    "webhooks replay": ["x", "--id", "x", "--yes"],
}
"""What commands are given that need more than one value of each argument's kind."""


def leaves(command: click.Command, *words: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of the parser, and what it is given."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, *words, name)
        return
    name = " ".join(words)
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    options = {two for one in command.params for two in one.opts}
    given = ["{base}/given" if isinstance(one.type, click.Path) else "x" for one in arguments]
    given += [option for option in ("--all", "--yes") if {"--all", "--yes"} <= options]
    given = given[1:] if {"--all", "--yes"} <= options else given  # not both ids and all
    yield name, [*words, *WORDS.get(name, given)]


COMMANDS = dict(leaves(main))


def give(path: Path) -> None:
    os.chown(path, SERVICE.pw_uid, SERVICE.pw_gid, follow_symlinks=False)


def own(path: Path, mode: int = 0o755) -> Path:
    path.mkdir(parents=True)
    path.chmod(mode)
    give(path)
    return path


@dataclass(frozen=True)
class Tree:
    """`home` is the service's, `root` is root's alone, `pristine` what lay in home at first."""

    base: Path

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def root(self) -> Path:
        return self.base / "root"

    def victims(self) -> dict[str, tuple[object, ...]]:
        """Return all that can be seen of what is root's."""
        found = {}
        for path in (self.root, *sorted(self.root.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            facts = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
            found[str(path)] = (*facts, hashlib.sha256(content).hexdigest())
        return found

    def restore(self) -> None:
        """Put into home what lay there at first."""
        for name in ("state", "spool", "log"):
            path = self.home / name
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
            subprocess.run(["cp", "-a", self.base / "pristine" / name, path], check=True)

    def run(self, words: list[str], number: int) -> tuple[int, str]:
        """Run a command as root; return its exit code and what it said. Fails if it hangs."""
        given = [one.format(base=self.base, number=number) for one in words]
        environment = {
            **os.environ, "HOME": "/nonexistent",
            "RELAYGW_RUN_DIR": str(self.home / "run"),
            "XDG_STATE_HOME": str(self.base / "usual"),
        }  # fmt: skip
        with RelaygwProcess(
            given, env=environment, cwd="/", stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                if "serve" in given:
                    self._wait_for_start(process)
                said, _ = process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                return HANGS, "it hangs"
        return process.returncode, said

    def users_of_programs(self, but: pwd.struct_passwd | None = None) -> list[str]:
        """Return as whom programs ran that note it, since the last time that this was asked."""
        found = list((self.base / "ran").iterdir())
        for one in found:
            one.unlink()
        return [one.name for one in found if but is None or one.name != str(but.pw_uid)]

    def _wait_for_start(self, process: RelaygwProcess) -> None:
        """Wait until a gateway has started, or ended by itself; let it end."""
        deadline_s = time.monotonic() + PATIENCE_S
        log = self.home / "log/mail.log"
        while process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                is_file = stat.S_ISREG(log.lstat().st_mode)
                if is_file and "relaygw/master" in log.read_text() and "started" in log.read_text():
                    break
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    with tempfile.TemporaryDirectory(prefix="relaygw-links-") as name:
        base = Path(name)
        base.chmod(0o755)
        own(base / "home")
        for one, mode in (("state", 0o700), ("spool", 0o755), ("log", 0o755), ("run", 0o755)):
            own(base / "home" / one, mode)
        own(base / "home/spool/maildrop", 0o3733)
        (base / "relaygw.yaml").write_text(CONFIG.format(base=base))
        (base / "given").write_text("nothing of note\n")
        for one in ("made", "bin", "ran"):
            (base / one).mkdir()
        (base / "ran").chmod(0o1777)
        notes = base / "bin/notes-its-user"
        notes.write_text(f"#!/bin/sh\nid -u >> {base}/ran/$(id -u)\n")
        notes.chmod(0o755)
        make_queue(f"sqlite:///{base}/home/state/queue.db")
        with contextlib.closing(open_store(f"sqlite:///{base}/home/state/queue.db")) as store:
            store.intake.accept_batch([accepted("c@cust.test")])
        for path in (base / "home/state").rglob("*"):
            give(path)
        root = base / "root"
        (root / "directory").mkdir(parents=True)
        (root / "postfix/active").mkdir(parents=True)
        (root / "postfix/pid").mkdir()
        (root / "postfix/pid/master.pid").touch()
        (root / "postfix/imported").mkdir()
        for path in (root / "secret", root / "directory/queue.db", root / "directory/lock"):
            path.write_text(f"{SECRET}\n")
            path.chmod(0o600)
        (root / "state").mkdir()
        make_queue(f"sqlite:///{root}/state/queue.db")
        with contextlib.closing(open_store(f"sqlite:///{root}/state/queue.db")) as store:
            store.intake.accept_batch([accepted(f"c@{SECRET}.test")])
        shutil.copy(root / "state/queue.db", root / "copy.db")
        root.chmod(0o700)
        tree = Tree(base)
        shutil.copytree(base / "home", base / "pristine")
        subprocess.run(["cp", "-a", "-T", base / "home", base / "pristine"], check=True)
        yield tree


def run_all(tree: Tree, prepare: Callable[[Tree, int], object], *before: str) -> None:
    """Run all commands, each after `prepare`, which gets its number; fail with what went wrong."""
    troubles = []
    for number, (name, words) in enumerate(COMMANDS.items()):
        tree.restore()
        prepare(tree, number)
        victims = tree.victims()
        code, said = tree.run([*before, *words], number)
        now = tree.victims()
        if now != victims:
            changed = [one for one in {**victims, **now} if victims.get(one) != now.get(one)]
            troubles.append(f"{name}: changed {changed}")
        if SECRET in said:
            troubles.append(f"{name}: told {said!r}")
        if code in (HANGS, os.EX_USAGE, os.EX_SOFTWARE):
            troubles.append(f"{name}: was not run, or broke: {said!r}")
        troubles += [f"{name}: a program ran as {one}" for one in tree.users_of_programs(SERVICE)]
    assert not troubles, "\n".join(troubles)


def in_place_of_files(
    tree: Tree, number: int, *kinds: Callable[[Tree, Path], object], but: tuple[str, ...] = ()
) -> None:
    """Put something in the place of each file but the database, one kind after the other."""
    files = {one for one in tree.home.rglob("*") if one.is_file()}
    files |= {tree.home / "state" / name for name in MADE_LATER}
    for path in sorted(one for one in files if one.name not in ("queue.db", *but)):
        path.unlink(missing_ok=True)
        kinds[number % len(kinds)](tree, path)
        number += 1
        if not path.samefile(tree.root / "secret"):
            give(path)


def link(tree: Tree, path: Path) -> None:
    path.symlink_to(tree.root / "secret")


def hard_link(tree: Tree, path: Path) -> None:
    os.link(tree.root / "secret", path)


def pipe(_: Tree, path: Path) -> None:
    os.mkfifo(path)


def in_place_of_directories(tree: Tree) -> None:
    """Put links to a directory of root's in the place of all but the state directory itself."""
    database = tree.home / "state/queue.db"
    for path in (*(tree.home / "state").iterdir(), tree.home / "spool/maildrop", tree.home / "log"):
        if path.is_dir():
            shutil.rmtree(path)
            path.symlink_to(tree.root / "directory")
            give(path)
    database.unlink()
    database.symlink_to(tree.root / "state/queue.db")
    give(database)


def in_place_of_the_state_directory(tree: Tree) -> None:
    shutil.rmtree(tree.home / "state")
    (tree.home / "state").symlink_to(tree.root / "state")
    give(tree.home / "state")


def in_place_of_either(tree: Tree, number: int) -> None:
    (in_place_of_directories, in_place_of_the_state_directory)[number % 2](tree)


def test_commands_work_as_the_owner_of_the_state_directory(tree: Tree) -> None:
    tree.restore()
    before = ["--config", str(tree.base / "relaygw.yaml")]
    for name in ("queue list", "db backup", "db restore", "queue export", "install-sendmail"):
        code, said = tree.run([*before, *COMMANDS[name]], 1000)
        # a program that others may not run is told
        assert code in (os.EX_OK, os.EX_NOPERM if name == "install-sendmail" else 0), (name, said)
    assert tree.run([*before, *COMMANDS["serve"]], 0)[0] == 0
    assert tree.run([*before, *COMMANDS["alerts test"]], 0)[0] == 0
    assert tree.users_of_programs() == [str(SERVICE.pw_uid)]
    found = {one: one.lstat().st_uid for one in tree.home.rglob("*")}
    assert set(found.values()) == {SERVICE.pw_uid}, found
    maildrop = (tree.home / "spool/maildrop").stat()
    assert stat.S_IMODE(maildrop.st_mode) == 0o3733
    copy = tree.base / "made/1000.db"
    assert (copy.stat().st_uid, stat.S_IMODE(copy.stat().st_mode)) == (0, 0o600)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda tree, number: in_place_of_files(tree, number, link, but=LOOKED_INTO),
        lambda tree, number: in_place_of_files(tree, number, pipe, link, hard_link),
        in_place_of_either,
    ],
    ids=["links", "pipes and links", "directories"],
)
def test_nothing_of_roots_is_changed_read_out_or_run(
    tree: Tree, prepare: Callable[[Tree, int], object]
) -> None:
    run_all(tree, prepare, "--config", str(tree.base / "relaygw.yaml"))


# --- entries of running gateways ------------------------------------------------------------

ENTRY = """
import fcntl, json, os, sys
directory, told = sys.argv[1:]
file = os.open(f"{directory}/{os.getpid()}.json", os.O_RDWR | os.O_CREAT, 0o644)
fcntl.lockf(file, fcntl.LOCK_EX)
os.write(file, json.dumps({**json.loads(told), "pid": os.getpid()}).encode())
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def entry_of(uid: int, directory: Path, **told: str) -> Iterator[None]:
    """Have a process of a user say that it is a gateway."""
    words = ["/usr/bin/python3", "-I", "-c", ENTRY, str(directory), json.dumps(told)]
    with subprocess.Popen(
        words, user=uid, group=SERVICE.pw_gid, extra_groups=[],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_what_an_entry_names_is_read_and_run_by_its_own_user(tree: Tree, mode: int) -> None:
    """In a directory that all may write to nobody is believed."""
    tree.restore()
    run = tree.home / "run"
    run.chmod(mode)
    os.mkfifo(run / "1.json")
    (run / "2.json").symlink_to(tree.root / "secret")
    evil = tree.home / "evil.yaml"
    url = "postgresql://a@127.0.0.1:1/b"
    password = f"command:{tree.base}/bin/notes-its-user"
    evil.write_text(f"mode: sandbox\nqueue: {{url: '{url}', password: '{password}'}}\n")
    give(evil)
    about = {"user": "relaygw", "queue": url, "state_dir": "/nowhere", "mode": "sandbox"}
    stranger = 4321
    try:
        for config in (evil, tree.root / "secret"):
            with entry_of(SERVICE.pw_uid, run, config=str(config), **about):
                for name in ("status", "queue list", "db check"):
                    code, said = tree.run(COMMANDS[name], 0)
                    assert (code, SECRET in said) == (os.EX_UNAVAILABLE, False), said
                    assert ("the gateway of user nobody: " in said) == (mode == 0o755), said
        expected = [str(SERVICE.pw_uid)] if mode == 0o755 else []
        assert tree.users_of_programs() == expected
        if mode == 0o777:
            run.chmod(0o1777)
            with entry_of(stranger, run, config=str(evil), **about):
                run.chmod(0o755)
                assert "no queue there yet" in tree.run(COMMANDS["status"], 0)[1]
            assert tree.users_of_programs() == []
    finally:
        shutil.rmtree(run)
        own(run)
        evil.unlink()


# --- scripts of the packages ----------------------------------------------------------------

STUBS = ("systemctl", "systemd-sysusers", "getent", "useradd", "userdel", "groupdel", "relaygw")


@pytest.fixture
def machine(tree: Tree) -> Iterator[Path]:
    """A place with the directories of the service, and with an empty queue; see `run_script`."""
    place = tree.base / "machine"
    for one in ("bin", "etc", "run", "usr/bin", "usr/lib/tmpfiles.d", "var/lib", "var/spool"):
        (place / one).mkdir(parents=True)
    (place / "var/log").mkdir()
    (place / "usr/lib/relaygw/lib/python3/site-packages/relaygw/__pycache__").mkdir(parents=True)
    for stub in (*(place / "bin" / name for name in STUBS), place / "usr/bin/relaygw"):
        stub.write_text("#!/bin/sh\n")
        stub.chmod(0o755)
    tmpfiles = place / "usr/lib/tmpfiles.d/relaygw.conf"
    tmpfiles.write_text(here(TMPFILES.read_text(), place))
    own(place / "var/lib/relaygw", 0o700)
    own(place / "var/spool/relaygw")  # as older versions had it
    yield place
    shutil.rmtree(place)


def here(text: str, place: Path) -> str:
    """Return a text of the packages about this place, and about the user of these tests."""
    text = re.sub(r"(?<![\w/.])/(var|etc|run|usr)/", rf"{place}/\1/", text)
    text = re.sub(r"\brelaygw:relaygw\b", "nobody:nogroup", text)
    text = re.sub(r"(-user|^d .* \d{4}) relaygw\b", r"\1 nobody", text, flags=re.MULTILINE)
    return re.sub(r"^(d .*) relaygw$", r"\1 nogroup", text, flags=re.MULTILINE)


def run_script(place: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", here((SCRIPTS / name).read_text(), place), name, *words],
        env={"PATH": f"{place}/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
        cwd="/", capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip


CALLS: dict[str, list[tuple[str, ...]]] = {
    "preinst": [("upgrade", "99"), ("install",)],
    "postinst": [("configure", ""), ("configure", "0.0.1"), ("2",)],
    "postinst-mta": [("configure", ""), ("2",)],
    "prerm": [("remove",), ("upgrade",)],
    "postrm": [("remove",), ("purge",)],
}


def test_all_scripts_are_known() -> None:
    assert {one.name for one in SCRIPTS.iterdir()} == CALLS.keys()


def test_a_purge_says_how_many_messages_it_deletes(machine: Path) -> None:
    (machine / "usr/bin/relaygw").write_text('#!/bin/sh\n[ "$1" != queue ] || printf "1\\n2\\n"\n')
    (machine / "var/spool/relaygw/maildrop").mkdir()
    (machine / "var/spool/relaygw/maildrop/a.drop").touch()
    said = "deleting messages that wait in the queue: 2, in the maildrop: 1\n"
    for name, words, is_said in (
        ("prerm", "remove", False),
        ("postrm", "remove", False),
        ("postrm", "purge", True),
        ("postrm", "purge", False),
    ):
        done = run_script(machine, name, words)
        assert (done.returncode, said in done.stderr) == (0, is_said), (name, words, done.stderr)


@pytest.mark.parametrize("is_maildrop_linked", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_scripts_of_the_packages_follow_no_link(
    tree: Tree, machine: Path, name: str, *, is_maildrop_linked: bool
) -> None:
    state, spool = machine / "var/lib/relaygw", machine / "var/spool/relaygw"
    own(state / "mine", 0o700)
    (state / "left-by-root").touch()
    (state / "link").symlink_to(tree.root / "secret")
    (state / "mine/directory").symlink_to(tree.root / "directory")
    os.link(tree.root / "secret", state / "mine/hard")
    if is_maildrop_linked:
        (spool / "maildrop").symlink_to(tree.root / "directory")
        give(spool / "maildrop")
    before = tree.victims()
    for words in CALLS[name]:
        done = run_script(machine, name, *words)
        assert tree.victims() == before, (name, words)
        if name == "postinst" and is_maildrop_linked:
            assert (done.returncode, "is a symbolic link that root has not" in done.stderr) == (
                1,
                True,
            )
        elif name == "postinst":
            assert done.returncode == 0, done.stderr
            assert (state / "left-by-root").stat().st_uid == SERVICE.pw_uid
            found = [
                (one.stat().st_uid, stat.S_IMODE(one.stat().st_mode))
                for one in (spool, spool / "maildrop")
            ]
            assert found == [(0, 0o755), (SERVICE.pw_uid, 0o3733)]
        else:
            assert done.returncode in (0, 1), done.stderr
    if name == "postrm":
        assert not state.exists()
