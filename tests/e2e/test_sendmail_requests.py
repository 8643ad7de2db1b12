"""sendmail -q, -bv and postqueue -f as any local user, whom the gateway's files are closed to."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from relaygw.mail import drop
from tests.e2e.gateway import Gateway
from tests.e2e.sendmail_rig import NOBODY, Installation
from tests.e2e.test_sendmail_mailq import ANOTHER, CONTENT, gateway_at
from tests.fakes.scripted_provider import ThreadedProvider
from tests.rights import needs

LATER = b"450 4.2.1 later\r\n"
Done = tuple[int, bytes, bytes]


def run_as(command: Installation, uid: int, *words: str, name: str = "sendmail") -> Done:
    done = command.run(*words, name=name, uid=uid)
    return done.returncode, done.stdout, done.stderr


def wait_for_socket(command: Installation, gateway: Gateway) -> Path:
    path = command.maildrop / drop.REQUEST_SOCKET
    gateway.wait_until(path.exists, "a socket for requests")
    return path


@needs("root")
def test_any_user_flushes_once_in_ten_seconds(
    command: Installation, provider: ThreadedProvider, tmp_path: Path
) -> None:
    (command.root / "postqueue").symlink_to("sendmail")
    provider.script("RCPT", LATER, LATER, b"250 2.1.5 Ok\r\n")
    with gateway_at(command, tmp_path, provider) as gateway:
        wait_for_socket(command, gateway)
        queue_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.wait_for_log(f"{queue_id}: .*status=deferred")
        assert run_as(command, NOBODY, "-q") == (0, b"", b"")
        gateway.wait_for_log(f"{queue_id}: .*status=deferred", count=2)
        again = run_as(command, NOBODY, "-q")
        assert again == (
            75,
            b"",
            b"sendmail: each user may flush once in ten seconds; try again then\n",
        )
        assert run_as(command, ANOTHER, "-i", queue_id, name="postqueue") == (0, b"", b"")
        gateway.wait_for_log(f"{queue_id}: .*status=sent")
        lines = {entry.actor: entry for entry in gateway.store.audit.entries(limit=9)}
        assert (lines["nobody"].target, lines["nobody"].affected) == ("", 1), "ids are not listed"
        assert (lines[str(ANOTHER)].target, lines[str(ANOTHER)].affected) == (queue_id, 1)


@needs("root")
def test_any_user_asks_what_becomes_of_mail(
    command: Installation, provider: ThreadedProvider, tmp_path: Path
) -> None:
    allow = {"allow": ["dev@agency.test"], "block": ["boss@agency.test"]}
    team = {"recipients": {"team@agency.test": ["dev@agency.test", "x@b.test", "y@b.test"]}}
    sections = {"mode": "staging", "recipients": allow, "rewrite": team}
    with gateway_at(command, tmp_path, provider, **sections) as gateway:
        wait_for_socket(command, gateway)
        gateway.config.chmod(0o640)
        _, said, _ = run_as(command, NOBODY, "-bv", "team@agency.test")
        verdicts = [line.partition(";")[0] for line in said.decode().splitlines()]
        assert verdicts == [
            "team@agency.test: sent",
            "team@agency.test: captured, 250 to the client: staging: not on the allow list",
        ]
        addresses = ["dev@agency.test", "b@cust.test", "boss@agency.test"]
        code, said, complaints = run_as(command, NOBODY, "-bv", "-fa@shop.test", *addresses)
        assert (code, complaints) == (0, b"")
        sent, captured, blocked = said.decode().splitlines()
        assert sent.startswith(
            "dev@agency.test: sent; route: default (transactional), number 1 of 1"
        )
        assert sent.endswith(", provider main")
        assert captured.startswith("b@cust.test: captured, 250 to the client: staging: ")
        assert "on the block list" in blocked
        assert "dev@" not in captured + blocked


@needs("root")
def test_nobody_answers(command: Installation) -> None:
    code, said, complaint = run_as(command, NOBODY, "-q")
    assert (code, said) == (69, b"")
    assert b"start it, or ask root for `relaygw queue flush, or relaygw check`" in complaint
    # who has the files himself needs no gateway
    assert run_as(command, 0, "-q") == (0, b"queue retry --all --yes\n", b"")


@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        (b"erase\0all\n", b"the gateway does not know this request\nexit 64\n"),
        (b"verify\0s@x.test\0" + b"r" * 3000 + b"@x.test\n", b"exit 65\n"),
        (b"verify\0s@x.test\0r@x.test\r\nexit 0\n", b"exit 65\n"),
        (b"verify\0s@x..test\0r@x.test\n", b"exit 65\n"),
        (b"flush\0NO-SUCH-ID\n", b"no mail of the id NO-SUCH-ID waits to be tried\nexit 65\n"),
        (b"x" * drop.MAX_REQUEST_BYTES + b"\n", b"exit 64\n"),
    ],
    ids=["verb", "long", "forged", "sender", "id", "endless"],
)
def test_odd_requests(asked: Path, request_line: bytes, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(asked))
        client.sendall(request_line)
        said = b""
        while piece := client.recv(4096):
            said += piece
    assert said.endswith(answer)
    assert said.count(b"\nexit ") == 1


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> object:
    directory = tmp_path_factory.mktemp("asked")
    maildrop = {"path": str(directory / "maildrop")}
    with Gateway(directory, mode="sandbox", maildrop=maildrop) as gateway:
        path = directory / "maildrop" / drop.REQUEST_SOCKET
        gateway.wait_until(path.exists, "a socket for requests")
        yield path


def test_ordinary_mail_loads_no_sockets(command: Installation) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "-ISX", "importtime", command.sendmail, "-i", "b@x.test"],
        input=CONTENT, env=command.environment(), capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert b"relaygw.sendmail" in done.stderr
    assert b"socket" not in done.stderr
    assert b"relaygw.sendmail.queue" not in done.stderr
