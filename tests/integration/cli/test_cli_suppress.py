"""`relaygw suppress` on a queue on disk, and what other commands tell of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import NewRecipient, RecipientUpdate
from relaygw.mail.state import RecipientState
from relaygw.store.rules import StoreRules
from relaygw.store.store import open_store
from tests.builders import update_of
from tests.integration.cli.conftest import Desk

ANN, BOB = "ann@cust.test", "bob@cust.test"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    config = desk.config.read_text()
    config = config.replace('queue.db"}', 'queue.db", keep_content: 7d}')
    desk.config.write_text(config + "suppression: {transactional: block}\n")
    desk.store.close()
    desk.store = open_store(desk.url, rules=StoreRules(keep_content=True))
    yield desk
    desk.store.close()


def addresses(desk: Desk, *words: str) -> list[str]:
    return [one["address"] for one in desk.lines("suppress", "list", "--json", *words)]


def test_what_ends_soon_is_shown_with_its_time(desk: Desk) -> None:
    soon = desk.run("suppress", "add", ANN, "--expires", "5s").output
    assert re.search(r"; until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: ", soon)
    assert " UTC: " in desk.run("suppress", "add", ANN, "--expires", "47h", "--dry-run").output
    late = desk.run("suppress", "add", ANN, "--expires", "49h", "--dry-run").output
    assert re.search(r"; until \d{4}-\d\d-\d\d UTC: ", late)


def test_added_shown_and_lifted(desk: Desk) -> None:
    result = desk.run("suppress", "add", "Ann@Cust.test", "--sender-domain", "@Shop.test")
    assert result.exit_code == 0, result.output
    assert f"{ANN} suppressed; until " in result.output
    assert "mail of shop.test: transactional mail is not sent, promotional" in result.output
    desk.run("suppress", "add", BOB, "--reason", "unsubscribe", "--expires", "never", "--note", "x")
    (bob, ann) = desk.lines("suppress", "list", "--json")
    assert (ann["sender_domain"], ann["stream"], ann["reason"]) == ("shop.test", None, "manual")
    assert (bob["stream"], bob["expires_at"], bob["detail"]) == ("promotional", None, "x")
    assert addresses(desk, "CUST", "--reason", "manual") == [ANN]
    assert addresses(desk, "--stream", "promotional") == [BOB]
    assert addresses(desk, "--sender-domain", "*") == [BOB]
    assert "1 address, more match" in desk.run("suppress", "list", "--limit", "1").output
    assert desk.run("suppress", "remove", ANN, "--dry-run").exit_code == 0
    assert addresses(desk) == [BOB, ANN]
    gone = desk.run("suppress", "remove", ANN, "eve@x.test")
    assert gone.exit_code == 65
    assert "eve@x.test: not suppressed" in gone.stderr
    assert addresses(desk) == [BOB]
    actions = [(one.action, one.target) for one in desk.store.audit.entries(limit=9)]
    assert actions == [
        ("suppression.remove", ANN),
        ("suppression.add", BOB),
        ("suppression.add", ANN),
    ]
    assert "lifted the suppression of ann@cust.test" in desk.run("audit").output


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("add", "nobody"), 65, "'nobody' is not an address: it has no domain"),
        (("add", "a@b@c"), 65, "is not an address"),
        (("add", ANN, "--expires", "soon"), 64, "is not a duration"),
        (("add", ANN, "--expires", "0d"), 64, "must be longer"),
        (("add", ANN, "--expires", ""), 64, "is not a duration"),
        (("import", "-", "--expires", ""), 64, "is not a duration"),
        (("add", ANN, "--sender-domain", "a b"), 64, "is not a domain"),
        (("add", ANN, "--reason", "hate"), 64, "'hate' is not one of"),
        (("add",), 64, "Missing argument"),
        (("import", "nowhere.csv"), 66, "No such file"),
        (("export", "--format", "excel"), 64, "'excel' is not one of"),
    ],
)
def test_what_is_wrong_changes_nothing(
    desk: Desk, words: tuple[str, ...], code: int, problem: str
) -> None:
    result = desk.run("suppress", *words)
    assert (result.exit_code, problem in result.stderr) == (code, True), result.stderr
    assert addresses(desk) == []
    assert desk.store.audit.entries(limit=9) == []


def test_a_file_is_imported_and_what_is_wrong_in_it_told(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "bounces.csv"
    lines = ["email,created,reason,status", *(f"u{n}@x.test,1443651125,x,5.1.1" for n in range(30))]
    lines[5] = "nobody,1443651125,x,5.1.1"
    file.write_text("\n".join(lines))
    dry = desk.run("suppress", "import", str(file), "--dry-run")
    assert "29 addresses would be added, 1 line not understood (form: sendgrid)" in dry.output
    assert addresses(desk) == []
    result = desk.run("suppress", "import", str(file), "--sender-domain", "shop.test")
    assert result.exit_code == 65
    assert "line 6: 'nobody' is not an address" in result.stderr
    assert "29 addresses added, 1 line not understood (form: sendgrid)" in result.output
    again = desk.run("suppress", "import", str(file), "--sender-domain", "shop.test", "--json")
    first, last = [json.loads(line) for line in again.stdout.splitlines()]
    assert (first["line"], last["added"], last["known"]) == (6, 0, 29)
    done = [(one.action, one.target, one.affected) for one in desk.store.audit.entries(limit=9)]
    assert done.count(("suppression.import", "bounces.csv", 29)) == 1
    assert len(done) == 4, "the begin and the end of two imports"
    assert desk.run("suppress", "import", "-", stdin="garbage\n").exit_code == 65


def test_export_and_import_are_each_others_inverse(desk: Desk) -> None:
    desk.run("suppress", "add", ANN, "=1+1@x.test", "--sender-domain", "shop.test")
    desk.run("suppress", "add", BOB, "--stream", "promotional", "--note", "=HYPERLINK(1)")
    before = desk.lines("suppress", "list", "--json")
    written = desk.run("suppress", "export").stdout
    assert not any(line.startswith("=") or ",=" in line for line in written.splitlines())
    desk.run("suppress", "remove", ANN, BOB, "=1+1@x.test")
    assert desk.run("suppress", "import", "-", stdin=written).exit_code == 0
    assert desk.lines("suppress", "list", "--json") == before
    desk.run("suppress", "remove", ANN, BOB, "=1+1@x.test")
    objects = "".join(json.dumps(one) + "\n" for one in before)
    desk.run("suppress", "import", "-", stdin=objects)
    assert desk.lines("suppress", "list", "--json") == before
    ses = desk.run("suppress", "export", "--format", "ses")
    assert (ses.stdout, "3 addresses left out" in ses.stderr) == ("", True)


def test_other_commands_tell_of_it(desk: Desk) -> None:
    desk.run("suppress", "add", ANN, "--sender-domain", "shop.test", "--note", "asked")
    command = f"relaygw suppress remove {ANN} --sender-domain shop.test"
    told = desk.run("check", "--sender", "a@shop.test", "--recipient", "ANN@cust.test", columns=300)
    assert "suppressed  not sent: added by hand" in told.output
    assert command in told.output
    other = desk.run("check", "--sender", "a@other.test", "--recipient", ANN)
    assert "suppressed" not in other.output
    queue_id = desk.add(ANN)
    story = desk.run("queue", "explain", queue_id, columns=300).output
    assert f"{ANN} is not sent to; suppressed: added by hand" in story


def test_captured_mail_is_not_released_to_who_is_suppressed(desk: Desk) -> None:
    queue_id = desk.add(
        NewRecipient(address=BOB, state=RecipientState.CAPTURED, reason="mail loop")
    )
    desk.run("suppress", "add", ANN)
    held = desk.run("sandbox", "release", queue_id, "--to", ANN, "--yes", columns=300)
    assert held.exit_code == 65, held.output
    assert f"{ANN} is suppressed: added by hand" in held.stderr
    assert f"relaygw suppress remove {ANN} lifts it" in held.stderr
    desk.run("suppress", "remove", ANN)
    assert desk.run("sandbox", "release", queue_id, "--to", ANN, "--yes").exit_code == 0


def test_mail_is_not_sent_again_to_who_is_suppressed(desk: Desk) -> None:
    queue_id = desk.add(ANN)
    incarnation = desk.claim()
    bounced = RecipientUpdate(
        rcpt_no=0,
        state=RecipientState.BOUNCED,
        reply="550 5.1.1 no",
        dsn="5.1.1",
        provider="main",
    )
    update = update_of(queue_id, recipients=(bounced,))
    desk.store.leases.record_batch([update], incarnation=incarnation, now_ms=clock_ms())
    desk.run("suppress", "add", ANN)
    result = desk.run("queue", "resend", queue_id, "--yes", columns=300)
    assert result.exit_code == 65
    assert f"{queue_id}: left alone: {ANN} is suppressed: added by hand" in result.stderr
    assert f"relaygw suppress remove {ANN} lifts it" in result.stderr
    other = desk.run("queue", "resend", queue_id, "--to", BOB, "--yes", columns=300)
    assert other.exit_code == 0, other.output
    desk.run("suppress", "remove", ANN)
    assert "1 message sent again" in desk.run("queue", "resend", queue_id, "--yes").output
