"""One scrape of a real gateway: all roles of the host, before and after deaths and reloads."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.gateway import PATIENCE_S, Gateway, gateway_to
from tests.e2e.ports import fixed_binds
from tests.fakes.scripted_provider import ThreadedProvider
from tests.unit.observe.scraped import Scraped, scraped

CONTENT = b"Subject: quarterly offer\r\n\r\nhello\r\n"
DELIVERED = "relaygw_recipients_delivered_total"
RECEIVED = "relaygw_messages_received_total"


@pytest.fixture
def gateway(tmp_path: Path, provider: ThreadedProvider) -> Iterator[Gateway]:
    with gateway_to(
        provider, tmp_path, metrics={"bind": "127.0.0.1:0"}, **fixed_binds()
    ) as gateway:
        yield gateway


def metrics_port(gateway: Gateway) -> int:
    line = gateway.wait_for_log(r"metrics on http://127\.0\.0\.1:\d+$")[-1]
    return int(line.rpartition(":")[2])


def scrape(gateway: Gateway) -> Scraped:
    url = f"http://127.0.0.1:{metrics_port(gateway)}/metrics"
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        return scraped(response.read())


def wait_for_numbers(gateway: Gateway, condition: Callable[[Scraped], bool], what: str) -> Scraped:
    """Scrape until a condition holds: a killed web takes a moment to come back."""
    last: list[Scraped] = []

    def holds() -> bool:
        try:
            last.append(scrape(gateway))
        except (urllib.error.URLError, ConnectionError):
            return False
        return condition(last[-1])

    gateway.wait_until(holds, what)
    return last[-1]


def listener(gateway: Gateway) -> str:
    return f"127.0.0.1:{gateway.smtp_port}"


def send(gateway: Gateway, count: int, *, at_all: int) -> None:
    for _ in range(count):
        gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
    gateway.wait_for_log("status=sent", count=at_all)


def totals(found: Scraped, gateway: Gateway) -> tuple[float | None, float | None]:
    return found(RECEIVED, listener=listener(gateway)), found(DELIVERED, provider="main")


def wait_for_totals(gateway: Gateway, count: int) -> Scraped:
    """Wait for what is written each second: messages in and recipients out."""
    return wait_for_numbers(
        gateway, lambda one: totals(one, gateway) == (count, count), f"{count} in and out"
    )


def test_one_scrape_tells_of_every_role(gateway: Gateway) -> None:
    wait_for_totals(gateway, 0)
    send(gateway, 3, at_all=3)
    at = listener(gateway)
    found = wait_for_totals(gateway, 3)
    assert found("relaygw_smtp_replies_total", listener=at, code="354") == 3
    assert found("relaygw_smtp_sessions", listener=at) == 0
    assert found("relaygw_time_in_queue_seconds_count") == 3
    assert found("relaygw_delivery_duration_seconds_count", provider="main") == 3
    for role in ("front", "delivery"):
        assert (found("relaygw_db_write_seconds_count", role=role) or 0) >= 1
        wait_for_numbers(  # what the store says may be 5 s old
            gateway,
            lambda one, role=role: one("relaygw_instances", role=role) == 1,  # type: ignore[misc]
            f"a {role}",
        )
    assert found("relaygw_store_up") == 1
    assert found("relaygw_provider_up", provider="main") == 1
    open_to_programs = [f"http://127.0.0.1:{metrics_port(gateway)}/metrics"]
    open_to_programs += [
        f"http://127.0.0.1:{gateway.web_port}/{name}" for name in ("healthz", "livez", "readyz")
    ]
    for url in open_to_programs:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            told = f"{response.headers}{response.read().decode()}"
        for one in ("@", "cust.test", "shop.test", "quarterly offer"):
            assert one not in told, f"{url} tells {one}"


def test_counts_outlive_a_killed_worker_and_its_connections_do_not(gateway: Gateway) -> None:
    send(gateway, 2, at_all=2)
    wait_for_totals(gateway, 2)
    wait_for_numbers(
        gateway,
        lambda one: (one("relaygw_provider_connections", provider="main", state="idle") or 0) > 0,
        "an idle connection",
    )
    pid = gateway.kill("delivery")
    gateway.wait_for_log(rf"delivery \(pid {pid}\) ended with signal 9")
    found = wait_for_numbers(
        gateway,
        lambda one: one("relaygw_provider_connections", provider="main", state="idle") == 0,
        "no connection of a dead worker",
    )
    assert totals(found, gateway) == (2, 2)
    send(gateway, 1, at_all=3)
    wait_for_totals(gateway, 3)
    assert not list((gateway.directory / "state/metrics").rglob(f"*_{pid}.db"))


def test_generations_add_up_over_reloads(gateway: Gateway) -> None:
    with gateway.connect() as stays:  # with the front that a reload retires
        for number in range(1, 4):
            send(gateway, 1, at_all=number)
            position = gateway.reload()
            gateway.wait_for_log("reloaded: mode production", start=position)
        at = listener(gateway)
        wait_for_totals(gateway, 3)
        wait_for_numbers(
            gateway,
            lambda one: one("relaygw_smtp_sessions", listener=at) == 1,
            "the session with the retired front",
        )
        stays.command(b"QUIT")
    wait_for_numbers(
        gateway,
        lambda one: (
            one("relaygw_smtp_sessions", listener=at) == 0 and totals(one, gateway) == (3, 3)
        ),
        "no session, and all counts",
    )


def test_a_restart_begins_anew_and_clears_up(gateway: Gateway) -> None:
    send(gateway, 1, at_all=1)
    wait_for_totals(gateway, 1)
    gateway.kill_all()
    position = len(gateway.lines)
    gateway.start()
    gateway.wait_for_log("metrics on", start=position)
    wait_for_totals(gateway, 0)
    assert len(list((gateway.directory / "state/metrics").iterdir())) == 1


def test_metrics_that_cannot_be_written_stop_no_mail(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/metrics").write_text("in the way")
    with gateway_to(
        provider, tmp_path, metrics={"bind": "127.0.0.1:0"}, **fixed_binds()
    ) as gateway:
        gateway.wait_for_log(r"warning: no metrics of mail, .*: File exists")
        send(gateway, 1, at_all=1)
        found = scrape(gateway)
        assert found("relaygw_store_up") == 1
        assert found(DELIVERED, provider="main") is None


def test_a_reload_opens_and_closes_the_address(gateway: Gateway) -> None:
    port = metrics_port(gateway)
    del gateway.settings["metrics"]
    position = gateway.reload()
    gateway.wait_for_log("reloaded: mode production", start=position)

    def is_closed() -> bool:
        try:
            scrape(gateway)
        except OSError:  # refused, or closed while it was asked
            return True
        return False

    gateway.wait_until(is_closed, "a closed port")
    gateway.settings["metrics"] = {"bind": f"127.0.0.1:{port}"}
    position = gateway.reload()
    gateway.wait_for_log("reloaded: mode production", start=position)
    wait_for_numbers(gateway, lambda one: one("relaygw_store_up") == 1, "an answer again")


def test_the_address_of_the_pages_is_refused_by_name(gateway: Gateway) -> None:
    gateway.settings["metrics"] = {"bind": f"127.0.0.1:{gateway.web_port}"}
    position = gateway.reload()
    (line,) = gateway.wait_for_log("error: reload refused", start=position)
    assert re.search(r"metrics\.bind: .* is web\.bind, which serves /metrics as well", line)


def status_at_the_pages(gateway: Gateway, host: str, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", gateway.web_port, timeout=PATIENCE_S)
    with closing(connection):
        connection.request("GET", "/metrics", headers={"Host": host, **headers})
        response = connection.getresponse()
        return response.status, response.read()


def test_the_address_of_the_pages_serves_programs_of_this_host(gateway: Gateway) -> None:
    gateway.wait_for_roles()
    status, body = status_at_the_pages(gateway, "localhost")
    assert status == 200
    assert scraped(body)("relaygw_store_up") == 1
    assert status_at_the_pages(gateway, "evil.test")[0] == 421


def test_with_users_the_address_of_the_pages_wants_a_login(gateway: Gateway) -> None:
    token = "a-token-of-enough-characters"
    gateway.settings["web"] |= {"tokens": [{"name": "prometheus", "token": f"plain:{token}"}]}
    position = gateway.reload()
    gateway.wait_for_log("reloaded: mode production", start=position)
    gateway.wait_until(
        lambda: status_at_the_pages(gateway, "localhost")[0] == 401, "the settings of now"
    )
    bearer = {"Authorization": f"Bearer {token}"}
    status, body = status_at_the_pages(gateway, "localhost", **bearer)
    assert status == 200
    assert scraped(body)("relaygw_store_up") == 1
    assert scrape(gateway)("relaygw_store_up") == 1  # at its own address still without
