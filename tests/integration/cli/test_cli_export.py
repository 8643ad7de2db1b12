"""Mail leaves one queue and comes into another: whole, once, and by the rules of there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail.envelope import NewRecipient
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import read_content
from tests.integration.cli.conftest import Desk

D, R = DeliveryState, RecipientState
CONTENT = b"Subject: sale\r\n\r\nFrom here\r\n>From there\r\n"


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Desk]:
    """The desk of another gateway, on staging: dev@ may have mail, the rest is captured."""
    directory = tmp_path / "there"
    directory.mkdir()
    other = Desk(directory)
    text = other.config.read_text().replace("mode: production", "mode: staging")
    other.config.write_text(text + "recipients: {allow: [dev@agency.test]}\n")
    yield other
    other.store.close()


def mails(desk: Desk) -> list[QueueEntry]:
    return desk.store.queue.search(Selection(states=frozenset(D)), limit=100)


def content_of(desk: Desk, entry: QueueEntry) -> bytes:
    return b"".join(read_content(desk.store, entry))


@pytest.mark.parametrize("form", ["mbox", "json"])
def test_mail_comes_over_whole_and_by_the_rules_of_there(
    desk: Desk, there: Desk, tmp_path: Path, form: str
) -> None:
    old = desk.add("dev@agency.test", "customer@cust.test", content=CONTENT, subject="sale")
    desk.add(subject="other")
    file = tmp_path / "mail"
    result = desk.run(
        "queue", "export", "--subject", "sale", "--format", form, "--output", str(file)
    )
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"1 message exported to {file}" in result.stderr
    assert file.stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.glob("mail*") if path.is_file()] == ["mail"]
    assert desk.states(old) == {D.INCOMING}
    result = there.run("queue", "import", str(file))
    assert (result.exit_code, result.stdout) == (
        0,
        "1 message imported, 2 recipients: 1 queued, 1 captured, 0 blocked\n",
    )
    (entry,) = mails(there)
    assert entry.queue_id != old
    assert (entry.sender, entry.subject, entry.mode) == ("a@shop.test", "sale", "staging")
    assert {(one.address, one.state) for one in entry.recipients} == {
        ("dev@agency.test", R.PENDING),
        ("customer@cust.test", R.CAPTURED),
    }
    assert content_of(there, entry).endswith(CONTENT)  # below its Received field
    (noted,) = there.store.audit.entries(limit=9)
    assert (noted.action, noted.target, noted.affected) == ("queue.import", str(file), 1)


def test_an_import_that_is_repeated_takes_nothing_twice(
    desk: Desk, there: Desk, tmp_path: Path
) -> None:
    for number in range(120):
        desk.add("dev@agency.test", content=b"Subject: %d\r\n\r\nx\r\n" % number)
    file = tmp_path / "mail"
    desk.run("queue", "export", "--output", str(file))
    half = tmp_path / "half"
    entries = file.read_bytes().split(b"\n\nFrom ")
    half.write_bytes(b"\n\nFrom ".join(entries[:70]) + b"\n\n")
    assert "70 messages imported" in there.run("queue", "import", str(half)).stdout
    result = there.run("queue", "import", str(file))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "50 messages imported, 50 recipients: 50 queued, 0 captured, 0 blocked",
        "70 messages imported before, skipped",
    ]
    assert len(there.store.queue.search(Selection(), limit=1000)) == 120


def test_what_still_waits_in_the_same_queue_is_not_sent_twice(desk: Desk) -> None:
    queue_id = desk.add()
    text = desk.run("queue", "export").stdout
    result = desk.run("queue", "import", stdin=text)
    assert result.exit_code == 65
    assert f"message 1 ({queue_id}): refused: it is still in this queue" in result.stderr
    desk.run("queue", "delete", queue_id, "--yes")
    result = desk.run("queue", "import", stdin=text)
    assert result.exit_code == 65
    assert f"in the trash of this queue; relaygw queue undelete {queue_id}" in result.stderr
    assert mails(desk)[0].deliveries[0].state is D.DELETED


@pytest.mark.parametrize("form", ["mbox", "json"])
def test_mail_of_a_stricter_mode_stays_as_strict(desk: Desk, there: Desk, form: str) -> None:
    there.add("dev@agency.test", mode="staging")
    text = there.run("queue", "export", "--format", form).stdout
    result = desk.run("queue", "import", stdin=text)
    assert result.stdout == "1 message imported, 1 recipient: 0 queued, 1 captured, 0 blocked\n"
    desk.config.write_text(desk.config.read_text() + "recipients: {allow: [dev@agency.test]}\n")
    again = text.replace("dev@agency.test", "Dev@agency.test")
    assert "1 queued" in desk.run("queue", "import", stdin=again).stdout
    entry = mails(desk)[-1]
    assert (entry.mode, entry.source.listener) == ("staging", "import")


def test_a_mode_that_is_none_is_refused(desk: Desk, there: Desk) -> None:
    there.add("dev@agency.test")
    text = there.run("queue", "export", "--format", "json").stdout
    result = desk.run("queue", "import", stdin=text.replace('"production"', '"none"'))
    assert result.exit_code == 65
    assert "mode 'none' is not one of production, staging, sandbox" in result.stderr


def test_only_who_still_waits_is_exported(desk: Desk) -> None:
    mixed = desk.add(
        "waits@x.test", NewRecipient(address="had@x.test", state=R.BLOCKED, reason="blocked")
    )
    captured = desk.add_captured()
    (line,) = desk.run("queue", "export", "--format", "json").stdout.splitlines()
    one = json.loads(line)
    assert (one["queue_id"], one["recipients"], one["state"]) == (
        mixed,
        ["waits@x.test"],
        "incoming",
    )
    result = desk.run("queue", "export", captured, "NOSUCHMESSAGE")
    assert result.exit_code == 65
    assert f"{captured}: left out: no recipient waits for it any more" in result.stderr
    assert "NOSUCHMESSAGE: no such message" in result.stderr


def test_large_mail_comes_over(desk: Desk, there: Desk, tmp_path: Path) -> None:
    content = b"Subject: large\r\n\r\n" + b"x" * 76 * 40_000 + b"\r\n"
    pieces = [content[at : at + 2**18] for at in range(0, len(content), 2**18)]
    message = desk.add_large("dev@agency.test", pieces)
    file = tmp_path / "mail"
    desk.run("queue", "export", message, "--output", str(file))
    assert "1 message imported" in there.run("queue", "import", str(file)).stdout
    (entry,) = mails(there)
    assert entry.chunk_count > 1
    assert content_of(there, entry).endswith(content)


def test_a_dry_run_imports_nothing(desk: Desk, there: Desk) -> None:
    desk.add("dev@agency.test")
    text = desk.run("queue", "export").stdout
    result = there.run("queue", "import", "--dry-run", stdin=text)
    assert result.stdout == (
        "1 message would be imported, 1 recipient: 1 queued, 0 captured, 0 blocked\n"
    )
    assert mails(there) == []
    assert there.store.audit.entries(limit=1) == []
    there.run("queue", "import", stdin=text)
    result = there.run("queue", "import", "--dry-run", stdin=text)
    assert "1 message imported before, skipped" in result.stdout


def test_a_foreign_mbox_with_options_for_its_envelope(there: Desk) -> None:
    text = "From x@y.test Mon\nSubject: one\n\nhello\n\nFrom MAILER-DAEMON Mon\nSubject: two\n\nx\n"
    refused = there.run("queue", "import", stdin=text)
    assert refused.exit_code == 65
    assert "message 2: refused: no recipient is named" in refused.stderr
    assert refused.stdout.splitlines()[-1] == "2 messages refused"
    result = there.run("queue", "import", "--json", "--recipient", "dev@agency.test", stdin=text)
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["number"], first["result"], first["was"]) == (1, "imported", None)
    assert there.entry(first["queue_id"]).sender == "x@y.test"
    assert there.entry(second["queue_id"]).sender == ""
    told = there.run(
        "queue", "import", "--recipient", "dev@agency.test", "--sender", "s@z.test", stdin=text
    )
    assert "2 messages imported" in told.stdout  # other mail: from another sender


def test_an_address_that_is_none_is_captured_and_never_sent(there: Desk) -> None:
    text = "From x@y.test Mon\nX-Original-To: evil\\r\\nRCPT TO:<x@y>\n\nhello\n"
    assert there.run("queue", "import", stdin=text).exit_code == 0
    (entry,) = mails(there)
    assert entry.recipients[0].state is R.CAPTURED


@pytest.mark.parametrize("text", ["Subject: no mbox\n\nx\n", "\x00\x01\n"])
def test_what_is_no_export_is_refused(there: Desk, text: str) -> None:
    result = there.run("queue", "import", stdin=text)
    assert result.exit_code == 65
    assert "it is not an mbox" in result.stderr
    assert there.run("queue", "import", "/nonexistent/file").exit_code == 74


def test_a_file_that_exists_is_not_written_over(desk: Desk, tmp_path: Path) -> None:
    desk.add()
    file = tmp_path / "mail"
    file.write_text("precious")
    result = desk.run("queue", "export", "--output", str(file))
    assert result.exit_code == 74
    assert file.read_text() == "precious"
    assert desk.run("queue", "export", "--output", str(tmp_path / "no" / "mail")).exit_code == 74


def test_a_message_without_all_of_its_content_is_left_out(desk: Desk, tmp_path: Path) -> None:
    broken = desk.add_large("b@x.test", [b"Subject: x\r\n\r\n", b"hello\r\n"], stored=1)
    whole = desk.add("c@x.test")
    file = tmp_path / "mail"
    result = desk.run("queue", "export", "--format", "json", "--output", str(file))
    assert result.exit_code == 65
    assert f"{broken}: left out: only 14 of 21 bytes were left" in result.stderr
    (line,) = file.read_text().splitlines()
    assert json.loads(line)["queue_id"] == whole
