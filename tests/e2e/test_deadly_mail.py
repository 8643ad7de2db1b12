"""Mail and posts that end whoever reads them are set aside at the third death, and others go on."""

from __future__ import annotations

import os
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.search import EVERYTHING
from relaygw.observe.maildrop import look_at_maildrop
from relaygw.store.side_tables import event_post
from tests.e2e.gateway import Gateway
from tests.e2e.test_events import (
    BOUNCE,
    EVENTS,
    SIGNER,
    count,
    events_url,
    post,
    sendgrid,
    sendgrid_at,
    sent_by,
)
from tests.e2e.test_maildrop import leave, wait_until_serving
from tests.fakes.scripted_provider import ThreadedProvider

FINE = b"From: shop@shop.test\r\nSubject: order\r\n\r\nhello\r\n"
DEADLY = b"From: shop@shop.test\r\nSubject: deadly\r\n\r\nhello\r\n"
HANGS = b"From: shop@shop.test\r\nSubject: hangs\r\n\r\nhello\r\n"
_ENDS = r"front \(pid \d+\) ended while it read "
_DEFECTS = """
import dataclasses, os, signal
import relaygw.feedback.formats, relaygw.feedback.reading, relaygw.mail.content
import relaygw.roles.children, relaygw.web.mail.parts

def ends(call, is_deadly):
    def instead(*given, **more):
        if is_deadly(*given):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **more)
    return instead

def is_deadly(content, *_):
    while b"Subject: hangs" in content and os.path.exists("{flag}"):
        os.write(2, b"it hangs\\n")
        signal.pause()
    return b"Subject: deadly" in content

content, parts = relaygw.mail.content, relaygw.web.mail.parts
content.read_header = ends(content.read_header, is_deadly)
parts.load_tree = ends(parts.load_tree, lambda _, entry: entry.subject == "unreadable")
formats = relaygw.feedback.formats.FORMATS
known = formats["sendgrid"]
formats["sendgrid"] = dataclasses.replace(
    known,
    read=ends(known.read, lambda body: b"deadly-read" in body),
    verify=ends(known.verify, lambda post, _: b"deadly-verify" in post.body),
)
relaygw.feedback.reading.LEASE_MS = 100
relaygw.roles.children._RESTART_LADDER_S = (0.0,)
"""


def with_defects(directory: Path, **sections: Any) -> Gateway:
    """Return a gateway whose code has defects, which some mails meet."""
    program = directory / "program"
    program.mkdir()
    text = _DEFECTS.replace("{flag}", str(directory / "flag"))
    (program / "sitecustomize.py").write_text(text)
    return Gateway(directory, environment={"PYTHONPATH": str(program)}, **sections)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Gateway]:
    with with_defects(tmp_path, mode="sandbox") as gateway:
        yield gateway


def offer(gateway: Gateway, content: bytes) -> int:
    """Send a message; return the code of the reply to its content, 0 without one."""
    with gateway.connect() as client:
        client.send(b"EHLO client.test\r\n")
        client.read_reply()
        for line in (b"MAIL FROM:<a@shop.test>", b"RCPT TO:<b@cust.test>", b"DATA"):
            client.send(line + b"\r\n")
            client.read_reply()
        client.send(content + b".\r\n")
        return int(client.read_line()[:3] or b"0")


def captured(gateway: Gateway) -> int:
    return len(gateway.store.sandbox.captured_ids(EVERYTHING, limit=99))


def test_content_by_smtp_is_refused_after_the_third_death(sandbox: Gateway) -> None:
    for number in range(3):
        assert offer(sandbox, DEADLY) == 0
        sandbox.wait_for_log(_ENDS + r"content of \d+ bytes, CRC \w{8}", count=number + 1)
        assert offer(sandbox, FINE) == 250
    sandbox.wait_for_log(r"error: front .* 3 times by now: it is set aside, and not read again")
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port) as client:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("a@shop.test", ["b@cust.test"], DEADLY)
        assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (554, b"5.6.0")
        client.sendmail("a@shop.test", ["b@cust.test"], FINE)  # in the same session
    sandbox.wait_for_log(r"error: content of .* ended a process 3 times; .* answered 554")
    assert captured(sandbox) == 4
    # so it is after a restart
    assert sandbox.stop() == 0
    sandbox.start()
    assert (offer(sandbox, DEADLY), offer(sandbox, FINE)) == (554, 250)


def test_a_drop_is_set_aside_and_those_behind_it_are_taken(
    sandbox: Gateway, tmp_path: Path
) -> None:
    maildrop = wait_until_serving(sandbox)
    deadly = leave(maildrop, content=DEADLY, wake=False)
    leave(maildrop, content=FINE)
    sandbox.wait_for_log(rf"{deadly}.drop: maildrop file .* ended a process 3 times; ")
    assert len(sandbox.wait_for_log(_ENDS + f"maildrop file {deadly}", count=3)) == 3
    sandbox.wait_until(lambda: captured(sandbox) == 1, "the order behind it")
    sandbox.wait_until(lambda: _told(maildrop) == [f"{deadly}.drop"], "a reason")
    left = look_at_maildrop(str(maildrop))
    assert left is not None and (left.aside, left.waiting) == (1, 0)
    assert "fix it, and it is accepted within ten minutes, or remove it" in left.remedy
    # a restart looks at all files: this one is not read
    before = len(sandbox.lines)
    assert sandbox.stop() == 0
    sandbox.start()
    wait_until_serving(sandbox)
    sandbox.wait_for_log(rf"{deadly}.drop: maildrop file", start=before)
    leave(maildrop, content=FINE)
    sandbox.wait_until(lambda: captured(sandbox) == 2, "an order")
    assert not [line for line in sandbox.lines[before:] if "ended" in line and "signal" in line]
    # who mends it has it accepted
    path = maildrop / f"{deadly}.drop"
    path.write_bytes(path.read_bytes().replace(b"deadly", b"mended"))
    os.utime(path, (1e9, 1e9))
    assert sandbox.stop() == 0
    sandbox.start()
    sandbox.wait_until(lambda: captured(sandbox) == 3, "the mended file")


def _told(maildrop: Path) -> list[str]:
    left = look_at_maildrop(str(maildrop))
    assert left is not None
    return [one.name for one in left.named if "ended a process" in one.reason]


def test_a_gateway_that_is_killed_whole_knows_what_it_read(
    sandbox: Gateway, tmp_path: Path
) -> None:
    """As systemd's watchdog and a container's end do it; what was innocent is read at last."""
    flag = tmp_path / "flag"
    maildrop = wait_until_serving(sandbox)
    flag.touch()
    drop_id = leave(maildrop, content=HANGS)
    for number in range(2):
        sandbox.wait_for_log("it hangs", count=number + 1)
        sandbox.kill_all()
        if number:
            flag.unlink()
        sandbox.start()
        sandbox.wait_for_log(
            rf"a process ended while it read maildrop file {drop_id}.* \({number + 1} of 3"
        )
    sandbox.wait_until(lambda: captured(sandbox) == 1, "the innocent file")
    # and is suspected no longer
    front = sandbox.kill("front")
    sandbox.wait_for_log(rf"front \(pid {front}\) ended with signal 9")
    assert not [line for line in sandbox.lines if f"(pid {front}) ended while" in line]


def test_mail_that_ends_the_web_role_is_left_out_of_searches(sandbox: Gateway) -> None:
    for subject in (b"before", b"unreadable", b"behind"):
        assert offer(sandbox, b"Subject: %s\r\n\r\nhello\r\n" % subject) == 250
    sandbox.want_web()
    sandbox.wait_for_log(r"web \(pid \d+\) ended while it read message \w+ for searches", count=3)
    sandbox.wait_for_log(r"message \w+ for searches: .* searches do not know .* sandbox show \w+")
    sandbox.wait_until(lambda: not sandbox.store.sandbox.unindexed(limit=9), "all are indexed")
    assert captured(sandbox) == 3


@pytest.fixture
def provider() -> Iterator[ThreadedProvider]:
    with sendgrid() as provider:
        yield provider


def test_posts_that_end_the_web_role_are_read_no_more(
    provider: ThreadedProvider, tmp_path: Path
) -> None:
    settings = {"sendgrid": sendgrid_at(provider.port)}
    with with_defects(tmp_path, providers=settings, **EVENTS) as gateway:
        url = events_url(gateway)
        _, sent = sent_by(gateway, provider, "b@cust.test")
        deadly = SIGNER.sign([{**BOUNCE.make(sent), "x": "deadly-read"}], clock_ms())
        assert httpx2.post(url, content=deadly.body, headers=deadly.headers).status_code == 200
        gateway.wait_for_log(r"web \(pid \d+\) ended while it read stored post 1 of send", count=3)
        gateway.wait_for_log(r"post 1 of provider sendgrid cannot be read \(EndsReaders: ")
        post(url, sent)
        gateway.wait_until(lambda: count(gateway.store, event_post) == 1, "the post behind it")
        # before it is verified anybody may have written it
        body = b"deadly-verify"
        for number in range(3):
            with pytest.raises(httpx2.TransportError):
                httpx2.post(url, content=body)
            gateway.wait_for_log(r"web .* while it read post to sendgrid, CRC", count=number + 1)
        assert httpx2.post(url, content=body).status_code == 400
