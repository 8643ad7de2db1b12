"""mailq as any local user: what the front tells him, and whom the command believes."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from relaygw.store import instances
from tests.builders import accepted, instance
from tests.e2e.gateway import PATIENCE_S, Gateway, gateway_to
from tests.e2e.ports import fixed_binds
from tests.e2e.sendmail_rig import NOBODY, Installation
from tests.fakes.scripted_provider import ThreadedProvider
from tests.rights import needs

ANOTHER = 54321
CONTENT = b"Subject: x\r\n\r\nhello\r\n"
EMPTY = b"Mail queue is empty\n"

# connects to argv[1] 30 times and reads nothing; says how many were closed at once
_HOARDER = """
import select, socket, sys
open_ones, closed = [], 0
for _ in range(30):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.connect(sys.argv[1])
    open_ones.append(one)
while len(open_ones) > 4:
    for one in select.select(open_ones, [], [])[0]:
        if not one.recv(1, socket.MSG_PEEK):
            open_ones.remove(one)
            closed += 1
print(closed, flush=True)
sys.stdin.read()
"""


def gateway_at(
    command: Installation, directory: Path, provider: ThreadedProvider, **sections: Any
) -> Gateway:
    """Return a gateway that takes mail where the installed command leaves it."""
    return gateway_to(
        provider,
        directory,
        maildrop={"path": str(command.maildrop)},
        retry={"first": "1h", "max": "1h"},
        **sections,
    )


def ask(command: Installation, *, uid: int | None = None) -> bytes:
    """Return what mailq prints, having seen that it ended well."""
    done = command.run(name="mailq", uid=uid)
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout


def wait_for_socket(command: Installation, gateway: Gateway) -> None:
    gateway.wait_until((command.maildrop / "queue").exists, "a socket for mailq")


@contextmanager
def listening(path: Path, answer: bytes) -> Iterator[None]:
    """Stand for a front that sends `answer` to one client."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        path.chmod(0o666)
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client, suppress(BrokenPipeError):
                client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    path.unlink()


# --- the front ----------------------------------------------------------------------------


@needs("root")
def test_any_user_sees_the_queue(
    command: Installation, provider: ThreadedProvider, tmp_path: Path
) -> None:
    provider.recipients["b@cust.test"] = b"450 4.2.1 the mailbox is full\r\n"
    with gateway_at(command, tmp_path, provider) as gateway:
        wait_for_socket(command, gateway)
        assert ask(command, uid=NOBODY) == EMPTY
        queue_id = gateway.send("a@shop.test", ["b@cust.test", "c@cust.test"], CONTENT)
        gateway.wait_for_log("to=<b@cust.test>.*status=deferred")
        size = gateway.entry(queue_id).size_bytes
        lines = ask(command, uid=NOBODY).decode().splitlines()
        assert lines[0] == "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------"
        assert re.fullmatch(rf"{queue_id}  +{size} \w{{3}} \w{{3}} .\d [\d:]{{8}} a@s.*", lines[1])
        assert lines[2].strip() == "(450 4.2.1 the mailbox is full)"
        assert lines[3:] == [" " * 48 + "b@cust.test", "", "-- 0 Kbytes in 1 Request."]
        assert not any("maildrop/queue" in line for line in gateway.lines)
        assert stat_mode(command.maildrop / "queue") == 0o666
        assert gateway.stop() == 0
        assert not (command.maildrop / "queue").exists()


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_many_messages_and_a_reload(
    command: Installation, provider: ThreadedProvider, tmp_path: Path
) -> None:
    # three pages and a beginning of the fourth, on a route that nobody serves
    messages = [accepted(f"r{number}@cust.test", route="gone") for number in range(1650)]
    with gateway_at(command, tmp_path, provider, **fixed_binds()) as gateway:
        wait_for_socket(command, gateway)
        stay_on_its_route(gateway, tmp_path)
        gateway.store.intake.accept_batch(messages)
        listed = ask(command)
        in_order = [m.deliveries[0].recipients[0].address for m in sorted_by_id(messages)]
        assert re.findall(rb"^ {48}(\S+)$", listed, re.MULTILINE) == [a.encode() for a in in_order]
        assert listed.endswith(b"\n\n-- 33 Kbytes in 1650 Requests.\n")
        assert listed.count(b"----Queue ID-----") == 1
        gateway.wait_for_log("reloaded", start=gateway.reload())
        gateway.wait_until(lambda: is_answering(command), "a new front that answers")
        assert ask(command) == listed


def stay_on_its_route(gateway: Gateway, directory: Path) -> None:
    """Have mail of an unknown route left where it is: another worker may know that route."""
    instances.Lifeline(directory / "state/instances", "other")  # it lives as long as this process
    gateway.store.instances.register(
        instance("other", name="gw.shop.test", fingerprint="of other settings")
    )


def sorted_by_id(messages: list[Any]) -> list[Any]:
    return sorted(messages, key=lambda message: message.queue_id)


def is_answering(command: Installation) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(command.maildrop / "queue"))
            return bool(client.recv(1))
        except OSError:
            return False


@needs("root")
def test_who_connects_and_does_not_read_harms_nobody(
    command: Installation, provider: ThreadedProvider, tmp_path: Path
) -> None:
    provider.recipients["b@cust.test"] = b"450 4.2.1 later\r\n"
    with gateway_at(command, tmp_path, provider) as gateway:
        wait_for_socket(command, gateway)
        stay_on_its_route(gateway, tmp_path)
        gateway.store.intake.accept_batch([accepted(route="gone") for _ in range(3000)])
        hoarder = subprocess.Popen(
            ["/usr/bin/python3", "-c", _HOARDER, str(command.maildrop / "queue")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
        )
        assert hoarder.stdout is not None
        assert hoarder.stdout.readline() == b"26\n"
        refused = command.run(name="mailq", uid=NOBODY)
        assert (refused.returncode, refused.stdout) == (75, b"")
        assert b"the list is incomplete" in refused.stderr
        gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        assert ask(command, uid=ANOTHER).endswith(b"in 3001 Requests.\n")
        hoarder.communicate(timeout=PATIENCE_S)
        gateway.wait_until(
            lambda: command.run(name="mailq", uid=NOBODY).returncode == 0, "room for that user"
        )
        assert not any("showq" in line for line in gateway.lines)


# --- the command --------------------------------------------------------------------------


@needs("root")
def test_nobody_answers(command: Installation) -> None:
    done = command.run(name="mailq", uid=NOBODY)
    assert (done.returncode, done.stdout) == (69, b"")
    assert f"does not answer in {command.maildrop}: No such file".encode() in done.stderr
    assert done.stderr.endswith(b"; start it, or ask root for `relaygw queue list`\n")
    # who may read the queue himself does
    assert ask(command) == b"queue list\n"


@needs("root")
def test_a_socket_of_another_user_is_not_believed(command: Installation) -> None:
    path = command.maildrop / "queue"
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
        "print(flush=True); c, _ = s.accept(); c.sendall(b'\\x1b[2JMail queue is empty\\n')"
    )
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", program, str(path)], stdout=subprocess.PIPE, user=ANOTHER
    ) as planted:
        assert planted.stdout is not None
        planted.stdout.readline()
        path.chmod(0o666)
        done = command.run(name="mailq", uid=NOBODY)
    path.unlink()
    assert (done.returncode, done.stdout) == (69, b"")
    assert b"another user's program listens there" in done.stderr


@pytest.mark.parametrize("answer", [b"", b"----Queue ID-----\nA 1 x\n\n", b"-- 3 Kbytes in 1 Req"])
def test_a_list_that_is_not_whole_is_said(command: Installation, answer: bytes) -> None:
    with listening(command.maildrop / "queue", answer):
        done = command.run(name="mailq")
    assert (done.returncode, done.stdout) == (75, answer)
    assert done.stderr == (
        b"sendmail: the list is incomplete: the gateway is busy or was stopped; try again\n"
    )


def test_a_reader_that_has_seen_enough(command: Installation) -> None:
    with listening(command.maildrop / "queue", b"x" * 10_000_000):
        before = ["sh", "-c", '("$0" "$@"; echo "code $?" >&2) | head -c 5']
        done = command.run(name="mailq", before=before)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"xxxxx", b"code 0\n")


def test_a_list_that_cannot_be_written(command: Installation) -> None:
    with listening(command.maildrop / "queue", EMPTY):
        done = command.run(name="mailq", before=["sh", "-c", '"$0" "$@" >/dev/full'])
    assert (done.returncode, done.stdout) == (74, b"")
    assert done.stderr == b"sendmail: cannot write the list: No space left on device\n"


def test_the_names_of_mailq(command: Installation) -> None:
    for name, words in (("mailq", []), ("sendmail", ["-bp"]), ("sendmail", ["-oi", "-bp"])):
        with listening(command.maildrop / "queue", EMPTY):
            done = command.run(*words, name=name)
        assert (done.returncode, done.stdout, done.stderr) == (0, EMPTY, b"")
    assert list(command.maildrop.iterdir()) == []
