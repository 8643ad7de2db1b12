"""The log of real processes: what it says is what the queue says, and nothing waits for it."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import select
import signal
import smtplib
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.queue_entry import QueueEntry
from tests.e2e.doors import OTHER_PASSWORD, PASSWORD, user
from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.logged_gateway import FileGateway, SyslogGateway
from tests.e2e.ports import fixed_binds
from tests.e2e.test_maildrop import leave
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import RelaygwProcess
from tests.pflogsumm import totals_of
from tests.rights import needs

EVERY_STATE = frozenset(DeliveryState)
CONTENT = b"Subject: Your order\r\n\r\nhello\r\n"
FORGED_SUBJECTS = (
    b"to=<b@c>, relay=x, delay=1, delays=0/0/0/0, dsn=2.0.0, status=sent (ok)",
    b"from=<a@b>, size=99999, nrcpt=1 (queue active)",
    b"[1]: AAAAAAAAAA: client=unknown[1.2.3.4]",
    b"it was forwarded as you asked",
    b"=?utf-8?q?x=0d=0ANov_25_08=3A45=3A19_gw_relaygw/qmgr[1]=3A_X=3A_removed?=",
)


def send_many(port: int, count: int, *, prefix: str = "m") -> list[float]:
    """Send messages over one connection; return how long each took, in seconds."""
    took = []
    with smtplib.SMTP(
        "127.0.0.1", port, timeout=PATIENCE_S, local_hostname="client.test"
    ) as client:
        for number in range(count):
            began_s = time.monotonic()
            client.sendmail("a@shop.test", [f"{prefix}{number}@cust.test"], CONTENT)
            took.append(time.monotonic() - began_s)
    return took


def everything(gateway: Gateway) -> list[QueueEntry]:
    return gateway.queue(EVERY_STATE)


# --- what it says ------------------------------------------------------------------------


def a_short_day(gateway: Gateway, provider: ThreadedProvider) -> int:
    """Have mail delivered, deferred, bounced, captured, blocked; return what was refused."""
    provider.script("RCPT", b"450 4.2.0 <x> greylisted (try later)\r\n", b"451 4.3.0\r\n")
    provider.script("CONTENT", b"452 4.3.1 to=<a@b>, relay=x, status=sent (no)\r\n")
    for number in range(12):
        people = [f"c{number}@cust.test", *(["gone@cust.test"] if number % 3 == 0 else [])]
        gateway.send(f"shop{number % 2}@shop.test", people, CONTENT * (number + 1))
    for number, subject in enumerate(FORGED_SUBJECTS):
        content = b"Subject: " + subject + b"\r\nMessage-ID: <a reject: header x>\r\n\r\nx\r\n"
        gateway.send("a@shop.test", [f"f{number}@cust.test"], content)
    gateway.send("", ['"odd > one"@cust.test', "spam@block.test"], CONTENT)
    for _ in range(3):
        leave(
            gateway.directory / "maildrop", content=b"X-PHP-Originating-Script: 0:a.php\n" + CONTENT
        )
    refused = 0
    with gateway.connect() as client:
        for command in (
            b"EHLO [1]:\x20A:\x20client=x",
            b"MAIL FROM:<a b>",
            b"RCPT TO:<x@y>",
            b"\x1b[",
        ):
            refused += client.command(command)[:1] == "5"
    return refused


def expected_totals(entries: list[QueueEntry]) -> dict[str, int]:
    """What the database says, in pflogsumm's words."""
    people = [(entry, one) for entry in entries for one in entry.recipients]
    delivered = [(e, one) for e, one in people if one.state is RecipientState.DELIVERED]
    bounced = [one for _, one in people if one.state is RecipientState.BOUNCED]
    return {
        "received": len(entries),
        "delivered": len(delivered),
        "forwarded": 0,
        "deferrals": sum(one.attempts for _, one in people) - len(delivered) - len(bounced),
        "bounced": len(bounced),
        "reject warnings": 0,
        "held": 0,
        "discarded": 0,
        "bytes received": sum(entry.size_bytes for entry in entries),
        "bytes delivered": sum(entry.size_bytes for entry, _ in delivered),
        "senders": len({entry.sender for entry in entries}),
        "recipients": len({one.address for _, one in delivered}),
    }


def test_pflogsumm_tells_what_the_database_tells(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    provider.recipients["gone@cust.test"] = b"550 5.1.1 <gone@cust.test>: no such user\r\n"
    with FileGateway(
        tmp_path,
        providers={"main": provider_settings(provider.port)},
        recipients={"block": ["@block.test"]},
    ) as gateway:
        refused = a_short_day(gateway, provider)
        gateway.wait_until(lambda: len(everything(gateway)) == 21, "all mail is in")
        gateway.wait_until_empty()
        entries = everything(gateway)
        assert gateway.stop() == 0

    totals = totals_of(gateway.path)
    expected = expected_totals(entries)
    assert expected["deferrals"] >= 3
    assert expected["bounced"] == 4
    assert {what: totals[what] for what in expected} == expected
    assert totals["rejected"] == refused >= 3


def test_json_tells_what_the_database_tells_and_every_line_parses(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    provider.recipients["gone@cust.test"] = b"550 5.1.1 \x1b[31m\x00\xff no\r\n"
    with FileGateway(
        tmp_path,
        providers={"main": provider_settings(provider.port)},
        recipients={"block": ["@block.test"]},
        log={"format": "json"},
    ) as gateway:
        a_short_day(gateway, provider)
        gateway.wait_until(lambda: len(everything(gateway)) == 21, "all mail is in")
        gateway.wait_until_empty()
        entries = everything(gateway)
        assert gateway.stop() == 0

    raw = gateway.path.read_bytes()
    assert re.fullmatch(rb"(?:[ -~]+\n)+", raw)
    records = [json.loads(line) for line in raw.splitlines()]
    events = Counter(record["event"] for record in records)
    assert events["accepted"] == len(entries)
    outcomes = Counter(record["status"] for record in records if record["event"] == "outcome")
    expected = expected_totals(entries)
    assert outcomes == {
        "sent": expected["delivered"],
        "deferred": expected["deferrals"],
        "bounced": expected["bounced"],
        "blocked": 1,
    }
    last = {
        (record["qid"], record["to"]): record for record in records if record["event"] == "outcome"
    }
    for entry in entries:
        for one in entry.recipients:
            record = last[entry.queue_id, one.address]
            assert (record["from"], record["subject"]) == (entry.sender, entry.subject)
            assert (record["provider"], record["attempt"]) == (one.provider, one.attempts)
    scripts = {r["source"].get("script") for r in records if r["event"] == "accepted"}
    assert scripts == {None, "0:a.php"}


def test_no_input_of_a_client_breaks_a_line_or_shows_a_secret(tmp_path: Path) -> None:
    secret = base64.b64encode(f"\0shop1\0{OTHER_PASSWORD}".encode())
    inputs = [
        b"EHLO \x1b[2J\x00x",
        b"HELO a\xe2\x80\xa8b\x7f\xc2\x85",
        b"MAIL FROM:<\xff\xfe@x.test>",
        b"MAIL FROM:<\xe2\x80\xae@x.test> SMTPUTF8",
        b'VRFY {"ts": 1}\\',
        b"\x80\x81 \x1b]0;x\x07",
        b"EHLO client.test",
        b"AUTH PLAIN " + secret,
        b"AUTH PLAIN\x00" + secret,
        b"AUTH LOGIN",
        base64.b64encode(OTHER_PASSWORD.encode()),
        base64.b64encode(OTHER_PASSWORD.encode()),
        OTHER_PASSWORD.encode(),
    ]
    for form in ("postfix", "json"):
        place = tmp_path / form
        place.mkdir()
        with FileGateway(place, mode="sandbox", users=[user()], log={"format": form}) as gateway:
            with gateway.connect() as client:
                for line in inputs:
                    client.command(line)
            gateway.send("a@x.test", ["b@y.test"], b"Subject: \x1b[31m \x00 \xff\r\n\r\nx\r\n")
            assert gateway.stop() == 0
        raw = gateway.path.read_bytes()
        for line in raw.decode().split("\n")[:-1]:
            assert line.isprintable(), line
            assert form != "json" or isinstance(json.loads(line), dict)
        for canary in (PASSWORD, OTHER_PASSWORD, secret.decode(), user()["password_hash"]):
            assert canary.encode() not in raw
        assert base64.b64encode(OTHER_PASSWORD.encode()) not in raw


def test_what_is_redacted_is_in_no_line(tmp_path: Path, provider: ThreadedProvider) -> None:
    provider.recipients["canary.gone@cust.test"] = b"550 5.1.1 <canary.gone@cust.test> unknown\r\n"
    with FileGateway(
        tmp_path,
        providers={"main": provider_settings(provider.port)},
        log={"redact": ["subject", "local_part"]},
    ) as gateway:
        people = ["canary.gone@cust.test", "canary.b@cust.test"]
        gateway.send("canary.a@shop.test", people, b"Subject: canary words\r\n\r\nx\r\n")
        leave(tmp_path / "maildrop", "canary.c@cust.test", sender="canary.d@shop.test")
        with gateway.connect() as client:
            client.command(b"EHLO x")
            client.command(b"MAIL FROM:<canary.e@x y>")
        gateway.wait_for_log("to=<.*status=", count=3)
        gateway.wait_until_empty()
        assert gateway.stop() == 0
    text = gateway.path.read_text()
    assert "canary" not in text
    assert "to=<*@cust.test>" in text
    assert totals_of(gateway.path)["received"] == 2


def test_without_a_subject_lines_are_purely_postfix(tmp_path: Path) -> None:
    with FileGateway(tmp_path, mode="sandbox", log={"subject": False}) as gateway:
        gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.wait_for_log(r"status=captured \(.*\)$")
        gateway.wait_for_log(r"nrcpt=1 \(queue active\)$")


# --- files -------------------------------------------------------------------------------


def test_a_file_is_rotated_under_load_without_a_lost_line(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    rounds, each = 6, 10
    are_rotated = threading.Event()
    bursts: list[int] = []

    def send_on(name: str) -> None:
        while not are_rotated.is_set():
            send_many(gateway.smtp_port, each, prefix=f"{name}-{len(bursts)}-")
            bursts.append(each)

    with FileGateway(
        tmp_path,
        providers={"main": provider_settings(provider.port)},
        processes={"front": 2, "delivery": 2},
    ) as gateway:
        senders = [threading.Thread(target=send_on, args=(f"s{n}",)) for n in range(rounds)]
        for sender in senders:
            sender.start()
        for number in range(rounds):
            gateway.wait_until(lambda: gateway.path.stat().st_size > 0, "lines in this file, too")
            old = gateway.path.with_name(f"mail.log.{number}")
            gateway.path.rename(old)
            inode = old.stat().st_ino
            gateway.signal(signal.SIGUSR1)
            gateway.wait_until(
                lambda inode=inode: gateway.path.exists() and not gateway.holders_of(inode),  # type: ignore[misc]
                "the old file is let go",
            )
        are_rotated.set()
        for sender in senders:
            sender.join()
        gateway.wait_until(lambda: len(everything(gateway)) == sum(bursts), "all mail is in")
        gateway.wait_until_empty()
        entries = everything(gateway)
        assert gateway.stop() == 0

    files = [gateway.path, *(gateway.path.with_name(f"mail.log.{n}") for n in range(rounds))]
    text = "".join(file.read_text() for file in files)
    lines = text.splitlines()
    assert all(re.match(r"\w{3} [ \d]\d [\d:]{8} gw relaygw/\w+\[\d+\]: ", line) for line in lines)
    for what in (r"client=unknown\[", "message-id=", "from=<", "to=<.*status=sent", "removed$"):
        seen = Counter(re.findall(rf"\]: ([A-Z0-9]+): {what}", text, re.M))
        assert seen == {entry.queue_id: 1 for entry in entries}, what
    assert all(file.stat().st_size > 0 for file in files)


def test_a_role_that_starts_later_and_a_restarted_one_log_to_the_new_file(tmp_path: Path) -> None:
    with FileGateway(tmp_path, mode="sandbox") as gateway:
        gateway.path.rename(tmp_path / "mail.log.1")
        for count in range(1, 4):
            os.kill(running_front(gateway), signal.SIGKILL)
            gateway.wait_for_log("warning: front .* ended with signal 9", count=count)
            for _ in range(50):  # some meet the child before it can open its log again
                gateway.signal(signal.SIGUSR1)
                time.sleep(0.002)
            running_front(gateway)
        assert not gateway.holders_of((tmp_path / "mail.log.1").stat().st_ino)
        queue_id = send_when_ready(gateway)
        gateway.wait_for_log(f"{queue_id}: to=<b@cust.test>.*captured")
        assert queue_id in gateway.path.read_text()
        assert not [line for line in gateway.lines if f"signal {signal.SIGUSR1:d}" in line]
        assert gateway.stop() == 0


def running_front(gateway: Gateway) -> int:
    """Return the process id of the front, once there is one."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [one for one in gateway.pids("front") if Path(f"/proc/{one}").exists()]
        return bool(found)

    gateway.wait_until(look, "a front runs")
    return found[-1]


def send_when_ready(gateway: Gateway) -> str:
    """Send a message to a gateway whose front is just being started."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        except (OSError, smtplib.SMTPException):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)


@contextmanager
def tiny_volume(place: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@needs("mounts")
@pytest.mark.parametrize("form", ["postfix", "json"])
def test_a_full_log_disk_stops_nothing_and_lines_follow(
    tmp_path: Path, provider: ThreadedProvider, form: str
) -> None:
    with tiny_volume(tmp_path / "logs", "64k") as volume:
        ballast = volume / "ballast"
        ballast.write_bytes(b"x" * 48 * 1024)
        with FileGateway(
            tmp_path,
            path=volume / "mail.log",
            providers={"main": provider_settings(provider.port)},
            log={"format": form},
        ) as gateway:
            took_s = send_many(gateway.smtp_port, 200)
            gateway.wait_until_empty()
            provider.wait_for_messages(200)
            assert statistics.median(took_s) < 1
            gateway.wait_until(
                lambda: any("No space left on device" in line for line in gateway.complaints),
                "the trouble is told on stderr",
            )
            written = len(gateway.raw)
            subprocess.run(["mount", "-o", "remount,size=8m", volume], check=True)
            queue_id = gateway.send("a@shop.test", ["last@cust.test"], CONTENT)
            gateway.wait_for_log(f"{queue_id}: (?:to=.*status=)?sent")
            assert len(gateway.raw) > written
            entries = everything(gateway)
            assert gateway.stop() == 0
        text = (volume / "mail.log").read_text()
    torn = 0
    for line in text.split("\n")[:-1]:
        if form == "json":
            try:
                json.loads(line)
            except ValueError:
                torn += 1
    # none was lost: they waited in memory; each process tears one line at most
    assert torn <= 4
    for entry in entries:
        assert re.search(rf"\b{entry.queue_id}\b.*sent", text), entry.queue_id
        assert re.search(rf"\b{entry.queue_id}\b.*removed|removed.*{entry.queue_id}", text)


def test_a_place_that_is_missing_at_the_start_stops_nothing(tmp_path: Path) -> None:
    place = tmp_path / "later"
    gateway = FileGateway(tmp_path, mode="sandbox", path=place / "mail.log")
    starting = threading.Thread(target=gateway.start)
    starting.start()
    try:
        queue_id = send_when_ready_on(gateway)
        place.mkdir()
        starting.join(PATIENCE_S)
        gateway.wait_for_log(f"{queue_id}: to=<b@cust.test>.*captured")
        assert any(
            re.match(
                r"relaygw: log\.target: file:.*No such file or directory; mail is still processed",
                line,
            )
            for line in gateway.complaints
        )
        assert gateway.stop() == 0
    finally:
        gateway.__exit__()


def send_when_ready_on(gateway: Gateway) -> str:
    gateway.smtp_ports = [int(gateway.settings["listeners"][0]["bind"].rpartition(":")[2])]
    return send_when_ready(gateway)


def test_a_reload_changes_form_and_place(tmp_path: Path) -> None:
    with FileGateway(tmp_path, mode="sandbox") as gateway:
        other = tmp_path / "other.log"
        gateway.settings["log"] = {"target": f"file:{other}", "format": "json"}
        gateway.wait_until(lambda: bool(gateway.pids("front")), "a front")
        old = set(gateway.pids("front"))
        gateway.reload()
        gateway.wait_until(
            lambda: other.exists() and "reloaded: mode sandbox" in other.read_text(),
            "the new log",
        )
        gateway.wait_until(
            lambda: not gateway.holders_of(gateway.path.stat().st_ino), "the old one is let go"
        )
        # it may still take who comes, and opens its log for the first line only
        gateway.wait_until(lambda: not old & set(gateway.processes()), "the old front has ended")
        gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.wait_until(lambda: '"status":"captured"' in other.read_text(), "an outcome")
        assert gateway.stop() == 0


# --- syslog ------------------------------------------------------------------------------


def test_syslog_gets_each_line_as_a_datagram(tmp_path: Path, provider: ThreadedProvider) -> None:
    gateway = SyslogGateway(
        tmp_path,
        providers={"main": provider_settings(provider.port)},
        log={"syslog_name": "postfix"},
    )
    gateway.start_daemon()
    with gateway:
        queue_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.wait_for_log(f"{queue_id}: removed")
        with gateway.connect() as client:
            client.command(b"HELO \x1b[31m")
        gateway.wait_for_log("NOQUEUE: reject: HELO")
        assert gateway.stop() == 0
    head = r"<22>\w{3} [ \d]\d \d\d:\d\d:\d\d postfix/"
    assert all(re.match(rf"{head}[a-z]+\[\d+\]: .+", line) for line in gateway.raw)
    assert any(re.match(rf"{head}smtp\[\d+\]: {queue_id}: to=<b@cust", r) for r in gateway.raw)
    received = tmp_path / "as-syslog-writes-it"
    received.write_text(
        "".join(re.sub(r"^<\d+>(.{15}) ", r"\1 gw ", line) + "\n" for line in gateway.raw)
    )
    totals = totals_of(received, name="postfix")
    assert (totals["received"], totals["delivered"], totals["rejected"]) == (1, 1, 1)


def test_a_hanging_and_a_restarted_syslog_slow_no_mail(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    gateway = SyslogGateway(tmp_path, providers={"main": provider_settings(provider.port)})
    gateway.start_daemon()
    with gateway:
        gateway.is_hanging.set()
        took_s = send_many(gateway.smtp_port, 200, prefix="hanging")
        gateway.wait_until_empty()
        assert statistics.median(took_s) < 1
        assert len(gateway.raw) < 300  # it took nothing meanwhile
        gateway.is_hanging.clear()
        gateway.wait_for_log(r"to=<hanging\d+@cust.test>.*status=sent", count=200)

        gateway.stop_daemon()
        took_s = send_many(gateway.smtp_port, 100, prefix="absent")
        gateway.wait_until_empty()
        assert statistics.median(took_s) < 1
        gateway.start_daemon()
        gateway.wait_for_log(r"to=<absent\d+@cust.test>.*status=sent", count=100)
        assert gateway.stop() == 0
    assert any("No such file or directory" in line for line in gateway.complaints)


def test_a_syslog_that_is_absent_at_the_start_gets_all_of_it_later(tmp_path: Path) -> None:
    gateway = SyslogGateway(tmp_path, mode="sandbox")
    starting = threading.Thread(target=gateway.start)
    starting.start()
    try:
        queue_id = send_when_ready_on(gateway)
        gateway.start_daemon()
        starting.join(PATIENCE_S)
        gateway.wait_for_log(f"{queue_id}: to=<b@cust.test>.*captured")
        assert gateway.stop() == 0
    finally:
        gateway.__exit__()


# --- stderr ------------------------------------------------------------------------------


def serve(tmp_path: Path, **settings: Any) -> Gateway:
    """Return a gateway that is not started, its configuration written."""
    gateway = Gateway(tmp_path, **fixed_binds(), **settings)
    gateway.write_config()
    gateway.smtp_ports = [int(gateway.settings["listeners"][0]["bind"].rpartition(":")[2])]
    return gateway


def test_a_closed_pipe_stops_nothing(tmp_path: Path, provider: ThreadedProvider) -> None:
    gateway = serve(tmp_path, providers={"main": provider_settings(provider.port)})
    command = f"'{sys.executable}' -m relaygw --config '{gateway.config}' serve 2>&1 | head -1"
    shell = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
    try:
        assert shell.stdout is not None
        assert "relaygw/master[" in shell.stdout.readline()
        queue_id = send_when_ready(gateway)
        gateway.wait_until(lambda: bool(gateway.pids("front")), "a front is registered")
        first = gateway.kill("front")
        gateway.wait_until(
            lambda: any(pid != first for pid in gateway.pids("front")), "another front"
        )
        send_when_ready(gateway)
        provider.wait_for_messages(2)
        gateway.wait_until_empty()
        assert gateway.entry(queue_id).recipients[0].state is RecipientState.DELIVERED
    finally:
        stop_service(gateway)
        shell.wait(PATIENCE_S)
        if shell.stdout is not None:
            shell.stdout.close()
        gateway.__exit__()


def stop_service(gateway: Gateway) -> None:
    pid = int((gateway.directory / "state/service.pid").read_text())
    os.kill(pid, signal.SIGTERM)


def test_a_pipe_that_nobody_reads_slows_nothing(tmp_path: Path, provider: ThreadedProvider) -> None:
    gateway = serve(tmp_path, providers={"main": provider_settings(provider.port)})
    argv = ["--config", str(gateway.config), "serve"]
    process = RelaygwProcess(argv, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        send_when_ready(gateway)
        took_s = send_many(gateway.smtp_port, 300)
        gateway.wait_until_empty()
        assert statistics.median(took_s) < 1
        assert len(provider.messages) == 301
        assert select.select([process.stderr], [], [], 0)[0]
        os.set_blocking(process.stderr.fileno(), False)
        seen = b""
        deadline_s = time.monotonic() + PATIENCE_S
        while seen.count(b": removed") < 301:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
            try:
                seen += os.read(process.stderr.fileno(), 65536)
            except BlockingIOError as error:
                assert error.errno == errno.EAGAIN
        assert seen.count(b"status=sent") == 301
        for line in seen.splitlines():
            assert re.match(rb"\w{3} [ \d]\d [\d:]{8} gw relaygw/\w+\[\d+\]: ", line)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        process.stderr.close()
        gateway.__exit__()
