"""The queue of a stopped Postfix comes over: each mail once, whoever dies on the way."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail.hold import HoldCode
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import read_content
from relaygw_postfix.queue_directory import QueueDirectory
from tests.campaign import times
from tests.fakes.scripted_provider import ThreadedProvider
from tests.integration.cli.conftest import Desk
from tests.integration.postfix import dying_import
from tests.integration.postfix.stopped_postfix import FilledPostfix
from tests.processes import PROCESSES
from tests.rights import needs

D, R = DeliveryState, RecipientState
PER_QUEUE = 10
IN_EACH = dict.fromkeys(("active", "incoming", "deferred", "hold"), PER_QUEUE)
STEPS = 4 * PER_QUEUE * 3  # more than there are
_STRIDE = times(9, campaign=1)

pytestmark = needs("root")


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def postfix(provider: ThreadedProvider) -> Iterator[FilledPostfix]:
    """A Postfix that was stopped with ten messages in each queue; `queue.kept` has it for good."""
    with FilledPostfix(per_queue=PER_QUEUE, provider_port=provider.port) as postfix:
        postfix.fill()
        postfix.stop()
        assert postfix.counts() == IN_EACH
        postfix.queue.rename(postfix.base / "queue.kept")
        yield postfix


@pytest.fixture
def queue(postfix: FilledPostfix) -> Path:
    """The queue directory as it was when Postfix ended."""
    shutil.rmtree(postfix.queue, ignore_errors=True)
    subprocess.run(["cp", "-a", postfix.base / "queue.kept", postfix.queue], check=True)
    return postfix.queue


def numbers_in(desk: Desk, *states: DeliveryState) -> list[int]:
    """Return the numbers of all mail in the queue of the gateway, sorted."""
    return sorted(int(one.subject.removeprefix("order ")) for one in mails(desk, *states))


def mails(desk: Desk, *states: DeliveryState) -> list[QueueEntry]:
    return desk.store.queue.search(Selection(states=frozenset(states or D)), limit=10_000)


def test_all_four_queues_come_over(desk: Desk, postfix: FilledPostfix, queue: Path) -> None:
    kept = postcat(postfix)
    done = desk.run("import-queue", str(queue))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "40 messages imported, 40 recipients: 40 queued, 0 captured, 0 blocked",
        "10 messages of these held, as in Postfix",
    ]
    assert numbers_in(desk) == sorted(postfix.sent)
    held = mails(desk, D.HELD)
    assert {one.sender for one in held} == {"held@shop.test"} and len(held) == PER_QUEUE
    assert {part.hold.code for one in held for part in one.deliveries if part.hold} == {
        HoldCode.OPERATOR
    }
    assert postfix.counts() == {}
    assert {name: len(postfix.files(f"imported/{name}")) for name in IN_EACH} == IN_EACH
    for entry in mails(desk):
        number = int(entry.subject.removeprefix("order "))
        sender, recipients, content = kept[number]
        assert (entry.sender, [one.address for one in entry.recipients]) == (sender, recipients)
        assert b"".join(read_content(desk.store, entry)).endswith(content)
    (noted,) = desk.store.audit.entries(limit=9)
    assert (noted.action, noted.affected) == ("queue.import", 40)


def postcat(postfix: FilledPostfix) -> dict[int, tuple[str, list[str], bytes]]:
    """Return by number what Postfix's own program reads of each file."""
    found = {}
    files = [path for name in IN_EACH for path in postfix.files(name)]
    text = subprocess.run(
        ["postcat", "-c", postfix.conf, *files], check=True, capture_output=True
    ).stdout
    for one in text.split(b"*** ENVELOPE RECORDS ")[1:]:
        envelope, _, rest = one.partition(b"*** MESSAGE CONTENTS ")
        content = rest.partition(b"\n")[2].partition(b"*** HEADER EXTRACTED ")[0]
        sender = re.findall(rb"^sender: (.*)$", envelope, re.M)[0].decode()
        recipients = [one.decode() for one in re.findall(rb"^recipient: (.*)$", envelope, re.M)]
        (number,) = re.findall(rb"^Subject: order (\d+)$", content, re.M)
        found[int(number)] = (sender, recipients, content.replace(b"\n", b"\r\n"))
    return found


def test_a_dry_run_changes_nothing(desk: Desk, postfix: FilledPostfix, queue: Path) -> None:
    before = sorted(queue.rglob("*"))
    done = desk.run("import-queue", str(queue), "--dry-run")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (
        0,
        "40 messages would be imported, 40 recipients: 40 queued, 0 captured, 0 blocked",
    )
    assert (mails(desk), sorted(queue.rglob("*"))) == ([], before)
    objects = desk.lines("import-queue", str(queue), "--dry-run", "--json")
    assert Counter(one["queue"] for one in objects) == Counter(IN_EACH)
    assert {one["result"] for one in objects} == {"would be imported"}
    assert {str(path) for name in IN_EACH for path in postfix.files(name)} == {
        one["file"] for one in objects
    }


def test_a_postfix_that_runs_is_left_alone(desk: Desk, postfix: FilledPostfix, queue: Path) -> None:
    postfix.start()
    try:
        done = desk.run("import-queue", str(queue))
        assert done.exit_code == 75
        assert re.search(r"Postfix runs here \(process \d+\).*`postfix stop`", done.stderr)
        assert mails(desk) == []
        assert not (queue / "imported").exists()
        done = desk.run("import-queue", str(queue), "--dry-run")
        assert "Postfix is running: this is its queue now" in done.stderr
    finally:
        postfix.stop()


def test_no_postfix_starts_meanwhile(postfix: FilledPostfix, queue: Path) -> None:
    with QueueDirectory(queue).locked():
        done = postfix.run("start", check=False)
        assert done.returncode != 0
        assert "already running" in done.stderr + (postfix.base / "mail.log").read_text()


@pytest.mark.campaign
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_killed_at_any_step_each_mail_comes_over_once(
    desk: Desk,
    postfix: FilledPostfix,
    queue: Path,
    is_after: bool,
) -> None:
    words = ["--config", str(desk.config), "import-queue", str(queue)]
    kills = 0
    for step in range(0, STEPS, _STRIDE):
        process = PROCESSES.Process(
            target=dying_import.run, args=(words, step), kwargs={"is_after": is_after}
        )
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
        if process.exitcode == 0:
            break
        kills += 1
    assert kills > 2
    assert desk.run("import-queue", str(queue)).exit_code == 0
    assert numbers_in(desk) == sorted(postfix.sent)
    assert len(mails(desk, D.HELD)) == PER_QUEUE
    assert postfix.counts() == {}
    assert {name: len(postfix.files(f"imported/{name}")) for name in IN_EACH} == IN_EACH


def test_what_is_damaged_stays_and_is_told(desk: Desk, postfix: FilledPostfix, queue: Path) -> None:
    cut, strange, unfinished, busy, done = postfix.files("deferred")[:5]
    os.truncate(cut, 500)
    strange.write_bytes(os.urandom(3000))
    unfinished.chmod(0o600)
    done.write_bytes(done.read_bytes().replace(b"R\x0cb@later.test", b"D\x0cb@later.test"))
    (queue / "deferred" / "core dump").write_text("x")
    (queue / "active" / "ABCDEF").symlink_to(cut)
    (queue / "corrupt" / "ABCDEF").write_text("x")
    with busy.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        result = desk.run("import-queue", str(queue))
    assert result.exit_code == 75
    for path, problem in (
        (cut, "is cut off"),
        (strange, "damaged"),
        (busy, "still being delivered"),
        (queue / "deferred" / "core dump", "its name is not a queue file name"),
        (queue / "active" / "ABCDEF", "is not a regular file"),
    ):
        assert re.search(f"{re.escape(str(path))}: left in place: .*{problem}", result.stderr)
        assert os.path.lexists(path)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("35 messages imported")
    assert "4 files that cannot be taken" in lines
    assert "1 file left, already delivered to everybody" in lines
    assert "1 file left, that Postfix had not picked up yet" in lines
    assert f"1 file in {queue}/corrupt, that Postfix had set aside as damaged" in lines
    assert unfinished.exists() and done.exists()
    again = desk.run("import-queue", str(queue))
    assert again.exit_code == 65
    assert again.stdout.startswith("1 message imported")
    assert len(numbers_in(desk)) == len(set(numbers_in(desk))) == 36


def test_a_directory_that_is_no_queue(desk: Desk, tmp_path: Path) -> None:
    done = desk.run("import-queue", str(tmp_path))
    assert done.exit_code == 65
    assert (
        "is not a queue directory" in done.stderr and "postconf -h queue_directory" in done.stderr
    )
    assert desk.run("import-queue", str(tmp_path / "none")).exit_code == 65
