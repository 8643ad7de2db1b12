"""Mail left in the maildrop: taken once, whatever happens to the front and whatever lies there."""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import signal
import stat
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2
import pytest

from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.observe.maildrop import look_at_maildrop
from relaygw.store.queue_entry import QueueEntry
from tests.campaign import on_a_database, times
from tests.e2e.gateway import Gateway, gateway_to
from tests.e2e.ports import fixed_binds
from tests.e2e.syscalls import Strace
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw
from tests.rights import needs

EVERY_STATE = frozenset(DeliveryState)
LEFT = times(100, campaign=1000)
RELOADED = times(90, campaign=300)
KILLS = times(4, campaign=20)
POISON = {
    "sqlite": "CREATE TRIGGER poison BEFORE INSERT ON message WHEN NEW.subject = 'poison' "
    "BEGIN SELECT RAISE(ABORT, 'poison'); END",
    "postgres": "ALTER TABLE message ADD CONSTRAINT poison CHECK (subject <> 'poison')",
}
CURE = {
    "sqlite": "DROP TRIGGER poison",
    "postgres": "ALTER TABLE message DROP CONSTRAINT poison",
}
CONTENT = b"Subject: order\nFrom: shop@shop.test\n\nhello\n"


def leave(
    directory: Path,
    *recipients: str,
    sender: str | None = "shop@shop.test",
    content: bytes = CONTENT,
    wake: bool = True,
) -> str:
    """Leave one message as the sendmail command does; return its drop id."""
    drop_id = secrets.token_hex(16)
    head = b"relaygw drop 1\ncwd /srv/shop\n"
    if sender is not None:
        head += f"from {sender}\n".encode()
    head += "".join(f"to {one}\n" for one in recipients or ("b@cust.test",)).encode()
    unfinished = directory / f".w-{drop_id}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(unfinished, flags, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(head + b"\n" + content + b"\nrelaygw end %d\n" % len(content))
        stream.flush()
        os.fchmod(descriptor, 0o640)
        os.fsync(descriptor)
    unfinished.rename(directory / f"{drop_id}.drop")
    if wake:
        with suppress(OSError):
            pipe = os.open(directory / "wake", os.O_WRONLY | os.O_NONBLOCK)
            os.write(pipe, b"\0")
            os.close(pipe)
    return drop_id


def numbered(number: int) -> bytes:
    return b"Subject: n%d\nX-Number: %d\n\nhello %d\n" % (number, number, number)


def numbers(provider: ThreadedProvider) -> Counter[int]:
    return Counter(
        int(line.partition(b":")[2])
        for message in tuple(provider.messages)
        for line in message.content.split(b"\r\n")
        if line.startswith(b"X-Number:")
    )


def drops(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.suffix == ".drop"]


def only_entry(gateway: Gateway) -> QueueEntry:
    (entry,) = gateway.queue(EVERY_STATE)
    return entry


def wait_until_serving(gateway: Gateway) -> Path:
    """Return the maildrop once the front listens at it."""
    directory = Path(gateway.settings["maildrop"]["path"])
    gateway.wait_until((directory / "wake").exists, "a maildrop")
    return directory


# --- the walk -----------------------------------------------------------------------------


@on_a_database
def test_a_message_is_delivered_with_its_source(provider: ThreadedProvider, tmp_path: Path) -> None:
    with gateway_to(provider, tmp_path, rewrite={"default_domain": "shop.test"}) as gateway:
        maildrop = wait_until_serving(gateway)
        assert stat.S_IMODE(maildrop.stat().st_mode) == 0o3733
        pipe = maildrop / "wake"  # its mode is set once it is open
        gateway.wait_until(lambda: stat.S_IMODE(pipe.stat().st_mode) == 0o622, "its mode")
        content = b"X-PHP-Originating-Script: 33:Mailer.php\n" + CONTENT
        leave(maildrop, "b@cust.test", "root", sender="www-data", content=content)
        provider.wait_for_messages(1)
        gateway.wait_until_empty()
        gateway.wait_until(lambda: not drops(maildrop), "an empty maildrop")
        entry = only_entry(gateway)
    (message,) = provider.messages
    assert message.sender == "www-data@shop.test"
    assert message.recipients == ("b@cust.test", "root@shop.test")
    uid = os.getuid()
    received, body = message.content.split(b"X-PHP", 1)
    assert received.startswith(
        f"Received: by gw.test (relaygw, from userid {uid})\r\n\tid {entry.queue_id}; ".encode()
    )
    assert body.endswith(b"Mailer.php\r\n" + CONTENT.replace(b"\n", b"\r\n"))
    assert (entry.source.uid, entry.source.script) == (uid, "33:Mailer.php")
    own = [line for line in gateway.lines if entry.queue_id in line]
    assert f"relaygw/pickup[{own[0].partition('pickup[')[2].partition(']')[0]}]: " in own[0]
    assert own[0].endswith(
        f'{entry.queue_id}: uid={uid} from=<www-data> script="33:Mailer.php" cwd="/srv/shop"'
    )
    assert ["/cleanup[" in own[1], "/qmgr[" in own[2]] == [True, True]


def test_a_word_wakes_the_front_and_without_one_it_polls(
    provider: ThreadedProvider, tmp_path: Path
) -> None:
    with gateway_to(provider, tmp_path) as gateway:
        maildrop = wait_until_serving(gateway)
        leave(maildrop, wake=False)
        provider.wait_for_messages(1)
        delays_s = []
        for count in range(2, 8):
            begun_s = time.monotonic()
            leave(maildrop)
            provider.wait_for_messages(count)
            delays_s.append(time.monotonic() - begun_s)
        assert min(delays_s) < 0.5  # far below the poll


@on_a_database
def test_a_large_message_goes_through(provider: ThreadedProvider, tmp_path: Path) -> None:
    with gateway_to(provider, tmp_path) as gateway:
        maildrop = wait_until_serving(gateway)
        body = b"".join(b"%059d\n" % number for number in range(100_000))
        leave(maildrop, content=b"Subject: large\n\n" + body)
        leave(maildrop)
        provider.wait_for_messages(2)
        gateway.wait_until(lambda: not drops(maildrop), "an empty maildrop")
    large = max((message.content for message in provider.messages), key=len)
    assert large.endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n"))


@pytest.mark.campaign
@on_a_database
def test_all_that_were_left_while_it_was_down(provider: ThreadedProvider, tmp_path: Path) -> None:
    maildrop = tmp_path / "maildrop"
    maildrop.mkdir()
    for number in range(LEFT):
        leave(maildrop, content=numbered(number), wake=False)
    with gateway_to(provider, tmp_path) as gateway:
        provider.wait_for_messages(LEFT)
        gateway.wait_until_empty()
        gateway.wait_until(lambda: not drops(maildrop), "an empty maildrop")
    assert numbers(provider) == Counter(range(LEFT))


# --- nobody can be told no ----------------------------------------------------------------


def test_what_smtp_would_refuse_is_captured_or_recorded(
    provider: ThreadedProvider, tmp_path: Path
) -> None:
    lists = {"block": ["no@cust.test"], "blocked": "reject"}
    with gateway_to(provider, tmp_path, recipients=lists) as gateway:
        maildrop = wait_until_serving(gateway)
        leave(maildrop, "b@cust.test", "root", "no@cust.test", "a b@x.test", '"x', "-f@x.test")
        provider.wait_for_messages(1)
        gateway.wait_until_empty()
        entry = only_entry(gateway)
        gateway.wait_for_log(r"to=<root>.*status=captured \(local recipient without a rule; set ")
    assert [message.recipients for message in provider.messages] == [("b@cust.test",)]
    states = {one.address: (one.state, one.reply or "") for one in entry.recipients}
    assert states["root"][0] is RecipientState.CAPTURED
    assert states["no@cust.test"][0] is RecipientState.BLOCKED
    for address in ("a b@x.test", '"x', "-f@x.test"):
        state, reason = states[address]
        assert (state, reason[:15]) == (RecipientState.CAPTURED, "invalid address")


def test_mail_of_an_invalid_sender_is_captured(provider: ThreadedProvider, tmp_path: Path) -> None:
    senders = ("a b@shop.test", "a@b%0D%0ARCPT TO:<c@d>")
    with gateway_to(provider, tmp_path) as gateway:
        maildrop = wait_until_serving(gateway)
        for sender in senders:
            leave(maildrop, sender=sender)
        gateway.wait_for_log("status=captured", count=len(senders))
        recipients = [one for entry in gateway.queue(EVERY_STATE) for one in entry.recipients]
    assert [one.state for one in recipients] == [RecipientState.CAPTURED] * len(senders)
    assert all((one.reply or "").startswith("invalid sender") for one in recipients)
    assert not provider.messages


def test_a_loop_is_captured_and_an_absent_sender_is_the_user(
    provider: ThreadedProvider, tmp_path: Path
) -> None:
    with gateway_to(provider, tmp_path) as gateway:
        leave(wait_until_serving(gateway), sender=None, content=b"Received: x\n" * 60 + CONTENT)
        gateway.wait_for_log(r"status=captured \(mail loop")
        entry = only_entry(gateway)
    assert entry.sender.endswith("@gw.test")
    assert not provider.messages


def test_staging_captures_as_it_does_by_smtp(provider: ThreadedProvider, tmp_path: Path) -> None:
    lists = {"allow": ["dev@agency.test"]}
    with gateway_to(provider, tmp_path, mode="staging", recipients=lists) as gateway:
        leave(wait_until_serving(gateway), "dev@agency.test", "customer@cust.test")
        provider.wait_for_messages(1)
        gateway.wait_for_log("to=<customer@cust.test>.*status=captured")
    assert [message.recipients for message in provider.messages] == [("dev@agency.test",)]


# --- hostile entries ----------------------------------------------------------------------


def plant(maildrop: Path, outside: Path) -> dict[str, str]:
    """Put everything into the maildrop that is not mail; return names and what is said."""
    said = {}

    def name_for(reason: str) -> Path:
        name = f"{secrets.token_hex(16)}.drop"
        said[name] = reason
        return maildrop / name

    victim = outside / "victim"
    victim.write_bytes(b"relaygw drop 1\nto thief@x.test\n\nsecret\nrelaygw end 6\n")
    name_for("a symbolic link").symlink_to(victim)
    name_for("a symbolic link").symlink_to(outside / "nowhere")
    os.link(victim, name_for("a hard link"))
    os.mkfifo(name_for("not a regular file"))
    name_for("not a regular file").mkdir()
    if os.geteuid() == 0:
        os.mknod(name_for("not a regular file"), stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with name_for("larger than").open("wb") as stream:
        stream.truncate(10 * 2**30)
    for data in (b"", b"relaygw drop 1\nto a@x.test\n\nhel"):
        damaged = name_for("damaged")
        damaged.write_bytes(data)
        os.utime(damaged, (1, 1))
    for odd in ("README", "x.drop", "..drop", "ABC\n.drop", f"{secrets.token_hex(16)}.drop.tmp"):
        (maildrop / odd).write_bytes(b"x")
        said[odd] = "not a mail file name"
    return said


def test_hostile_entries_hold_up_nobody_and_are_named_once(
    provider: ThreadedProvider, tmp_path: Path
) -> None:
    maildrop = tmp_path / "maildrop"
    maildrop.mkdir()
    said = plant(maildrop, tmp_path)
    begun = [maildrop / f".w-{secrets.token_hex(16)}" for _ in range(2)]
    for path in begun:
        path.write_bytes(b"relaygw drop 1\n")
    os.utime(begun[0], (1, 1))
    half = maildrop / f"{secrets.token_hex(16)}.drop"
    half.write_bytes(b"relaygw drop 1\nto b@cust.test\n\nhel")
    for number in range(20):
        leave(maildrop, content=numbered(number), wake=False)
    with gateway_to(provider, tmp_path) as gateway:
        provider.wait_for_messages(20)
        with half.open("ab") as stream:  # it was only slow
            stream.write(b"lo\nX-Number: 1\n\nrelaygw end 18\n")
        provider.wait_for_messages(21)
        leave(maildrop, content=numbered(20))
        provider.wait_for_messages(22)
        gateway.wait_until(lambda: not begun[0].exists(), "no trace of what was never finished")
        for name, reason in said.items():
            shown = name.replace("\n", "\\n")
            gateway.wait_for_log(re.escape(f"maildrop/{shown}: "))
            lines = [line for line in gateway.lines if f"maildrop/{shown}: " in line]
            assert len(lines) == 1, (name, lines)
            assert f"{shown}: {reason}" in lines[0]
        gateway.wait_until(
            lambda: (
                (left := look_at_maildrop(str(maildrop))) is not None
                and (left.waiting, left.aside) == (0, len(said))
            ),
            "what was accepted is gone, the rest is aside",
        )
    assert begun[1].exists()
    assert set(said) <= {path.name for path in maildrop.iterdir()}
    assert (tmp_path / "victim").read_bytes().endswith(b"end 6\n")
    assert not any("thief@x.test" in message.recipients for message in provider.messages)


@needs("root")
def test_the_user_is_the_owner_of_the_file(provider: ThreadedProvider, tmp_path: Path) -> None:
    maildrop = tmp_path / "maildrop"
    maildrop.mkdir()
    drop_id = leave(maildrop)
    os.chown(maildrop / f"{drop_id}.drop", 12345, 12345)
    with gateway_to(provider, tmp_path) as gateway:
        provider.wait_for_messages(1)
        gateway.wait_for_log(r"pickup\[\d+\]: \w+: uid=12345 from=<shop@shop.test>")
        assert only_entry(gateway).source.uid == 12345


# --- trouble ------------------------------------------------------------------------------


def test_a_directory_that_cannot_be_is_said_once_and_smtp_goes_on(
    provider: ThreadedProvider, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = str(tmp_path / "file" / "maildrop")
    with gateway_to(provider, tmp_path, maildrop={"path": path}) as gateway:
        (line,) = gateway.wait_for_log(r"pickup\[\d+\]: warning: maildrop ")
        assert path in line
        assert "Not a directory" in line
        assert "install -d -o " in line
        gateway.send("a@shop.test", ["b@cust.test"], CONTENT.replace(b"\n", b"\r\n"))
        provider.wait_for_messages(1)


def test_an_unknown_group_is_said(provider: ThreadedProvider, tmp_path: Path) -> None:
    section = {"path": str(tmp_path / "maildrop"), "group": "nosuchgroup"}
    with gateway_to(provider, tmp_path, maildrop=section) as gateway:
        gateway.wait_for_log("no group nosuchgroup on this machine")


def test_a_directory_that_is_replaced_is_found_again(
    provider: ThreadedProvider, tmp_path: Path
) -> None:
    with gateway_to(provider, tmp_path) as gateway:
        maildrop = wait_until_serving(gateway)
        shutil.rmtree(maildrop)
        maildrop.mkdir(mode=0o700)
        wait_until_serving(gateway)
        leave(maildrop)
        provider.wait_for_messages(1)


def test_while_the_volume_is_full_files_stay(provider: ThreadedProvider, tmp_path: Path) -> None:
    with gateway_to(provider, tmp_path, **fixed_binds(), has_web=True) as gateway:
        maildrop = wait_until_serving(gateway)
        gateway.settings["queue"]["min_free"] = "100%"
        gateway.wait_for_log("reloaded", start=gateway.reload())
        drop_id = leave(maildrop)
        gateway.wait_for_log("nearly full; local mail stays in the maildrop")
        assert drops(maildrop) == [f"{drop_id}.drop"]
        said = run_relaygw(
            ["--config", str(gateway.config), "status"], capture_output=True, text=True
        ).stderr
        assert "is free (queue.min_free): new mail is refused with 452" in said
        ready = httpx2.get(f"http://127.0.0.1:{gateway.web_port}/readyz")
        assert ready.text == "not ready: the volume is full, and no mail is accepted\n"
        gateway.settings["queue"]["min_free"] = "0%"
        gateway.wait_for_log("reloaded", start=gateway.reload())
        provider.wait_for_messages(1)


@pytest.mark.campaign
@on_a_database
def test_two_fronts_and_reloads_take_each_file_once(
    provider: ThreadedProvider, tmp_path: Path
) -> None:
    with gateway_to(provider, tmp_path, processes={"front": 2}, **fixed_binds()) as gateway:
        maildrop = wait_until_serving(gateway)
        for number in range(RELOADED):
            leave(maildrop, content=numbered(number))
            if number % (RELOADED // 3) == RELOADED // 6:
                gateway.wait_for_log("reloaded", start=gateway.reload())
        provider.wait_until(lambda: len(provider.messages) >= RELOADED)
        gateway.wait_until_empty()
        gateway.wait_until(lambda: not drops(maildrop), "an empty maildrop")
        assert gateway.stop() == 0
        assert not (maildrop / "wake").exists()
    assert numbers(provider) == Counter(range(RELOADED))


# --- exactly once -------------------------------------------------------------------------


@pytest.mark.parametrize("when", [1, 7])
@pytest.mark.usefixtures("each_database")
def test_killed_between_the_commit_and_the_removal(
    provider: ThreadedProvider, tmp_path: Path, when: int
) -> None:
    with gateway_to(provider, tmp_path) as gateway:
        maildrop = wait_until_serving(gateway)
        front = gateway.pids("front")[-1]
        inject = f"inject=unlink,unlinkat:signal=KILL:when={when}"
        with Strace(front, tmp_path / "trace", "-e", "trace=unlink,unlinkat", "-e", inject):
            for number in range(20):
                leave(maildrop, content=numbered(number), wake=False)
            gateway.wait_for_log("front .* ended with signal 9")
        provider.wait_for_messages(20)
        gateway.wait_until(lambda: not drops(maildrop), "an empty maildrop")
        gateway.wait_for_log("its mail was stored before; removed")
        gateway.wait_until_empty()
    assert numbers(provider) == Counter(range(20))


@pytest.mark.campaign
def test_kills_at_random(provider: ThreadedProvider, tmp_path: Path) -> None:
    chance = random.Random(20_251)
    count = 30 * KILLS
    moments = set(chance.sample(range(count), KILLS))
    with gateway_to(provider, tmp_path) as gateway:
        maildrop = wait_until_serving(gateway)
        killed: set[int] = set()
        for number in range(count):
            leave(maildrop, content=numbered(number))
            if number in moments:
                gateway.wait_until(lambda: bool(set(gateway.pids("front")) - killed), "a front")
                living = set(gateway.pids("front")) - killed
                killed.update(living)
                for pid in living:
                    os.kill(pid, signal.SIGKILL)
        provider.wait_until(lambda: len(numbers(provider)) == count)
        gateway.wait_until(lambda: not drops(maildrop), "an empty maildrop")
        gateway.wait_until_empty()
    assert numbers(provider) == Counter(range(count))


def execute(gateway: Gateway, statement: str) -> None:
    with gateway.store.database.write() as connection:
        connection.connection.exec_driver_sql(statement)


def test_a_message_that_cannot_be_stored_is_left_alone(
    provider: ThreadedProvider, tmp_path: Path, each_database: str
) -> None:
    with gateway_to(provider, tmp_path) as gateway, ExitStack() as stack:
        maildrop = wait_until_serving(gateway)
        execute(gateway, POISON[each_database])
        stack.callback(execute, gateway, CURE[each_database])  # the queue is only lent
        poison = leave(maildrop, content=b"Subject: poison\n\nx\n", wake=False)
        gateway.wait_for_log(f"{poison}.drop: failed 3 times: .*poison.*; left in place")
        for number in range(3):
            leave(maildrop, content=numbered(number))
        provider.wait_for_messages(3)
        assert f"{poison}.drop" in drops(maildrop)
