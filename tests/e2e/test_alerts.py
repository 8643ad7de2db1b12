"""Alerts as people get them: a gateway whose provider goes down and comes back."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import on_a_database
from tests.e2e.fleet import starter
from tests.e2e.gateway import Gateway, gateway_to, provider_settings
from tests.e2e.ports import free_port
from tests.fakes.entra import CLIENT_ID, TENANT, EntraEndpoint
from tests.fakes.full_backlog import full_backlog
from tests.fakes.notice_receiver import Behaviour, NoticeReceiver
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw
from tests.postgres import running_server

MAIL = b"Subject: order\r\n\r\nhello\r\n"


def send(gateway: Gateway, count: int = 1) -> None:
    for _ in range(count):
        gateway.send("a@shop.test", ["b@cust.test"], MAIL)


def test_a_provider_that_goes_down_and_comes_back_is_told_once_each(tmp_path: Path) -> None:
    with ThreadedProvider() as spare, NoticeReceiver() as receiver:
        port = free_port()
        providers = {"main": provider_settings(port), "spare": provider_settings(spare.port)}
        routes = [{"name": "default", "providers": ["main", "spare"]}]
        alerts = [
            {"webhook": receiver.url},
            {"email": "ops@shop.test", "sender": "gw@shop.test", "name": "mail"},
        ]
        web = {"bind": "127.0.0.1:0", "url": "https://gw.test/mail"}
        with Gateway(
            tmp_path,
            providers=providers,
            routes=routes,
            alerts=alerts,
            alert_rules={"lasting": "1s"},
            web=web,
        ) as gateway:
            down_s = time.monotonic()
            send(gateway, 3)
            receiver.wait_for(1)
            print(f"down: told after {receiver.taken_at_s[0] - down_s:.1f} s")
            assert receiver.bodies[0]["rule"] == "provider_down"
            assert receiver.bodies[0]["key"] == "main"
            assert receiver.bodies[0]["state"] == "open"
            assert receiver.bodies[0]["host"] == "gw.test"
            assert receiver.bodies[0]["link"] == "https://gw.test/mail/"
            assert "cannot be reached" in receiver.bodies[0]["summary"]
            gateway.wait_for_log(r"alert sent to mail \(provider spare accepted it\)")
            notices = [one for one in spare.messages if one.recipients == ("ops@shop.test",)]
            assert b"Auto-Submitted: auto-generated" in notices[0].content
            with ThreadedProvider(port=port):
                back_s = time.monotonic()
                gateway.wait_for_log("provider main is back")
                receiver.wait_for(2)
                print(f"back: told after {receiver.taken_at_s[1] - back_s:.1f} s")
                assert receiver.bodies[1]["state"] == "recovered"
                assert receiver.bodies[1]["rule"] == "provider_down"
                gateway.wait_for_log("alert sent to webhook-1", count=2)  # noted, too
                assert gateway.stop() == 0
                told = [line for line in gateway.lines if "alert sent to webhook-1" in line]
                assert len(told) == 2
                assert "/hook/secret" not in "\n".join(gateway.lines)
                # the same queue again: what was told is not told twice
                gateway.start()
                send(gateway)
                gateway.wait_until_empty()
                assert gateway.stop() == 0  # before the provider is down again
        of_provider = [one for one in receiver.bodies if one["rule"] == "provider_down"]
        assert [one["state"] for one in of_provider] == ["open", "recovered"], receiver.bodies


def test_the_words_of_a_token_endpoint_reach_log_alert_and_command(tmp_path: Path) -> None:
    with (
        EntraEndpoint(secret="right") as entra,
        ThreadedProvider(tls="starttls", users={"shop": "none"}, auth=["XOAUTH2"]) as exchange,
        NoticeReceiver() as receiver,
    ):
        oauth = {"token_url": entra.url_of(TENANT), "client_id": CLIENT_ID}
        oauth |= {"client_secret": "plain:canary-wrong-secret"}
        place = {"host": "127.0.0.1", "port": exchange.port, "tls_ca": exchange.tls_ca}
        office = {"preset": "microsoft365", **place, "username": "shop", "oauth": oauth}
        with Gateway(
            tmp_path,
            providers={"office": office},
            alerts=[{"webhook": receiver.url}],
            alert_rules={"lasting": "1s"},
        ) as gateway:
            send(gateway)
            receiver.wait_for(1)
            argv = ["--config", str(gateway.config), "provider", "list"]
            listed = run_relaygw(argv, capture_output=True, text=True, check=True).stdout
            gateway.wait_for_log(r"provider office is held .*AADSTS7000215: Invalid client secret")
            assert gateway.stop() == 0
        for shown in ("\n".join(gateway.lines), listed, str(receiver.bodies)):
            assert "AADSTS7000215: Invalid client secret provided. Ensure the secret" in shown
            assert "Store the secret's value, not its id" in shown
            assert "canary-wrong-secret" not in shown
            assert "Trace ID" not in shown


def test_mail_flows_while_a_receiver_hangs_and_another_one_is_told(tmp_path: Path) -> None:
    with (
        NoticeReceiver(Behaviour.HANG) as hanging,
        NoticeReceiver() as working,
        ThreadedProvider() as spare,
    ):
        providers = {"main": provider_settings(free_port()), "spare": provider_settings(spare.port)}
        routes = [{"name": "default", "providers": ["main", "spare"]}]
        alerts = [
            {"webhook": hanging.url},
            {"command": ["/bin/sleep", "600"]},
            {"webhook": working.url},
            {"command": ["/bin/true"]},
        ]
        with Gateway(
            tmp_path,
            providers=providers,
            routes=routes,
            alerts=alerts,
            alert_rules={"lasting": "1s"},
        ) as gateway:
            send(gateway)
            hanging.wait_for_asked(1)
            working.wait_for(1)
            gateway.wait_for_log(r"alert sent to command-4 \(true ended with exit code 0\)")
            send(gateway, 20)
            gateway.wait_until_empty()
            gateway.wait_for_log(r"alert not sent to webhook-1: .* did not answer within 10 s")
            gateway.wait_for_log(r"alert not sent to command-2: sleep did not end within 15 s")
            hanging.behaviour = Behaviour.ANSWER
            hanging.wait_for(1)
            assert gateway.stop() == 0


def test_a_provider_that_answers_nothing_is_told_before_its_connections_time_out(
    tmp_path: Path,
) -> None:
    with (
        full_backlog() as port,
        NoticeReceiver() as receiver,
        Gateway(
            tmp_path,
            providers={"main": provider_settings(port)},
            alerts=[{"webhook": receiver.url}],
        ) as gateway,
    ):
        silent_s = time.monotonic()
        send(gateway, 2)
        receiver.wait_for(1)
        print(f"no answer: told after {receiver.taken_at_s[0] - silent_s:.1f} s")
        assert "no connection for 20 s" in receiver.bodies[0]["summary"]
        gateway.wait_for_log("status=deferred .*no reply within 30 s")
        assert receiver.bodies[1:] == [], "it is not over because a connection was given up"


def test_in_a_fleet_one_gateway_tells_and_the_other_takes_over(
    tmp_path: Path, queue_url: str
) -> None:
    port = free_port()
    with NoticeReceiver() as receiver, ExitStack() as stack:
        start = starter(tmp_path, queue_url, stack)
        more: dict[str, Any] = {
            "providers": {"main": provider_settings(port)},
            # that the killed one is lost is told at about the time of the recovery
            "alerts": [{"webhook": receiver.url, "on": ["provider_down"]}],
            "alert_rules": {"lasting": "1s"},
        }
        fleet = [start(name, **more) for name in ("gw1", "gw2")]
        send(fleet[0], 3)
        receiver.wait_for(1)
        assert receiver.bodies[0]["rule"] == "provider_down"
        fleet[0].wait_until(lambda: any(map(has_told, fleet)), "a line of who told")
        teller, other = sorted(fleet, key=lambda one: not has_told(one))
        assert not has_told(other)
        killed_s = time.monotonic()
        teller.kill_all()
        with ThreadedProvider(port=port):
            other.wait_until_empty()
            receiver.wait_for(2)
        print(f"owner killed: recovery told after {receiver.taken_at_s[1] - killed_s:.1f} s")
        assert receiver.bodies[1]["state"] == "recovered", receiver.bodies
        assert receiver.bodies[1]["host"] == other.settings["hostname"]
        assert len(receiver.bodies) == 2


def test_a_queue_out_of_reach_is_told_without_it(tmp_path: Path) -> None:
    with (
        running_server() as server,
        NoticeReceiver() as receiver,
        ThreadedProvider() as provider,
        ExitStack() as stack,
    ):
        start = starter(tmp_path, server.create_database(), stack)
        providers = {"main": provider_settings(provider.port)}
        gateway = start("gw1", providers=providers, alerts=[{"webhook": receiver.url}])
        send(gateway)
        gateway.wait_until_empty()
        server.stop(immediately=True)
        away_s = time.monotonic()
        receiver.wait_for(1)
        print(f"queue away: told after {receiver.taken_at_s[0] - away_s:.1f} s")
        assert (receiver.bodies[0]["rule"], receiver.bodies[0]["key"]) == (
            "front_refusing",
            "gw1.test",
        )
        server.start()
        back_s = time.monotonic()
        receiver.wait_for(2)
        print(f"queue back: told after {receiver.taken_at_s[1] - back_s:.1f} s")
        assert receiver.bodies[1]["state"] == "recovered"
        gateway.wait_until(lambda: bool(gateway.pids("front")), "a front")
        send(gateway)
        gateway.wait_until_empty()


def has_told(gateway: Gateway) -> bool:
    return any("alert sent" in line for line in gateway.lines)


@on_a_database
@pytest.mark.parametrize("metrics", [True, False])
def test_what_happens_is_in_the_history(tmp_path: Path, each_database: str, metrics: bool) -> None:
    with ThreadedProvider() as provider:
        provider.recipients["no@cust.test"] = b"550 5.1.1 unknown\r\n"
        if not metrics:
            (tmp_path / "state").mkdir()
            (tmp_path / "state/metrics").touch()  # no directory: nothing is counted there
        with gateway_to(provider, tmp_path) as gateway:
            is_silent = any("no metrics of mail" in line for line in gateway.lines)
            assert is_silent is (not metrics and each_database == "sqlite")
            send(gateway, 3)
            gateway.send("a@shop.test", ["no@cust.test"], MAIL)
            with gateway.connect() as client:
                client.command(b"EHLO x.test")
                assert client.command(b"MAIL FROM:<a b@shop.test>").startswith("5")
            gateway.wait_until_empty()
            assert gateway.stop() == 0
            found: Counter[tuple[str, str]] = Counter()
            for point in gateway.store.watch.history(0):
                if point.series not in ("queue", "oldest_s"):
                    found[point.series, point.label] += point.amount
    refused = {key: count for key, count in found.items() if key[0] == "refused"}
    assert sum(refused.values()) == 1
    times = {key: count for key, count in found.items() if key[0] == "in_queue"}
    assert sum(times.values()) == 4
    assert {label.split()[0] for _, label in times} == {"main"}
    assert {key: count for key, count in found.items() if key not in refused | times} == {
        ("messages", "127.0.0.1:0"): 4,
        ("accepted", "default"): 4,
        ("delivered", "main"): 3,
        ("bounced", "main"): 1,
        ("bounced_for", "refused_recipient"): 1,
    }
