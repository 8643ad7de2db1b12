"""Microsoft 365 ends logging in by password: said by check, status, digest and alert in time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from relaygw.alerting.digest import Period, digest_of
from relaygw.alerting.facts import FleetFacts, QueueFactsReader
from relaygw.alerting.notifier import Notifier, Receiver
from relaygw.alerting.rules import fleet_findings
from relaygw.alerting.watch import incident_of
from relaygw.mail.clock import DAY_MS, HOUR_MS, clock_ms
from relaygw.operations.status import take_snapshot, warnings
from relaygw.policy.endings import ending_logins
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.forked import run_relaygw
from tests.integration.alerting.watch_rig import Recording
from tests.tables import each_of

M365 = {"host": "smtp.office365.com", "username": "shop@shop.example"}
PASSWORD = {**M365, "password": "plain:geheim"}
OAUTH = {
    "token_url": "https://login.microsoftonline.com/t/oauth2/v2.0/token",
    "client_id": "c",
    "client_secret": "plain:s",
}
BEFORE, AFTER = (
    int(datetime(*day, tzinfo=UTC).timestamp() * 1000) for day in ((2026, 12, 8), (2027, 1, 2))
)


def settings(**provider: Any) -> Settings:
    return Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "listeners": [{"bind": "127.0.0.1:25"}],
            "providers": {"office": provider},
            "routes": [{"name": "default", "providers": ["office"]}],
            "maildrop": {"path": None},
        }
    )


CONCERNED = {
    "by the host": (PASSWORD, True),
    "by the preset": ({**PASSWORD, "preset": "microsoft365"}, True),
    "by the host in capitals": ({**PASSWORD, "host": "SMTP.Office365.com"}, True),
    "a host of one's own in front of it": (
        {**PASSWORD, "preset": "microsoft365", "host": "relay.shop.example"},
        True,
    ),
    "by an access token": ({**M365, "oauth": OAUTH}, False),
    "by an access token, with a password left": ({**PASSWORD, "oauth": OAUTH}, False),
    "without a login": ({"host": "smtp.office365.com"}, False),
    "of another service": ({**PASSWORD, "host": "smtp.example.com"}, False),
    "of another preset": ({**PASSWORD, "preset": "gmail", "host": "smtp.gmail.com"}, False),
}


@each_of("case", CONCERNED)
def test_who_is_concerned(case: str) -> None:
    provider, is_concerned = CONCERNED[case]
    named = [one.provider for one in ending_logins(settings(**provider))]
    assert named == (["office"] if is_concerned else [])


def test_it_is_said_before_and_after() -> None:
    (ending,) = ending_logins(settings(**PASSWORD))
    head = "provider office logs in by password: "
    assert ending.words(BEFORE).startswith(f"{head}on 31 December 2026 Microsoft switches that off")
    assert ending.words(AFTER).startswith(f"{head}since 31 December 2026 Microsoft switches")
    assert "access token" in ending.remedy
    assert "switch it on again" in ending.remedy


def test_status_and_digest_say_it_with_the_mail_it_concerns(store: Store) -> None:
    store.watch.add_history(clock_ms() - HOUR_MS, {("delivered", "office"): 412})
    (said,) = (one for one in warnings(take_snapshot(store, settings(**PASSWORD))) if "logs" in one)
    assert "31 December 2026" in said
    assert "412 were delivered by it within a day" in said
    assert "access token" in said
    period = Period(clock_ms() - DAY_MS, clock_ms())
    news = digest_of(store, settings(**PASSWORD), period).news
    assert [one for one in news if "31 December 2026" in one and "412" in one]
    silent = settings(**M365, oauth=OAUTH)
    assert not [one for one in digest_of(store, silent, period).news if "31 December" in one]
    assert not [one for one in warnings(take_snapshot(store, silent)) if "logs in" in one]


def test_an_alert_is_sent_once_and_then_each_week(store: Store) -> None:
    now_ms = clock_ms()
    configured = settings(**PASSWORD)
    queue = QueueFactsReader(store, configured).queue_facts([], now_ms=now_ms)
    found = fleet_findings(FleetFacts(now_ms=now_ms, queue=queue), configured)
    (finding,) = (one for one in found if one.rule is Rule.LOGIN_ENDS)
    assert finding.is_certain
    assert store.watch.open_incident(incident_of(finding, now_ms))
    channel = Recording()

    async def sent_at(*days: int) -> int:
        before = len(channel.notices)
        # another one, as after a restart
        notifier = Notifier(configured, [Receiver("ops", channel, frozenset())], store, print)
        for day in days:
            incidents = await asyncio.to_thread(store.watch.incidents, 0)
            notifier.notify(incidents, now_ms=now_ms + day * DAY_MS)
            await notifier.drain(60)
        return len(channel.notices) - before

    async def all_of_it() -> list[int]:
        return [await sent_at(*days) for days in ((0, 0, 6), (6,), (7, 8, 13), (14,), (15, 20))]

    assert asyncio.run(all_of_it()) == [1, 0, 1, 1, 0]
    (incident,) = store.watch.incidents(0)
    store.watch.end_incident(incident.incident_id, at_ms=now_ms + 22 * DAY_MS)
    assert asyncio.run(sent_at(22, 22)) == 1, "that it is over"
    assert channel.states[-1] == ("office", "over")


def test_check_says_it(tmp_path: Path) -> None:
    config = tmp_path / "relaygw.yaml"
    config.write_text(
        "mode: production\n"
        "providers: {office: {preset: microsoft365, username: a@b.example, password: 'plain:x'}}\n"
        "routes: [{name: default, providers: [office]}]\n"
    )
    config.chmod(0o600)
    words = ["--config", str(config), "check"]
    done = run_relaygw(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "warning: provider office logs in by password: " in done.stderr
    assert "31 December 2026" in done.stderr
