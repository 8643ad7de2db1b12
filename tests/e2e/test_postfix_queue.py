"""A Postfix ends with mail in its queues, relaygw sends it: each recipient has it once.

Some had theirs from Postfix already, and a Postfix that is started again sends nothing.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.campaign import times
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import RelaygwProcess, run_relaygw
from tests.integration.postfix import milter
from tests.integration.postfix.stopped_postfix import FilledPostfix
from tests.rights import needs

PER_QUEUE = times(10, campaign=1250)
OTHERS = [
    ("a@shop.test", ("had@ok.test", "two@later.test", "b@later.test")),  # one has his already
    ("a@shop.test", ('"john doe"@later.test',)),
    ("", ("b@later.test",)),
    (milter.SENDER, ("b@later.test", milter.DELETED)),
]
THERE = {  # who got what instead
    "two@later.test": ("one@later.test", "other@later.test"),
    milter.DELETED: (milter.ADDED,),
}
KILLS = times(1, campaign=20)
PATIENCE_S = times(60, campaign=900)
_NUMBER = re.compile(rb"^Subject: order (\d+)\r$", re.MULTILINE)


@pytest.mark.campaign
@needs("root")
def test_the_queue_of_postfix_is_delivered_once(tmp_path: Path) -> None:
    with (
        ThreadedProvider() as provider,
        milter.Milter() as changes,
        FilledPostfix(
            per_queue=PER_QUEUE, provider_port=provider.port, milter_port=changes.port
        ) as postfix,
    ):
        postfix.send_all(OTHERS)
        postfix.wait_for({"deferred": len(OTHERS)})
        postfix.fill(deferred=len(OTHERS))
        postfix.stop()
        leave_in_maildrop(postfix)
        expected = Counter(
            (number, one)
            for number, recipients in postfix.sent.items()
            for address in recipients
            for one in THERE.get(address, (address,))
        )
        assert arrived(provider) == {(0, "had@ok.test"): 1}
        with Gateway(tmp_path, providers={"p": provider_settings(provider.port)}) as gateway:
            words: list[str | Path] = ["--config", gateway.config, "import-queue", postfix.queue]
            for _ in range(KILLS):
                kill_in_between(words, postfix)
            began_s = time.monotonic()
            done = run_relaygw(words, capture_output=True, text=True)
            print(f"{done.stdout}{time.monotonic() - began_s:.1f} s")
            assert done.returncode == 0, done.stderr
            provider.wait_for_messages(len(postfix.sent) - PER_QUEUE + 1, limit_s=PATIENCE_S)
            held = {number for number, who in postfix.senders.items() if who.startswith("held@")}
            assert not {number for number, _ in arrived(provider)} & held
            assert_nothing_is_sent_by(postfix, provider)
            gateway.stop()
            gateway.start("--role", "delivery")  # as beside a Postfix that has the port again
            words = ["--config", gateway.config, "queue", "release", "--all", "--yes"]
            run_relaygw(words, check=True, capture_output=True)
            gateway.wait_until_empty()
            assert arrived(provider) == expected
            (changed,) = [one for one in provider.messages if one.sender == milter.SENDER]
            assert b"X-Milter: was here\r\n" in changed.content
            assert changed.content.endswith(b"\r\n\r\n" + milter.BODY)


def kill_in_between(words: list[str | Path], postfix: FilledPostfix) -> None:
    """Kill an import as soon as it has moved a file."""
    before = len(postfix.files("imported"))
    with RelaygwProcess(words, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(postfix.files("imported")) == before:
            time.sleep(0.001)
        process.kill()


def leave_in_maildrop(postfix: FilledPostfix) -> None:
    """Let a local program send mail while Postfix is down."""
    number = len(postfix.sent)
    content = b"Subject: order %d\nTo: cron@later.test\n\nhello\n" % number
    command = ["/usr/sbin/sendmail.postfix", "-C", str(postfix.conf), "-f", "a@shop.test", "-t"]
    if not Path(command[0]).exists():
        command[0] = "/usr/sbin/sendmail"
    subprocess.run(command, input=content, check=True)
    postfix.sent[number] = ("cron@later.test",)
    assert len(postfix.files("maildrop")) == 1


def arrived(provider: ThreadedProvider) -> Counter[tuple[int, str]]:
    """Return how often a recipient got a number."""
    found: Counter[tuple[int, str]] = Counter()
    for message in list(provider.messages):
        (number,) = _NUMBER.findall(message.content)
        found.update((int(number), one) for one in message.recipients)
    return found


def assert_nothing_is_sent_by(postfix: FilledPostfix, provider: ThreadedProvider) -> None:
    """Start Postfix again, with a way to the provider for all that it has."""
    before = arrived(provider)
    postfix.set(transport_maps="")
    seen = len(postfix.log())
    postfix.start()
    subprocess.run(["postqueue", "-c", postfix.conf, "-f"], check=True)
    shown = subprocess.run(
        ["postqueue", "-c", postfix.conf, "-p"], check=True, capture_output=True, text=True
    )
    # whatever it took up, it had told before that; what it tells as it ends may not be written
    subprocess.run(["postlog", "-c", postfix.conf, "the queue was shown"], check=True)
    told = postfix.wait_for_log("the queue was shown")[seen:]
    postfix.stop()
    assert "Mail queue is empty" in shown.stdout
    assert "queue active" not in told
    assert arrived(provider) == before
