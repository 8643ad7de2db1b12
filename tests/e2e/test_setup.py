"""`relaygw setup`: from nothing to the first mail, by flags and by a dialogue."""

from __future__ import annotations

import os
import pty
import re
import select
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from relaygw.cli.frame import CommandFailed
from relaygw.cli.setup_host import send_as
from tests.e2e.checkout import WEB_SERVER, Checkout
from tests.e2e.ports import free_port
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import RelaygwProcess, run_relaygw
from tests.rights import needs

KEY = "SG.canary-5be1-key"
PATIENCE_S = 90.0


class Host:
    """A host on which nothing is set up: its configuration goes below a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "etc/relaygw/relaygw.yaml"
        self.secret = self.config.parent / "secrets/main"
        self.port = free_port()
        self.web_port = free_port()
        self.environ = {
            **os.environ,
            "XDG_STATE_HOME": str(directory / "state"),
            "RELAYGW_RUN_DIR": str(directory / "run"),
            "RELAYGW__MAILDROP__PATH": str(directory / "maildrop"),
            "RELAYGW__LISTENERS__0__BIND": f"127.0.0.1:{self.port}",
            "RELAYGW__WEB__BIND": f"127.0.0.1:{self.web_port}",
        }

    def setup(self, *words: str, key: str | None = KEY) -> subprocess.CompletedProcess[str]:
        """Run it, with a key on standard input."""
        done = run_relaygw(
            ["--config", str(self.config), "setup", *words],
            input=None if key is None else f"{key}\n",
            stdin=subprocess.DEVNULL if key is None else None,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert KEY not in done.stdout + done.stderr
        return done

    def files(self) -> dict[str, tuple[int, int, bytes]]:
        """Return what is there: inode, time of change and content."""
        return {
            str(one.relative_to(self.directory)): (
                one.lstat().st_ino,
                one.lstat().st_mtime_ns,
                one.read_bytes() if one.is_file() else b"",
            )
            for one in sorted(self.directory.rglob("*"))
            if not str(one.relative_to(self.directory)).startswith(("state", "run", "maildrop/"))
        }


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture(scope="module")
def service() -> Iterator[ThreadedProvider]:
    """A mail service with a certificate of its own and a login."""
    users = {"shop": KEY}
    with ThreadedProvider(tls="starttls", certificate="self_signed", users=users) as provider:
        yield provider


def flags(service: Any, *more: str) -> list[str]:
    words = f"--use shop --host 127.0.0.1 --port {service.port} --tls encrypt --username shop"
    return [*words.split(), "--sender", "shop@shop.test", "--yes", "--no-sendmail", *more]


def test_flags_make_the_smallest_configuration_and_a_second_run_changes_nothing(
    host: Host, service: ThreadedProvider
) -> None:
    done = host.setup(*flags(service))
    assert done.returncode == 0, done.stderr
    tree = yaml.safe_load(host.config.read_text())
    assert sorted(tree) == ["mode", "providers", "rewrite", "routes", "web"]
    assert tree["providers"]["main"]["password"] == f"file:{host.secret}"
    assert host.secret.read_text() == f"{KEY}\n"
    modes = {one: stat.S_IMODE(one.stat().st_mode) for one in (host.secret, host.config)}
    assert modes == {host.secret: 0o600, host.config: 0o600}
    assert stat.S_IMODE(host.secret.parent.stat().st_mode) == 0o700
    assert re.search(r"^provider main: AUTH +ok ", done.stdout, re.MULTILINE)
    assert "warning: providers.main.tls: encrypt does not verify" in done.stderr
    password = re.search(r"user admin, password (\S{16}) \(shown this once\)", done.stdout)
    assert password is not None
    assert tree["web"]["users"][0]["password_hash"].startswith("$argon2id$")
    assert f"Start it: relaygw serve --config {host.config}" in done.stdout

    before = host.files()
    for words in ([], flags(service), ["--yes", "--no-sendmail"]):
        again = host.setup(*(words or ["--no-sendmail"]))
        assert again.returncode == 0, again.stderr
        assert f"{host.config}: exists and is not changed" in again.stdout
        assert password[1] not in again.stdout
    assert host.files() == before
    part = host.setup("--use", "shop", key=None)
    assert (part.returncode, "changes no file; omit --use" in part.stderr) == (73, True)
    other = host.setup(*flags(service, "--port", "2525"))
    assert (other.returncode, host.files()) == (73, before)
    assert "exists with other settings (providers); setup changes no file" in other.stderr


def test_a_dry_run_touches_nothing(host: Host, service: ThreadedProvider) -> None:
    seen = len(service.connections)
    done = host.setup(*flags(service, "--dry-run", "--to", "b@cust.test"))
    assert done.returncode == 0, done.stderr
    assert list(host.directory.iterdir()) == []
    assert len(service.connections) == seen
    assert f"write {host.secret} (mode 0600)" in done.stdout
    assert "send a test mail to b@cust.test" in done.stdout
    assert host.setup("--use", "sandbox", "--dry-run", key=None).returncode == 0
    assert list(host.directory.iterdir()) == []


def test_a_sandbox_needs_nothing_else(host: Host) -> None:
    done = host.setup("--use", "sandbox", "--yes", "--no-sendmail", key=None)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(host.config.read_text()) == {"mode": "sandbox"}
    assert "password" not in done.stdout


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (None, "standard input holds no key"),
        ("", "standard input holds no key"),
        ("two\tcolumns", "is not a single line of text"),
        ("x" * 5000, "standard input is longer than 4096 bytes; give only the key"),
        ("first\nsecond", "standard input has 2 lines; give only the key, in one line"),
    ],
)
def test_a_key_that_is_none(
    host: Host, service: ThreadedProvider, key: str | None, words: str
) -> None:
    for more in ([], ["--dry-run"]):
        done = host.setup(*flags(service, *more), key=key)
        assert done.returncode == 65
        assert words in done.stderr
    assert list(host.directory.iterdir()) == []


def test_a_key_in_a_file(host: Host, service: ThreadedProvider, tmp_path: Path) -> None:
    file = tmp_path / "key"
    done = host.setup(*flags(service, "--key-file", str(file)), key=None)
    assert done.returncode == 66
    assert f"--key-file {file}: No such file or directory" in done.stderr
    os.mkfifo(file.with_name("pipe"))
    for name in (str(file.with_name("pipe")), str(tmp_path), ""):
        done = host.setup(*flags(service, "--key-file", name, "--dry-run"), key=None)
        assert (done.returncode, "; name a file that holds the key" in done.stderr) == (
            66,
            True,
        )
    file.write_text(f"{KEY}\n")
    done = host.setup(*flags(service, "--key-file", str(file)), key=None)
    assert done.returncode == 0, done.stderr
    assert host.secret.read_text() == f"{KEY}\n"


def test_what_is_wrong_is_told_before_anything_is_written(host: Host) -> None:
    for words, exit_code, said in (
        (["--use", "shop"], 64, "there is no terminal to ask on; give --preset"),
        (
            ["--use", "shop", "--preset", "sendgrit"],
            64,
            "preset sendgrit is not known here; did you mean sendgrid?",
        ),
        (
            ["--use", "shop", "--preset", "sendgrid", "--sender", "no address"],
            64,
            'setup: --sender "no address" is not an address',
        ),
        (["--use", "staging", "--allow", "@"], 64, 'setup: --allow "@" is not an address'),
        (["--network", "10.0.0.1/8"], 64, 'setup: --network "10.0.0.1/8" '),
        (["--host", "a b"], 64, 'setup: --host "a b" is not a host'),
        (["--tls", "on"], 64, 'setup: --tls "on" is wrong: Input should be'),
        (
            ["--preset", "ses", "--region", "moon"],
            64,
            '--region "moon" is not a region of ses; write',
        ),
        (
            ["--use", "shop", "--host", "x.test", "--sender", "a@x.test", "--key-file", "-"],
            64,
            "--key-file: the service has no login; give --username",
        ),
        (["--to", "a b@x.test"], 65, "--to 'a b@x.test' is not an address"),
        (
            ["--use", "gateway", "--preset", "sendgrid", "--network", "10.0.0.1/8"],
            64,
            "10.0.0.1/8",
        ),
    ):
        done = host.setup(*words, "--yes")
        assert (done.returncode, said in done.stderr) == (exit_code, True), done.stderr
        assert list(host.directory.iterdir()) == []
    done = host.setup("--use", "sandbox", "--no-sendmail", key=None)
    assert (done.returncode, "no answer; give --yes" in done.stderr) == (64, True)
    assert list(host.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "exit_code", "words"),
    [
        ("/sys/relaygw", 77, "; run it as root, or name a file of your own with --config"),
        ("/proc/sys/relaygw", 73, ": No such file or directory; name another file with --config"),
    ],
)
def test_a_directory_that_cannot_be_written(
    host: Host, service: ThreadedProvider, place: str, exit_code: int, words: str
) -> None:
    host.config = Path(place) / "relaygw.yaml"
    done = host.setup(*flags(service))
    assert (done.returncode, done.stderr.endswith(f"{words}\n")) == (exit_code, True), done.stderr
    assert "(shown this once)" not in done.stdout


def test_a_later_key_is_compared_and_a_missing_one_is_written(
    host: Host, service: ThreadedProvider, tmp_path: Path
) -> None:
    assert host.setup(*flags(service)).returncode == 0
    before, file = host.files(), tmp_path / "state/key"
    file.parent.mkdir(exist_ok=True)
    file.write_text("SG.other\n")
    for words in (flags(service), ["--key-file", str(file), "--yes"], ["--key-file", "-"]):
        done = host.setup(*words, key="SG.other")
        assert done.returncode == 73, done.stderr
        assert f"{host.secret}: holds another key than the one given" in done.stderr
        assert "SG.other" not in done.stdout + done.stderr
    assert host.files() == before
    offline = ["--offline", "--no-sendmail"]
    assert host.setup(*offline, key="SG.other").returncode == 0  # anybody's pipe is not read
    for spoil in (lambda: host.secret.write_bytes(b"\xff"), host.secret.mkdir):
        host.secret.unlink()
        spoil()
        done = host.setup(*flags(service))
        assert (done.returncode, "run this again" in done.stderr) == (73, True), done.stderr
    host.secret.rmdir()
    host.secret.parent.rmdir()
    done = host.setup(*offline)
    assert done.returncode == 0, done.stderr
    assert f"write {host.secret} (mode 0600)" in done.stdout
    assert host.secret.read_text() == f"{KEY}\n"
    host.config.write_text(host.config.read_text().replace(f"file:{host.secret}", "plain:hidden"))
    done = host.setup("--key-file", "-")
    assert (done.returncode, "reads its keys from elsewhere (main: plain:***)" in done.stderr) == (
        73,
        True,
    )


def test_a_wrong_key_and_a_service_that_is_away_are_named(
    host: Host, service: ThreadedProvider
) -> None:
    done = host.setup(*flags(service), key="SG.wrong")
    assert done.returncode == 69
    assert re.search(r"provider main: AUTH +FAILED .*535 5.7.8 no", done.stdout)
    assert f"correct {host.config}, or the key in {host.secret.parent}" in done.stderr
    assert "SG.wrong" not in done.stdout + done.stderr
    host.secret.write_text(f"{KEY}\n")
    done = host.setup("--no-sendmail", key=None)
    assert done.returncode == 0, done.stderr

    tree = yaml.safe_load(host.config.read_text())
    tree["providers"]["main"]["port"] = free_port()
    host.config.write_text(yaml.safe_dump(tree))
    done = host.setup("--no-sendmail", key=None)
    assert done.returncode == 69
    assert re.search(r"provider main: TCP +FAILED .*Connection refused", done.stdout)
    assert host.setup("--no-sendmail", "--offline", key=None).returncode == 0


# --- a person at a terminal


class Terminal:
    """`relaygw setup` at a pseudo terminal."""

    def __init__(self, host: Host, *options: str) -> None:
        self.shown = ""
        self._seen = 0
        words = [sys.executable, "-m", "relaygw", "--config", str(host.config), "setup"]
        words += ["--no-sendmail", *options]
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execve(sys.executable, words, {**host.environ, "TERM": "dumb", "COLUMNS": "100"})

    def wait_for(self, text: str) -> None:
        """Read until something is shown, after what was waited for before."""
        deadline_s = time.monotonic() + PATIENCE_S
        while text not in self.shown[self._seen :]:
            if select.select([self._terminal], [], [], deadline_s - time.monotonic())[0] == []:
                raise AssertionError(f"{text!r} did not come: {self.shown}")
            self.shown += os.read(self._terminal, 4096).decode()
        self._seen = self.shown.index(text, self._seen) + len(text)

    def answer(self, question: str, text: str) -> None:
        self.wait_for(question)
        os.write(self._terminal, f"{text}\n".encode())

    def interrupted(self) -> int:
        """Press Ctrl-C while the program reads; return the exit code.

        Before it reads, Python would see the signal only behind the next key; and a second one
        would kill a program that is ending.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        stat = Path(f"/proc/{self._pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "S":  # it sleeps: it reads
            assert time.monotonic() < deadline_s, self.shown
            time.sleep(0.005)
        os.write(self._terminal, b"\x03")
        return self.end()

    def end(self) -> int:
        """Return the exit code, having read the rest."""
        while True:
            try:
                read = os.read(self._terminal, 4096)
            except OSError:  # the other side is closed
                break
            if not read:
                break
            self.shown += read.decode()
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def test_a_dialogue(host: Host, service: ThreadedProvider) -> None:
    terminal = Terminal(host)
    terminal.answer("What is this machine for?", "staging")
    terminal.answer("Which mail service?", "zzz")
    terminal.answer("is not one of", "sendgird")
    terminal.answer("did you mean sendgrid?", "other")
    terminal.answer("Its host", "127.0.0.1")
    terminal.answer("User name", "")
    terminal.answer("Sender for mail", "")
    terminal.wait_for("this needs an answer")
    terminal.answer("Sender for mail", "shop")
    terminal.wait_for('--sender "shop" is not an address')
    terminal.answer("Sender for mail", "shop@shop.test")
    terminal.answer("Who may receive", "dev@qa.test, @")
    terminal.wait_for('--allow "@" is not an address')
    terminal.answer("Who may receive", "dev@qa.test, @team.test")
    terminal.answer("Keep sent mail this long", "7d")
    terminal.wait_for("keep_content: 7d")
    terminal.wait_for(f"write {host.config}")
    terminal.answer("Go on?", "n")
    assert terminal.end() == 0
    assert "nothing was changed" in terminal.shown
    assert not host.config.exists()


def test_a_key_that_is_typed_is_not_shown(host: Host) -> None:
    terminal = Terminal(host)
    terminal.answer("What is this machine for?", "shop")
    terminal.answer("Which mail service?", "SendGrid")
    terminal.answer("Sender for mail", "shop@shop.test")
    terminal.answer("Keep sent mail this long", "")
    terminal.answer("Key (not shown)", KEY)
    terminal.wait_for("Go on?")
    assert not host.config.exists()
    assert terminal.interrupted() == 130
    assert KEY not in terminal.shown
    assert list(host.directory.iterdir()) == []


# --- the whole way


@needs("root")
def test_the_first_mail_goes_by_smtp_and_as_the_web_server_sends_it(
    service: ThreadedProvider,
) -> None:
    with tempfile.TemporaryDirectory(prefix="relaygw-setup-") as name:
        checkout, host = Checkout(Path(name)), Host(Path(name))
        seen = len(service.messages)

        def setup(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*checkout.command(), "--config", str(host.config), "setup", *words],
                input=f"{KEY}\n",
                env=checkout.environment(host.environ),
                cwd=name,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )

        words = [one for one in flags(service) if one != "--no-sendmail"]
        done = setup(*words, "--prefix", str(checkout.prefix))
        assert done.returncode == 0, done.stderr
        assert f'sendmail_path = "{checkout.prefix}/sbin/sendmail -t -i"' in done.stdout
        assert "mail.add_x_header = On" in done.stdout
        log = Path(name, "log")
        serve = ["--config", str(host.config), "serve"]
        with log.open("w") as stderr:
            gateway = RelaygwProcess(serve, env=host.environ, stderr=stderr)
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            while "started: " not in log.read_text():
                assert time.monotonic() < deadline_s, log.read_text()
                time.sleep(0.05)
            before = host.files()
            done = setup("--to", "b@cust.test", "--prefix", str(checkout.prefix))
            assert done.returncode == 0, done.stdout + done.stderr
            assert "accepted from www-data" in done.stdout
            assert host.files().keys() == before.keys()
            first, second = service.messages[seen:]
            assert {first.user, second.user} == {"shop"}
            assert b"Subject: Test from relaygw on " in first.content
            assert b"Subject: Test from relaygw as www-data" in second.content
            assert {first.sender, second.sender} == {"shop@shop.test"}
            assert KEY not in log.read_text() + done.stdout + done.stderr

            terminal = Terminal(host)
            terminal.answer("Recipient of a test mail", "c@")
            terminal.wait_for("the answer 'c@' is not an address")
            terminal.answer("Recipient of a test mail", "c@cust.test")
            assert terminal.end() == 0, terminal.shown
            assert service.messages[-1].recipients == ("c@cust.test",)

            host.config.write_text(host.config.read_text().replace("production", "sandbox"))
            done = setup("--to", "b@cust.test", "--prefix", str(checkout.prefix))
            assert done.returncode == 69, done.stdout + done.stderr
            assert f"no test mail was sent; reload it: kill -HUP {gateway.pid};" in done.stderr
            second = host.directory / "second.yaml"
            second.write_text(host.config.read_text())
            words = ("--to", "b@cust.test", "--prefix", str(checkout.prefix))
            done = setup(*words, "--config", str(second))
            assert f"runs with {host.config}, and no test mail was sent" in done.stderr
            assert len(service.messages) == seen + 3

            (host.directory / "maildrop").chmod(0o700)
            with pytest.raises(CommandFailed, match=r"www-data cannot send mail by .* denied"):
                send_as(WEB_SERVER, checkout.prefix / "sbin/sendmail", "b@cust.test", "lost")
        finally:
            gateway.terminate()
            assert gateway.wait(PATIENCE_S) == 0
