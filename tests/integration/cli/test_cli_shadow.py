"""What a running Postfix did, by its maillog, against what relaygw would do."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from relaygw.cli import main
from relaygw_postfix.shadow import Copies
from tests.forked import RelaygwProcess

SETTINGS: dict[str, Any] = {
    "mode": "production",
    "hostname": "gw.shop.test",
    "providers": {
        "main": {"host": "smtp.main.test", "port": 587},
        "promo": {"host": "smtp.promo.test", "port": 587},
        "spare": {"host": "smtp.spare.test", "port": 587},
    },
    "routes": [
        {"name": "promo", "sender": ["@promo.test"], "providers": ["promo"]},
        {"name": "marked", "recipient": ["@odd.test"], "header": {"X-Campaign": "*"},
         "providers": ["promo"]},
        {"name": "default", "providers": ["main", "spare"]},
    ],
    "recipients": {"block": ["@spam.test"]},
    "rewrite": {
        "recipients": {
            "root@shop.test": "ops@shop.test",
            "team@shop.test": ["me@shop.test", "ann@shop.test"],
        }
    },
}  # fmt: skip
MAIN, PROMO = "smtp.main.test[192.0.2.1]:587", "smtp.promo.test[192.0.2.2]:587"
_TIME = "Nov 27 15:18:55 shop1 postfix"
_numbers = iter(range(10**6))


def delivered(
    sender: str | None,
    recipient: str,
    *,
    relay: str = "none",
    daemon: str = "smtp",
    status: str = "sent",
    text: str = "250 2.0.0 Ok",
    original: str = "",
) -> str:
    """Return the lines of a delivery."""
    queue_id = f"{next(_numbers):010X}"
    orig_to = f" orig_to=<{original}>," if original else ""
    begin = f"{_TIME}/qmgr[7]: {queue_id}: from=<{sender}>, size=9, nrcpt=1 (queue active)\n"
    return (begin if sender is not None else "") + (
        f"{_TIME}/{daemon}[9]: {queue_id}: to=<{recipient}>,{orig_to} relay={relay}, delay=0.02, "
        f"delays=0.01/0.01/0/0, dsn=2.0.0, status={status} ({text})\n"
    )


SAME = delivered("a@shop.test", "b@cust.test", relay=MAIN)


class Desk:
    def __init__(self, directory: Path) -> None:
        self.log = directory / "mail.log"
        self.config = directory / "relaygw.yaml"
        self.config.write_text(yaml.safe_dump(SETTINGS))

    def run(self, *words: str | Path, stdin: str | None = None) -> Result:
        argv = ["--config", str(self.config), "shadow", *map(str, words)]
        return CliRunner().invoke(main, argv, input=stdin, env={"COLUMNS": "200"})

    def settings(self, **changes: Any) -> None:
        """Write the settings of all tests with these changes."""
        self.config.write_text(yaml.safe_dump(SETTINGS | changes))

    def one(self, lines: str) -> dict[str, Any]:
        """Return what is told of a log with one delivery."""
        self.log.write_text(lines)
        (told,) = self.run("run", "--maillog", self.log, "--json").stdout.splitlines()
        found: dict[str, Any] = json.loads(told)
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_mail_that_goes_the_same_way(desk: Desk) -> None:
    assert desk.one(SAME) == {
        "sender": "a@shop.test",
        "recipient": "b@cust.test",
        "result": "same",
        "relay": "smtp.main.test:587",
        "policy": "deliver",
        "route": "default",
        "why": "",
        "providers": ["main smtp.main.test:587", "spare smtp.spare.test:587"],
        "status": "sent",
    }


REACHED = "connect to smtp.main.test[192.0.2.1]:587: Connection timed out"
SPAM = "x@spam.test"


@pytest.mark.parametrize(
    ("lines", "result", "relay", "why"),
    [
        (delivered("a@promo.test", "b@cust.test", relay=PROMO), "same", "smtp.promo.test:587", ""),
        (delivered("a@promo.test", "b@cust.test", relay=MAIN), "not the same", "smtp.main.test:587",
         "smtp.main.test:587 at Postfix, promo smtp.promo.test:587 at relaygw"),
        (delivered("a@shop.test", "b@cust.test", relay="smtp.main.test[192.0.2.1]:25"),
         "not the same", "smtp.main.test:25", "at Postfix, main smtp.main.test:587"),
        (delivered("a@shop.test", "b@cust.test", status="deferred", text=REACHED),
         "same", "smtp.main.test:587", ""),
        (delivered("a@shop.test", "b@cust.test", daemon="error", status="deferred",
                   text=f"delivery temporarily suspended: {REACHED}"),
         "same", "smtp.main.test:587", ""),
        (delivered("a@shop.test", "b@cust.test", status="deferred",
                   text="Host or domain name not found. Name service error for "
                        "name=smtp.main.test type=A: Host not found"),
         "same", "smtp.main.test", ""),
        (delivered("a@shop.test", "b@cust.test", relay="smtp.spare.test[192.0.2.3]:587"),
         "not proven", "smtp.spare.test:587", "only while main is held or down"),
        (delivered("a@shop.test", "b@odd.test", relay=MAIN), "not proven", "smtp.main.test:587",
         "route marked has a condition that a maillog does not show"),
        (delivered(None, "b@cust.test", relay=MAIN), "not proven", "smtp.main.test:587",
         "its sender is not in the log"),
        (delivered("a@shop.test", "b@cust.test", daemon="error", status="deferred", text="later"),
         "not proven", "deferred", "its log names no host"),
        (delivered("a@shop.test", SPAM, relay=MAIN), "not the same", "smtp.main.test:587",
         "sent by Postfix; relaygw: drop"),
        (delivered("a@shop.test", SPAM, daemon="discard"), "same", "discarded", ""),
        (delivered("a@shop.test", SPAM, daemon="error", status="bounced", text="no"),
         "sent by neither", "refused: no", "refused: no at Postfix, drop here"),
        (delivered("a@shop.test", "b@cust.test", daemon="discard"), "not the same", "discarded",
         "sent to a provider by relaygw"),
        (delivered("a@shop.test", "b@cust.test", daemon="local", relay="local",
                   text="delivered to command: /bin/true"), "not the same",
         "given to a program", "sent to a provider by relaygw"),
        (delivered("a@shop.test", "b@cust.test", daemon="local", relay="local"), "not the same",
         "put into a mailbox", "sent to a provider by relaygw"),
        (f"{_TIME}/smtpd[3]: NOQUEUE: reject: RCPT from localhost[127.0.0.1]: 554 5.7.1 <{SPAM}>: "
         f"Recipient address rejected: Access denied; from=<a@shop.test> to=<{SPAM}> proto=SMTP\n",
         "sent by neither", "refused on receipt: Access denied", "drop here"),
        (delivered("a@shop.test", "ops@shop.test", original="root@shop.test", relay=MAIN),
         "same", "smtp.main.test:587", ""),
        (delivered("a@shop.test", "me@shop.test", original="root@shop.test", relay=MAIN),
         "not the same", "smtp.main.test:587", "me@shop.test at Postfix, ops@shop.test at relaygw"),
        (delivered("a@shop.test", "root@shop.test", relay=MAIN), "not proven", "smtp.main.test:587",
         "root@shop.test at Postfix, ops@shop.test at relaygw: smtp_generic_maps may do so, too"),
        (delivered("a@shop.test", "Root@shop.test", original="x@shop.test", relay=MAIN),
         "not the same", "smtp.main.test:587", "Root@shop.test at Postfix, x@shop.test at relaygw"),
        (delivered("a@shop.test", "Ann@shop.test", original="team@shop.test", relay=MAIN),
         "not proven", "smtp.main.test:587", "relaygw sends it to me@shop.test, ann@shop.test"),
        (delivered("a@shop.test", "ann@shop.test", original="team@shop.test", relay=PROMO),
         "not the same", "smtp.promo.test:587", "at Postfix, main smtp.main.test:587"),
        (delivered("a@shop.test", "x@shop.test", original="team@shop.test", relay=MAIN),
         "not the same", "smtp.main.test:587", "x@shop.test at Postfix, me@shop.test at relaygw"),
        (delivered("a@shop.test", "root", daemon="local", relay="local", text="forwarded as 0A1B")
         + delivered("a@shop.test", "ops@shop.test", original="root@shop.test", relay=MAIN),
         "same", "smtp.main.test:587", ""),
        (delivered("a@shop.test", "root@shop.test", relay=PROMO), "not the same",
         "smtp.promo.test:587", "at Postfix, main smtp.main.test:587"),
        (delivered("", "b@cust.test", relay=MAIN, status="bounced", text="550 no"),
         "same", "smtp.main.test:587", ""),
    ],
)  # fmt: skip
def test_what_both_do(desk: Desk, lines: str, result: str, relay: str, why: str) -> None:
    told = desk.one(lines)
    assert (told["result"], relay in told["relay"], why in told["why"]) == (result, True, True), (
        told
    )


def test_a_copy_of_what_postfix_refuses_is_a_difference(desk: Desk) -> None:
    refused = (
        f"{_TIME}/smtpd[3]: NOQUEUE: reject: RCPT from localhost[127.0.0.1]: 550 5.1.1 <{SPAM}>: "
        f"Recipient address rejected: User unknown; from=<a@shop.test> to=<{SPAM}> proto=SMTP\n"
    )
    desk.settings(archive_to="archive@x.test")
    told = desk.one(refused)
    assert told["result"] == "not the same"
    assert (
        "User unknown at Postfix; relaygw takes it, and sends a copy to archive@x.test"
        in (told["why"])
    )
    desk.settings(archive_to="archive@x.test", recipients={"block": [SPAM], "blocked": "reject"})
    assert desk.one(refused)["result"] == "same"


def test_exit_codes_and_words(desk: Desk) -> None:
    desk.log.write_text(SAME * 3)
    done = desk.run("run", "--maillog", desk.log)
    assert (done.exit_code, done.stdout) == (0, "shadow      3 deliveries: 3 same\n")
    other = delivered("a@promo.test", "b@cust.test", relay=MAIN)
    desk.log.write_text(SAME + other * 2)
    done = desk.run("run", "--maillog", desk.log)
    assert done.exit_code == 65
    assert done.stdout.splitlines() == [
        "shadow      3 deliveries: 1 same, 2 not the same",
        "            a@promo.test to b@cust.test: not the same, 2 times",
        "    Postfix smtp.main.test:587",
        "    relaygw route promo: promo smtp.promo.test:587",
        "    why     smtp.main.test:587 at Postfix, promo smtp.promo.test:587 at relaygw",
    ]
    desk.log.write_text(other)
    words = desk.run("run", "--maillog", desk.log).stdout.splitlines()
    assert words[1] == "            a@promo.test to b@cust.test: not the same, 1 time"
    desk.log.write_text("Nov 27 kernel: nothing\n\0\xff\n")
    done = desk.run("run", "--maillog", desk.log)
    assert done.exit_code == 65
    assert "no line records a delivery by Postfix" in done.stderr
    done = desk.run("run", "--maillog", "/none/mail.log")
    assert done.exit_code == 65
    assert "/none/mail.log: cannot be read (No such file or directory)" in done.stderr
    assert desk.run("run", "--maillog", "-", "--follow").exit_code == 64
    assert desk.run("run", "--maillog", desk.log, "--for", "1s").exit_code == 64


def test_older_logs_are_read_first_packed_ones_too(desk: Desk, tmp_path: Path) -> None:
    begin, _, end = SAME.partition("\n")
    old, older = tmp_path / "mail.log.1", tmp_path / "mail.log.2.gz"
    older.write_bytes(gzip.compress(f"{begin}\n".encode()))
    old.write_text("")
    desk.log.write_text(end)
    words = [word for log in (older, old, desk.log) for word in ("--maillog", log)]
    assert desk.run("run", *words).exit_code == 0
    assert desk.run("run", "--maillog", "-", stdin=SAME).exit_code == 0
    for damaged in (b"no gzip", gzip.compress(begin.encode())[:-9]):
        older.write_bytes(damaged)
        done = desk.run("run", *words)
        assert (done.exit_code, "cannot be read" in done.stderr) == (65, True)


HOSTILE = "<script>alert(1)</script>&\"'\x1b[2J"


def test_the_page_is_whole_escaped_and_in_order(desk: Desk, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    hostile = delivered("a@promo.test", "b@cust.test", relay=MAIN, original=HOSTILE)
    desk.log.write_text(SAME + hostile)
    done = desk.run("run", "--maillog", desk.log, "--report", page)
    assert done.exit_code == 65
    assert f"report      {page}" in done.stdout
    text = page.read_text()
    assert page.stat().st_mode & 0o077 == 0
    assert "<script" not in text and "&lt;script&gt;" in text and "\x1b" not in text
    assert not re.search(r"(?:src|href)=|url\(|@import|https?:", text)
    assert text.index("not the same</td>") < text.index("same</td>", text.index("not the") + 20)
    assert "2 deliveries" in text and "Some mail would take another way" in text
    assert desk.run("run", "--maillog", desk.log, "--report", page).exit_code == 65  # once more
    page.write_text("precious")
    done = desk.run("run", "--maillog", desk.log, "--report", page)
    assert (done.exit_code, page.read_text()) == (73, "precious")
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_page_of_an_earlier_run(desk: Desk, tmp_path: Path) -> None:
    desk.log.write_text(SAME * 2 + delivered("a@promo.test", "b@cust.test", relay=MAIN))
    told = desk.run("run", "--maillog", desk.log, "--json").stdout
    page = tmp_path / "report.html"
    assert desk.run("report", "--output", page, stdin=told).exit_code == 65
    assert "3 deliveries" in page.read_text() and "2 sent" in page.read_text()
    done = desk.run("report", "--output", page, stdin='{"a": 1}\n')
    assert (done.exit_code, "-:1: is not output of" in done.stderr) == (65, True)


@pytest.fixture
def followed(desk: Desk) -> Iterator[RelaygwProcess]:
    desk.log.write_text(SAME)
    page = desk.log.with_name("report.html")
    words = ["--config", desk.config, "shadow", "run", "--maillog", desk.log, "--follow"]
    with RelaygwProcess([*words, "--json", "--report", page], stdout=-1, text=True) as process:
        yield process
        process.kill()


def wait_until_read(process: RelaygwProcess, log: Path) -> None:
    """Wait until a process stands at the end of a file, as /proc tells."""
    place, file = Path(f"/proc/{process.pid}"), log.stat()
    deadline_s = time.monotonic() + 30
    while True:
        for one in (place / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                told = (place / "fdinfo" / one.name).read_text()
                if os.path.samestat(one.stat(), file) and f"pos:\t{file.st_size}\n" in told:
                    return
        assert time.monotonic() < deadline_s, "it is not read"
        time.sleep(0.01)


def test_a_log_that_grows_and_is_rotated(desk: Desk, followed: RelaygwProcess) -> None:
    def recipient() -> str:
        assert followed.stdout is not None
        found: str = json.loads(followed.stdout.readline())["recipient"]
        return found

    assert recipient() == "b@cust.test"
    with desk.log.open("a") as log:
        second = delivered("a@shop.test", "2@cust.test", relay=MAIN)
        log.write(second[:-20])
        log.flush()
        wait_until_read(followed, desk.log)  # half a line is none
        log.write(second[-20:])
        log.flush()
        assert recipient() == "2@cust.test"
        desk.log.rename(desk.log.with_name("mail.log.1"))
        log.write(delivered("a@shop.test", "3@cust.test", relay=MAIN))
    assert recipient() == "3@cust.test"
    desk.log.write_text(delivered("a@promo.test", "4@cust.test", relay=MAIN))
    assert recipient() == "4@cust.test"
    desk.log.write_text("")  # as logrotate's copytruncate does
    wait_until_read(followed, desk.log)
    with desk.log.open("a") as log:
        log.write(delivered("a@shop.test", "5@cust.test", relay=MAIN))
    assert recipient() == "5@cust.test"
    followed.send_signal(signal.SIGTERM)
    assert followed.wait(20) == 65
    assert "5 deliveries" in desk.log.with_name("report.html").read_text()


def test_following_ends_in_time(desk: Desk) -> None:
    desk.log.write_text(SAME)
    done = desk.run("run", "--maillog", desk.log, "--follow", "--for", "300ms")
    assert (done.exit_code, done.stdout) == (0, "shadow      1 delivery: 1 same\n")


# --- copies by always_bcc -------------------------------------------------------------------


def noted(lines: str, message_id: str) -> str:
    """Return the lines of a delivery with the one that names its message."""
    queue_id = re.findall(r": ([0-9A-F]{10}): ", lines)[0]
    return f"{_TIME}/cleanup[8]: {queue_id}: message-id={message_id}\n{lines}"


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    for name in ("new", "cur", "tmp"):
        (tmp_path / "copies" / name).mkdir(parents=True)
    return tmp_path / "copies"


def copy(maildir: Path, name: str, message_id: str, *fields: str) -> None:
    head = ["Delivered-To: Copies@localhost", f"Message-ID: {message_id}", *fields]
    (maildir / name).write_text("\n".join((*head, "", "X-Campaign: no field of the header")))


def test_a_copy_tells_the_fields_that_routes_ask_for(desk: Desk, maildir: Path) -> None:
    marked, plain, none = "<1@shop.test>", "<2@shop.test>", "<3@shop.test>"
    copy(maildir, "new/1.host", marked, "X-Campaign: summer")
    copy(maildir, "cur/2.host:2,S", plain, "Subject: order")
    whom = ("a@shop.test", "b@odd.test")
    desk.log.write_text(
        noted(delivered(*whom, relay=PROMO), marked)
        + noted(delivered(*whom, relay=MAIN), plain)
        + noted(delivered(*whom, relay=MAIN), none)
        + delivered(*whom, relay=MAIN)
        + noted(delivered("a@shop.test", "copies@localhost", daemon="local"), plain)
        + noted(delivered(*whom, relay=MAIN), marked)
    )
    done = desk.run("run", "--maillog", desk.log, "--copies", maildir, "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    unknown = "a maillog does not show: header, listener or user; it has no copy"
    assert [(one["result"], one["route"]) for one in told] == [
        ("same", "marked"),
        ("same", "default"),
        ("not proven", "default"),
        ("not proven", "default"),
        ("not the same", "marked"),
    ]
    assert [unknown in one["why"] for one in told] == [False, False, True, True, False]


def test_copies_that_come_later_are_looked_for(maildir: Path) -> None:
    copies = Copies(maildir, frozenset({"x-campaign"}))
    assert copies.header_of("<1@shop.test>") is None
    copy(maildir, "new/1.host", "<1@shop.test>", "X-Campaign: summer")
    assert copies.header_of("<1@shop.test>") == {"x-campaign": "summer"}
    assert copies.addresses == {"copies@localhost"}
    copy(maildir, "new/2.host", "<1@shop.test>", "X-Campaign: winter")
    copy(maildir, "new/3.host", "<3@shop.test>")
    assert copies.header_of("<3@shop.test>") == {}
    assert copies.header_of("<1@shop.test>") is None  # which of both, nobody knows


def test_copies_that_are_no_maildir_are_an_error(desk: Desk, tmp_path: Path) -> None:
    desk.log.write_text(SAME)
    done = desk.run("run", "--maillog", desk.log, "--copies", tmp_path)
    assert done.exit_code != 0
    assert f"--copies {tmp_path}: is not a Maildir ({tmp_path}/new: No such file" in done.stderr
