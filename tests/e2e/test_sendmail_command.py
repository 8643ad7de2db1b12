"""The sendmail command as processes: what is on disk when it says so, and what never is."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from relaygw.inbound.drop_file import open_drop
from tests.e2e.sendmail_rig import NOBODY, PATIENCE_S, Installation
from tests.e2e.syscalls import parse
from tests.rights import needs

CONTENT = b"To: a@x.test\nCc: b@x.test\nBcc: c@x.test\nFrom: s@x.test\n\nhello\n.\n..dots\n"
STORED = b"To: a@x.test\nCc: b@x.test\nFrom: s@x.test\n\nhello\n.\n..dots\n"


def test_a_message_is_left_as_it_came(command: Installation) -> None:
    done = command.run("-t", "-i", "-f", "bounce@x.test", "d@x.test", "a@x.test", content=CONTENT)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    drop = command.only_drop()
    assert drop.sender == b"bounce@x.test"
    assert drop.recipients == [b"d@x.test", b"a@x.test", b"b@x.test", b"c@x.test"]
    assert drop.content == STORED
    assert drop.values("cwd") == [str(Path.cwd()).encode()]


def test_the_front_reads_what_is_left(command: Installation, tmp_path: Path) -> None:
    words = ["-t", "-i", "-fa%b@x.test", "ä@x.test"]
    assert command.run(*words, content=CONTENT).returncode == 0
    directory = os.open(command.maildrop, os.O_RDONLY)
    try:
        opened = open_drop(directory, command.only_drop().path.name, limit_bytes=10_000)
        assert opened is not None
        with opened:
            drop = opened.read(tmp_path)
    finally:
        os.close(directory)
    assert (drop.uid, drop.sender) == (os.getuid(), "a%b@x.test")
    assert drop.recipients == ("ä@x.test", "a@x.test", "b@x.test", "c@x.test")
    drop.content.read_head()
    assert drop.content.head == STORED.replace(b"\n", b"\r\n")


def test_little_is_loaded(command: Installation) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); known = set(sys.modules); "
        "import relaygw.sendmail; print(*sorted(set(sys.modules) - known))"
    )
    python = command.sendmail.read_text().partition("\n")[0].removeprefix("#!").split()
    said = subprocess.check_output([*python, "-c", program, str(command.root)], text=True)
    foreign = [name for name in said.split() if not name.startswith("relaygw")]
    assert set(foreign) <= {"__future__", "errno"}
    assert len(said.split()) <= 12


def test_every_byte_of_a_body_comes_through(command: Installation) -> None:
    body = bytes(range(256)) * 400 + b"x" * 100_000 + b"\r\nend without a line end"
    done = command.run("-i", "a@x.test", content=b"From: s@x.test\r\n\r\n" + body)
    assert done.returncode == 0
    assert command.only_drop().content == b"From: s@x.test\r\n\r\n" + body


def test_without_i_a_dot_ends_the_message(command: Installation) -> None:
    assert command.run("-t", content=CONTENT).returncode == 0
    assert command.only_drop().content.endswith(b"\n\nhello\n")


def test_an_interactive_sender_need_not_close_its_end(command: Installation) -> None:
    sendmail = [str(command.sendmail), "a@x.test"]
    with subprocess.Popen(sendmail, stdin=subprocess.PIPE, env=command.environment()) as process:
        assert process.stdin is not None
        process.stdin.write(b"From: s@x.test\n\nhello\n.\n")
        process.stdin.flush()
        assert process.wait(PATIENCE_S) == 0
    assert command.only_drop().content == b"From: s@x.test\n\nhello\n"


@pytest.mark.parametrize("sender", ["", "<>"])
def test_the_null_sender(command: Installation, sender: str) -> None:
    assert command.run("-i", "-f", sender, "a@x.test", content=b"\nhello").returncode == 0
    drop = command.only_drop()
    assert drop.sender == b""
    assert drop.content == b"From: MAILER-DAEMON\n\nhello"


def test_a_from_field_is_added(command: Installation) -> None:
    words = ["-i", "-F", 'The "Shop"', "-fs@x.test", "-Nfailure", "-Rhdrs", "-V", "id", "a@x.test"]
    assert command.run(*words, content=b"Subject: x\n\nhello").returncode == 0
    drop = command.only_drop()
    assert drop.content == b'From: "The \\"Shop\\"" <s@x.test>\nSubject: x\n\nhello'
    named = [(name, value) for name, value in drop.lines if name not in ("cwd", "to")]
    assert named == [
        ("from", b"s@x.test"),
        ("name", b'The "Shop"'),
        ("notify", b"failure"),
        ("ret", b"hdrs"),
        ("envid", b"id"),
    ]


def test_nobody_is_trusted_about_who_he_is(command: Installation) -> None:
    lies = {"USER": "evil", "LOGNAME": "evil", "HOME": "/evil", "PATH": "/evil", "NAME": "Evil"}
    lies |= {"PYTHONPATH": "/evil", "PYTHONSTARTUP": "/evil", "PYTHONHOME": "/evil"}
    done = command.run("-i", "a@x.test", content=b"\nhello", more_environment=lies)
    assert done.returncode == 0, done.stderr
    drop = command.only_drop()
    assert drop.sender == pwd.getpwuid(os.getuid()).pw_name.encode()
    assert drop.content == b"From: " + drop.sender + b"\n\nhello"


@needs("root")
@pytest.mark.parametrize("uid", [NOBODY, 54321])
def test_another_user(command: Installation, uid: int) -> None:
    done = command.run("-t", "-i", content=CONTENT, uid=uid)
    assert done.returncode == 0, done.stderr
    drop = command.only_drop()
    assert drop.path.stat().st_uid == uid
    assert drop.path.stat().st_gid == command.maildrop.stat().st_gid
    assert drop.sender == (b"nobody" if uid == NOBODY else b"54321")


@pytest.mark.parametrize(
    "shell",
    [
        'umask 077; exec "$0" "$@"',
        'umask 000; exec "$0" "$@"',
        'exec "$0" "$@" 2>&-',
        'exec "$0" "$@" >&- 2>&-',
        'd=$(mktemp -d); cd "$d"; rmdir "$d"; exec "$0" "$@"',
        'exec env LC_ALL=C LANG=C "$0" "$@"',
        'exec env LC_ALL=POSIX PYTHONCOERCECLOCALE=0 "$0" "$@"',
        'ulimit -n 16; exec "$0" "$@"',
    ],
)
def test_odd_surroundings(command: Installation, shell: str) -> None:
    done = command.run(
        "-i", "-F", "Käse", "ä@x.test", content=b"\nhello", before=["sh", "-c", shell]
    )
    assert done.returncode == 0, done.stderr
    assert command.only_drop().recipients == ["ä@x.test".encode()]


def test_a_huge_environment_and_command_line(command: Installation) -> None:
    recipients = [f"r{number}@example.test" for number in range(8000)]
    huge = {f"V{number}": "x" * 10_000 for number in range(50)}
    done = command.run("-i", *recipients, content=CONTENT, more_environment=huge)
    assert done.returncode == 0, done.stderr
    assert [one.decode() for one in command.only_drop().recipients] == recipients


def test_more_recipients_than_a_drop_can_name(command: Installation) -> None:
    recipients = [f"recipient{number}@customers.example.test" for number in range(10_000)]
    done = command.run("-i", *recipients, content=CONTENT)
    assert done.returncode == 69
    assert done.stderr == b"sendmail: too many recipients for one message: send it in parts\n"
    assert command.drops() == []


@pytest.mark.parametrize(
    ("words", "content", "exit_code", "said"),
    [
        (["-t"], b"Subject: x\n\nhello\n", 64, b"No recipient addresses found in message header"),
        (["-t"], b"To: undisclosed-recipients:;\n\nx", 64, b"No recipient addresses found"),
        ([], b"", 64, b"Recipient addresses must be specified"),
        (["-bd"], b"", 64, b"relaygw serve"),
        (["-q30m"], b"", 64, b"relaygw serve"),
        (["-be"], b"", 64, b"not supported"),
        (["-i", "-f", "a@b.test\r\nRCPT TO:<c@d.test>", "a@x.test"], CONTENT, 64, b"sender"),
        (["-i", "-F", "x\nBcc: v@x.test", "a@x.test"], CONTENT, 64, b"full name"),
        (["-i", "a@x.test\nv@x.test"], CONTENT, 64, b"recipient"),
        (["-i", "--", "-x@x.test"], CONTENT, 64, b"recipient"),
        (["-i", "a@x.test", "-fv@x.test"], CONTENT, 64, b"recipient"),
        (["-i", b"j\xff@x.test"], CONTENT, 64, b"recipient"),
        (["-i", "-f", 'a"\\ -oQ/tmp/\\ -X/tmp/x.php\\ b"@x.test', "a@x.test"], CONTENT, 64, b""),
    ],
)
def test_refused(
    command: Installation, words: list[str | bytes], content: bytes, exit_code: int, said: bytes
) -> None:
    done = command.run(*words, content=content)
    assert done.returncode == exit_code
    assert said in done.stderr
    assert done.stderr.startswith(b"sendmail: ")
    assert done.stderr.count(b"\n") == 1
    assert command.drops() == []


def test_injected_options_do_nothing(command: Installation, tmp_path: Path) -> None:
    (tmp_path / "evil.cf").write_text("maildrop /nowhere\n")
    where = str(tmp_path)
    injected = [f"-X{where}/x.php", f"-C{where}/evil.cf", f"-OQueueDirectory={where}", "-D1"]
    injected += [f"-oQ{where}", "-X", f"{where}/log", "-C", f"{where}/evil.cf", "-O", "a=b"]
    done = command.run("-t", "-i", "-fs@x.test", *injected, content=CONTENT)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["evil.cf"]
    assert command.only_drop().recipients == [b"a@x.test", b"b@x.test", b"c@x.test"]


def test_a_field_that_is_not_clean(command: Installation) -> None:
    done = command.run("-t", "-i", content=b'To: a@x.test, "open <b@x.test>\n\nhello')
    assert done.returncode == 0
    assert done.stderr == b"sendmail: To field is not clean; the readable part was used\n"
    assert command.only_drop().recipients == [b"a@x.test"]


def test_stdin_closed(command: Installation) -> None:
    done = command.run("-i", "a@x.test", before=["sh", "-c", 'exec "$0" "$@" <&-'])
    assert done.returncode == 66
    assert command.drops() == []


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_the_message_comes(command: Installation, ending: int) -> None:
    # whoever runs the tests may ignore these signals (nohup, a shell's &), which is inherited
    sendmail = ["env", "--default-signal", str(command.sendmail), "-i", "a@x.test"]
    with subprocess.Popen(sendmail, stdin=subprocess.PIPE, env=command.environment()) as process:
        assert process.stdin is not None
        process.stdin.write(CONTENT * 3000)  # more than a pipe holds: it reads
        process.stdin.flush()
        process.send_signal(ending)
        assert process.wait(PATIENCE_S) != 0
    assert command.drops() == []


def test_a_signal_while_the_file_is_written(command: Installation, tmp_path: Path) -> None:
    out = tmp_path / "trace"
    inject = "inject=fsync:signal=SIGTERM:when=1"
    before = ["strace", "-f", "-o", str(out), "-e", "trace=fsync,unlink", "-e", inject]
    done = command.run("-i", "a@x.test", content=CONTENT, before=before)
    assert done.returncode == -signal.SIGTERM
    assert command.drops() == []


def test_a_signal_when_the_message_is_there_changes_nothing(
    command: Installation, tmp_path: Path
) -> None:
    inject = "inject=rename:signal=SIGTERM:when=1"
    before = ["strace", "-f", "-o", str(tmp_path / "trace"), "-e", "trace=rename", "-e", inject]
    done = command.run("-i", "a@x.test", content=CONTENT, before=before)
    assert len(command.drops()) == (1 if done.returncode == 0 else 0)
    assert done.returncode == 0


def test_synced_before_and_after_the_rename(command: Installation, tmp_path: Path) -> None:
    out = tmp_path / "trace"
    wanted = "trace=openat,write,fchmod,fsync,rename,exit_group"
    before = ["strace", "-f", "-ttt", "-y", "-o", str(out), "-e", wanted]
    assert command.run("-t", "-i", content=CONTENT, before=before).returncode == 0
    place = str(command.maildrop)
    lines = out.read_text(errors="replace").splitlines()
    opened, waking = [line for line in lines if " openat(" in line and place in line]
    for flag in ("O_EXCL", "O_CREAT", "O_NOFOLLOW", "O_CLOEXEC", "0600"):
        assert flag in opened
    steps = [call for call in parse(lines) if place in call.arguments]
    names = [call.name for call in steps]
    assert names == [*["write"] * 4, "fchmod", "fsync", "rename", "fsync", "openat"]
    assert "/wake" in waking
    assert steps[5].path.rpartition("/")[2].startswith(".w-")
    assert steps[7].path.endswith(".drop")
    assert all(call.result == 0 for call in steps[4:8])


@pytest.mark.parametrize("when", ["1", "2"])
def test_a_sync_that_fails(command: Installation, tmp_path: Path, when: str) -> None:
    inject = f"inject=fsync:error=EIO:when={when}"
    before = ["strace", "-f", "-o", str(tmp_path / "trace"), "-e", "trace=fsync", "-e", inject]
    done = command.run("-i", "a@x.test", content=CONTENT, before=before)
    assert done.returncode == 75
    assert str(command.maildrop).encode() in done.stderr
    assert command.drops() == []


@pytest.mark.parametrize(
    ("failing", "exit_code"),
    [
        ("rename:error=ENOENT", 75),  # the unfinished file was removed by another
        ("fsync:error=EIO:when=2", 0),  # the front took the finished one over
    ],
)
def test_a_file_that_another_removed(
    command: Installation, tmp_path: Path, failing: str, exit_code: int
) -> None:
    before = ["strace", "-f", "-o", str(tmp_path / "trace"), "-e", "trace=rename,fsync,unlink"]
    before += ["-e", "inject=unlink:error=ENOENT", "-e", f"inject={failing}"]
    assert command.run("-i", "a@x.test", content=CONTENT, before=before).returncode == exit_code


def test_no_maildrop(command: Installation) -> None:
    missing = command.root / "missing"
    done = command.run("-i", "a@x.test", content=CONTENT, maildrop=missing)
    assert done.returncode == 75
    assert (
        done.stderr
        == (
            f"sendmail: cannot leave the message in {missing}: No such file or directory; "
            "create it, or start `relaygw serve` once, which does\n"
        ).encode()
    )


@needs("root")
def test_a_maildrop_that_is_closed_to_the_user(command: Installation) -> None:
    command.maildrop.chmod(0o3730)
    try:
        done = command.run("-i", "a@x.test", content=CONTENT, uid=NOBODY)
    finally:
        command.maildrop.chmod(0o3733)
    assert done.returncode == 75
    assert b"Permission denied; let this user write there" in done.stderr
    assert command.drops() == []


@needs("root")
def test_a_directory_on_the_way_that_is_closed_to_the_user_is_named(command: Installation) -> None:
    closed = command.root / "home"
    maildrop = closed / "state" / "maildrop"
    maildrop.mkdir(parents=True)
    maildrop.chmod(0o3733)
    closed.chmod(0o700)
    try:
        done = command.run("-i", "a@x.test", content=CONTENT, maildrop=maildrop, uid=NOBODY)
    finally:
        closed.chmod(0o755)
        shutil.rmtree(closed)
    assert done.returncode == 75
    said = f"this user may not enter {closed}, which has mode 700: chmod o+x {closed}, or set "
    assert said.encode() in done.stderr


@needs("mounts")
@pytest.mark.parametrize(
    ("size", "content_bytes", "is_taken", "said"),
    [
        ("9m,nr_inodes=1", 1000, False, b"No space left on device; free some space there"),
        ("400k", 400_000, False, b"too little space is left on the volume; free some space there"),
        ("400k", 380_000, True, b""),
        ("6m", 1_200_000, False, b"too little space is left on the volume; free some space there"),
        ("7m", 1_200_000, True, b""),
    ],
    ids=["full", "small", "small fits", "large", "large fits"],
)
def test_a_full_disk(
    command: Installation, size: str, content_bytes: int, is_taken: bool, said: bytes
) -> None:
    small = command.root / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=3733", "tmpfs", str(small)]
    subprocess.run(mount, check=True)
    try:
        content = b"From: s@x.test\n\n" + b"x" * content_bytes
        done = command.run("-i", "a@x.test", content=content, maildrop=small)
        assert done.returncode == (0 if is_taken else 75)
        assert said in done.stderr
        assert len(list(small.iterdir())) == is_taken
    finally:
        subprocess.run(["umount", str(small)], check=True)
        small.rmdir()


def test_a_header_that_no_listener_takes(command: Installation) -> None:
    content = b"From: s@x.test\nX-Long: x\n" + (b" " + b"x" * 70 + b"\n") * 60_000 + b"\nhi\n"
    done = command.run("-i", "a@x.test", content=content)
    assert done.returncode == 69
    assert done.stderr == b"sendmail: its header is over 4194304 bytes\n"
    session = b"EHLO c\r\nMAIL FROM:<s@x.test>\r\nRCPT TO:<a@x.test>\r\nDATA\r\n"
    with subprocess.Popen(
        [command.sendmail, "-bs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"RELAYGW_MAILDROP": str(command.maildrop)},
    ) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(session)
        client.stdin.flush()
        while not client.stdout.readline().startswith(b"354"):
            pass
        client.stdin.write(content.replace(b"\n", b"\r\n") + b".\r\nQUIT\r\n")
        client.stdin.flush()
        too_long = b"552 5.3.4 Error: message header too long, at most 4194304 bytes\r\n"
        assert client.stdout.readline() == too_long
    assert command.drops() == []


def test_too_big(command: Installation) -> None:
    done = command.run("-i", "a@x.test", content=b"x" * (100 * 2**20 + 1))
    assert done.returncode == 69
    assert done.stderr == b"sendmail: message is over 104857600 bytes\n"
    assert command.drops() == []


def test_the_front_is_told(command: Installation) -> None:
    place = command.maildrop / "wake"
    os.mkfifo(place)
    place.chmod(0o622)
    pipe = os.open(place, os.O_RDWR | os.O_NONBLOCK)
    assert command.run("-t", "-i", content=CONTENT).returncode == 0
    assert os.read(pipe, 10) == b"\0"
    os.close(pipe)
    place.unlink()
    command.only_drop()


def test_a_pipe_that_is_full_or_that_nobody_reads_is_no_trouble(command: Installation) -> None:
    place = command.maildrop / "wake"
    os.mkfifo(place)
    place.chmod(0o622)
    pipe = os.open(place, os.O_RDWR | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while os.write(pipe, b"x" * 4096):
            pass
    for _ in range(2):
        done = command.run("-t", "-i", content=CONTENT)
        assert (done.returncode, done.stderr) == (0, b"")
        with suppress(OSError):
            os.close(pipe)
    assert stat.S_ISFIFO(place.stat().st_mode)
    place.unlink()
    assert len(command.drops()) == 2


@pytest.mark.parametrize("is_link", [True, False])
def test_what_another_user_put_in_place_of_the_pipe_is_left_alone(
    command: Installation, tmp_path: Path, is_link: bool
) -> None:
    """The maildrop is open to all: a file of the sender's own must not be written to by a link."""
    place, victim = command.maildrop / "wake", tmp_path / "victim"
    victim.write_bytes(b"mine")
    if is_link:
        place.symlink_to(victim)
    else:
        place.hardlink_to(victim)
    done = command.run("-t", "-i", content=CONTENT)
    assert (done.returncode, done.stderr) == (0, b"")
    assert victim.read_bytes() == b"mine"
    place.unlink()
    command.only_drop()


def _asked(sender: str, *recipients: str) -> bytes:
    """Return what the gateway's own program is asked."""
    lines = [f"check --sender={sender} --recipient={one}\n" for one in recipients]
    return "".join(lines).encode()


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("mailq", [], b"queue list\n"),
        ("sendmail", ["-bp"], b"queue list\n"),
        ("sendmail", ["-q"], b"queue retry --all --yes\n"),
        ("sendmail", ["-qIabc"], b"queue retry --id=abc --yes\n"),
        ("sendmail", ["-bv", "-fs@x.test", "a@x.test"], _asked("s@x.test", "a@x.test")),
        ("sendmail", ["-bv", "-f", "<>", "a@x.test"], _asked("<>", "a@x.test")),
        (
            "sendmail",
            ["-bv", "-fs@x.test", "a@x.test", "b@x.test"],
            _asked("s@x.test", "a@x.test", "b@x.test"),
        ),
        ("newaliases", [], b""),
        ("sendmail", ["-bi"], b""),
        ("sendmail", ["-I"], b""),
    ],
)
def test_other_programs(command: Installation, name: str, words: list[str], said: bytes) -> None:
    done = command.run(*words, name=name)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, b"")
    assert command.drops() == []


def test_what_would_become_of_mail_is_printed_for_each_address(
    command: Installation, tmp_path: Path
) -> None:
    config = tmp_path / "relaygw.yaml"
    config.write_text(
        "mode: staging\nproviders: {main: {host: smtp.example.com}}\n"
        "routes: [{name: default, providers: [main]}]\nrecipients: {allow: [dev@agency.test]}\n"
    )
    before = command.gateway.read_text()
    relaygw = f'{sys.executable} -m relaygw --config {config} "$@"'
    command.gateway.write_text(f"#!/bin/sh\nexec {relaygw}\n")
    try:
        done = command.run("-bv", "-fshop@agency.test", "dev@agency.test", "c@cust.test")
        wrong = command.run("-bv", "a..b@x.test", "dev@agency.test")
    finally:
        command.gateway.write_text(before)
    assert (done.returncode, done.stderr) == (0, b"")
    told = [" ".join(line.split()[:2]) for line in done.stdout.decode().splitlines()]
    assert told == [
        *("sender shop@agency.test,", "recipient dev@agency.test,"),
        *("decision sent", "route default", "provider main:"),
        *("sender shop@agency.test,", "recipient c@cust.test,"),
        *("decision captured,", "route none"),
    ]
    assert wrong.returncode == 65
    assert b"recipient   dev@agency.test" in wrong.stdout
