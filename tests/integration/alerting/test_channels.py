"""Channels against real receivers: those that answer, refuse, hang, close, and are not there."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from relaygw.alerting.channels import Apprise, Command, Email, Webhook
from relaygw.alerting.notice import Notice, NotSent
from relaygw.settings.model import Settings
from relaygw.settings.secrets import SecretRef, SecretUrl
from relaygw.store.watch import Incident
from tests.e2e.ports import free_port
from tests.fakes.notice_receiver import Behaviour, NoticeReceiver
from tests.fakes.scripted_provider import Action, ScriptedProvider

INCIDENT = Incident(
    incident_id="1",
    rule="provider_down",
    key="main",
    summary="provider main cannot be reached: größer",
    remedy="do this",
    since_ms=1_795_600_000_000,
)
NOTICE = Notice(INCIDENT, host="gw.test")
FIELDS = NOTICE.as_json()


def webhook(url: str, *, shape: str = "auto", limit_s: float = 10.0) -> Webhook:
    return Webhook(SecretUrl.parse(url), shape=shape, limit_s=limit_s)


# --- webhook ------------------------------------------------------------------------------


async def test_a_webhook_gets_all_fields_and_slack_a_text() -> None:
    with NoticeReceiver() as receiver:
        assert await webhook(receiver.url).send(NOTICE) == f"127.0.0.1:{receiver.port} answered 200"
        await webhook(receiver.url, shape="slack").send(NOTICE)
        assert receiver.bodies == [NOTICE.as_json(), {"text": NOTICE.text}]


async def test_what_a_provider_said_cannot_be_a_link_or_call_everybody_in_slack() -> None:
    refused = replace(INCIDENT, summary="550 <!channel> <https://evil.test|log in> &lt; R&D")
    said = replace(NOTICE, incident=refused)
    with NoticeReceiver() as receiver:
        await webhook(receiver.url, shape="slack").send(said)
        await webhook(receiver.url).send(said)
    text, fields = receiver.bodies
    assert "550 &lt;!channel&gt; &lt;https://evil.test|log in&gt; &amp;lt; R&amp;D" in text["text"]
    assert fields == said.as_json()


@pytest.mark.parametrize(
    ("url", "is_slack"),
    [
        ("https://hooks.slack.com/services/T/B/x", True),
        ("https://hooks.slack.com.evil.test/x", False),
        ("https://evilslack.com/x", False),
    ],
)
def test_slack_is_known_by_its_host(url: str, is_slack: bool) -> None:
    host = url.split("/")[2]
    assert (set(webhook(url)._body(NOTICE, host)) == {"text"}) is is_slack


@pytest.mark.parametrize(
    ("behaviour", "limit_s", "words"),
    [
        (Behaviour.FAIL, 60, "answered 500"),
        (Behaviour.REDIRECT, 60, "answered 307"),
        (Behaviour.HANG, 0.5, "did not answer within 0.5 s"),
        (Behaviour.DRIP, 0.5, "did not answer within 0.5 s"),
        (
            Behaviour.CLOSE,
            60,
            "cannot be reached (it ended the connection without an answer in HTTP)",
        ),
    ],
)
async def test_a_receiver_in_trouble_is_named_without_the_secret(
    behaviour: Behaviour, limit_s: float, words: str
) -> None:
    with NoticeReceiver(behaviour) as receiver:
        with pytest.raises(NotSent) as raised:
            await webhook(receiver.url, limit_s=limit_s).send(NOTICE)
        assert str(raised.value) == f"127.0.0.1:{receiver.port} {words}"
        assert receiver.asked <= 1, "a redirect is not followed"
        assert raised.value.__cause__ is None


async def test_a_receiver_that_is_not_there() -> None:
    port = free_port()
    with pytest.raises(NotSent, match=rf"^127.0.0.1:{port} cannot be reached \(Connection refused"):
        await webhook(f"http://user:geheim@127.0.0.1:{port}/secret").send(NOTICE)


async def test_the_url_may_be_a_reference(tmp_path: Path) -> None:
    kept = tmp_path / "url"
    with NoticeReceiver() as receiver:
        kept.write_text(receiver.url + "\n")
        kept.chmod(0o600)
        await webhook(f"file:{kept}").send(NOTICE)
        kept.write_text("no url")
        with pytest.raises(NotSent, match="does not hold an http or https URL"):
            await webhook(f"file:{kept}").send(NOTICE)


# --- command ------------------------------------------------------------------------------


def script(directory: Path, text: str) -> str:
    path = directory / "notify"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


async def test_a_command_gets_json_and_the_text_without_a_shell(tmp_path: Path) -> None:
    out, text = tmp_path / "out", tmp_path / "text"
    words = script(tmp_path, f'cat > {out}; printf "%s" "$RELAYGW_ALERT_TEXT $1" > {text}')
    assert await Command([words, "$(id); x"]).send(NOTICE) == "notify ended with exit code 0"
    assert json.loads(out.read_text()) == NOTICE.as_json()
    assert text.read_text() == f"{NOTICE.text} $(id); x"


async def test_a_command_gets_no_secrets_of_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("PATH", "HOME", "LANG", "LC_TIME", "TZ")
    for name in (*names, "ORDERS_KEY", "CREDENTIALS_DIRECTORY", "RELAYGW__QUEUE__URL"):
        monkeypatch.setenv(name, f"{name}-value" if name != "PATH" else os.defpath)
    for name in [one for one in os.environ if one.startswith("LC_") and one not in names]:
        monkeypatch.delenv(name)  # Python sets one itself where there is no LANG
    out = tmp_path / "out"
    await Command([script(tmp_path, f"env -0 > {out}")]).send(NOTICE)
    given = dict(one.split("=", 1) for one in out.read_text().split("\0") if one)
    told = {f"RELAYGW_ALERT_{name.upper()}": value or "" for name, value in FIELDS.items()}
    expected = {name: os.environ[name] for name in names} | told
    # what the shell of the script itself sets
    assert {key: given[key] for key in given.keys() - {"PWD", "SHLVL", "_", "OLDPWD"}} == expected


async def test_a_command_that_fails_or_does_not_read(tmp_path: Path) -> None:
    with pytest.raises(NotSent, match="notify ended with exit code 3"):
        await Command([script(tmp_path, "exit 3")]).send(NOTICE)
    with pytest.raises(NotSent, match="notify ended with signal 9"):
        await Command([script(tmp_path, "kill -9 $$")]).send(NOTICE)
    with pytest.raises(NotSent, match=r"none cannot be started \(No such file"):
        await Command([str(tmp_path / "none")]).send(NOTICE)


async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    words = script(tmp_path, f"sleep 600 & echo $$ $! > {pids}; wait")
    begun_s = time.monotonic()
    with pytest.raises(NotSent, match="did not end within 1 s and was killed"):
        await Command([words], limit_s=1.0).send(NOTICE)
    assert time.monotonic() - begun_s < 30
    await asyncio.to_thread(wait_for_end, [int(pid) for pid in pids.read_text().split()])


def wait_for_end(pids: list[int]) -> None:
    deadline_s = time.monotonic() + 30
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- e-mail -------------------------------------------------------------------------------


def email(*providers: ScriptedProvider | int, troubled: tuple[str, ...] = ()) -> Email:
    """Return a channel over providers p0, p1, …; a number is a port."""
    settings = Settings.model_validate(
        {
            "mode": "staging",
            "hostname": "gw.test",
            "listeners": [{"bind": "127.0.0.1:25"}],
            "providers": {
                f"p{n}": {"host": "127.0.0.1", "port": one, "tls": "none"}
                if isinstance(one, int)
                else one.settings()
                for n, one in enumerate(providers)
            },
            "routes": [{"name": "default", "providers": ["p0"]}],
        }
    )
    return Email(
        "ops@shop.test",
        sender="gw@shop.test",
        providers=(),
        settings=settings,
        in_trouble=lambda: troubled,
        limit_s=2.0,
    )


async def test_a_mail_goes_by_the_next_provider_while_the_first_is_down() -> None:
    async with ScriptedProvider() as spare:
        assert await email(free_port(), spare).send(NOTICE) == "provider p1 accepted it"
        (taken,) = spare.messages
        assert (taken.sender, taken.recipients) == ("gw@shop.test", ("ops@shop.test",))
        mail = message_from_bytes(taken.content, policy=default)
        assert mail["Subject"] == NOTICE.title
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["From"] == "gw@shop.test"
        assert mail["Date"] and mail["Message-ID"]
        assert mail.get_content().split() == NOTICE.text.split()
        assert taken.content.isascii()


async def test_a_long_subject_ends_with_a_whole_word() -> None:
    async with ScriptedProvider() as spare:
        long = replace(NOTICE.incident, summary="changed at 2026-12-03 " * 20)
        await email(free_port(), spare).send(replace(NOTICE, incident=long))
        (taken,) = spare.messages
        *words, end = message_from_bytes(taken.content, policy=default)["Subject"].split()
        assert (end, words[-1] in ("changed", "at", "2026-12-03")) == ("...", True)


async def test_providers_in_trouble_come_last() -> None:
    async with ScriptedProvider() as first, ScriptedProvider() as second:
        await email(first, second, troubled=("p0",)).send(NOTICE)
        assert (len(first.messages), len(second.messages)) == (0, 1)
        assert not first.connections


async def test_a_provider_that_refuses_or_hangs_is_passed_over() -> None:
    async with (
        ScriptedProvider() as refusing,
        ScriptedProvider() as hanging,
        ScriptedProvider() as taking,
    ):
        refusing.script("RCPT", b"550 5.1.1 no\r\n")
        hanging.script("greeting", Action.HANG)
        assert await email(refusing, hanging, taking).send(NOTICE) == "provider p2 accepted it"


async def test_when_no_provider_takes_it_each_is_named() -> None:
    async with ScriptedProvider() as refusing:
        refusing.script("MAIL", b"550 5.7.1 not verified\r\n")
        with pytest.raises(NotSent, match=r"p0: connect to .* refused; p1: 550 5\.7\.1 not ver"):
            await email(free_port(), refusing).send(NOTICE)


# --- apprise ------------------------------------------------------------------------------

FAKE_APPRISE = """
import json, os, time
class Apprise:
    def add(self, url):
        self.url = url
        return url.startswith("json://")
    def notify(self, **given):
        if self.url == "json://hang":
            time.sleep(600)
        with open(os.path.join(os.path.dirname(__file__), "out.json"), "w") as out:
            json.dump({"url": self.url, "environment": dict(os.environ), **given}, out)
        return self.url != "json://refuse"
"""


@pytest.fixture
def fake_apprise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a package of that name where the child finds it; return what it was told."""
    (tmp_path / "apprise.py").write_text(FAKE_APPRISE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path / "out.json"


async def test_apprise_is_told_in_a_process_of_its_own(
    fake_apprise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERS_KEY", "geheim")
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    assert (
        await Apprise(SecretRef.parse("plain:json://x")).send(NOTICE) == "the service accepted it"
    )
    told = json.loads(await asyncio.to_thread(fake_apprise.read_text))
    environment = told.pop("environment")
    assert environment["https_proxy"] == "http://proxy.test:3128"
    assert "ORDERS_KEY" not in environment
    assert told == {
        "url": "json://x",
        "title": NOTICE.title,
        "body": NOTICE.text,
        "notify_type": "warning",
    }


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("plain:other://secret", r"plain:\*\*\*: apprise does not know this kind of URL"),
        ("plain:json://refuse", "apprise: the service refused it"),
        ("plain:json://hang", "apprise did not end within 3 s and was killed"),
    ],
)
async def test_apprise_in_trouble(fake_apprise: Path, url: str, words: str) -> None:
    with pytest.raises(NotSent, match=words):
        await Apprise(SecretRef.parse(url), limit_s=3.0).send(NOTICE)


async def test_apprise_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with pytest.raises(NotSent, match=r"pip --python /\S+ install apprise$"):
        await Apprise(SecretRef.parse("plain:json://x")).send(NOTICE)
