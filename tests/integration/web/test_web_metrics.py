"""The page of metrics over HTTP: what the store knows, and what is left when it does not answer."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from starlette.types import ASGIApp

from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.outcome import Scope
from relaygw.mail.state import DeliveryState
from relaygw.observe.metrics import RunFiles
from relaygw.policy.untended import KINDS
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import PAUSED, UNREACHABLE, Hold
from relaygw.store.queue import LaneCount
from relaygw.store.store import Store
from relaygw.web.dashboard import monitoring
from relaygw.web.dashboard.monitoring import CAUSES, LocalMetrics, MetricsPage
from relaygw.web.gate.identity import Forwarded
from relaygw.web.server import serve_web
from tests.altered_store import AlteredStore
from tests.builders import accepted, instance
from tests.plain_http import plain_client
from tests.unit.observe.counting_process import counting
from tests.unit.observe.scraped import Scraped, scraped

HASH = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$qaWmiEvqxJUTQKBMbvDRaQ"
PROVIDERS = {
    "main": {"host": "mx.test", "rate": "5/s", "daily_quota": 200},
    "spare": {"host": "mx2.test"},
}
ROUTES = [
    {"name": "promo", "sender": ["@promo.test"], "providers": ["main"]},
    {"name": "default", "providers": ["main", "spare"]},
]


def settings(**more: Any) -> Settings:
    values = {"mode": "production", "providers": PROVIDERS, "routes": ROUTES, **more}
    return Settings.model_validate(values)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[httpx2.AsyncClient]:
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks, plain_client(base_url=url, timeout=60) as client:
        tasks.create_task(serve_web(app, listening, stop=stop))
        try:
            yield client
        finally:
            stop.set()


async def scrape(client: httpx2.AsyncClient) -> Scraped:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    return scraped(answer.content)


async def scraped_once(store: Store, state_dir: Path, **more: Any) -> Scraped:
    page = MetricsPage(store, settings(**more), state_dir=state_dir)
    async with serving(page.app()) as client:
        return await scrape(client)


async def test_the_queue_by_state_and_route(store: Store, tmp_path: Path) -> None:
    old, held = accepted(at_ms=now_ms() - 600_000), accepted(at_ms=now_ms() - 5_000)
    store.intake.accept_batch(
        [old, held, accepted("a@x.test", "b@x.test", route="gone", at_ms=now_ms())]
    )
    store.queue.change_state(
        [held.queue_id],
        from_states=frozenset({DeliveryState.INCOMING}),
        to=DeliveryState.HELD,
        hold=HoldCause(HoldCode.OTHER, "look at it"),
        entry=AuditEntry(
            at_ms=0, actor="t", action="hold", target=held.queue_id, affected=1, detail=""
        ),
    )
    found = await scraped_once(store, tmp_path)
    queued = {
        (route, state): found("relaygw_queue_recipients", route=route, state=state)
        for route in ("default", "promo", "gone")
        for state in ("incoming", "active", "deferred", "held")
    }
    assert {key: number for key, number in queued.items() if number} == {
        ("default", "incoming"): 1,
        ("default", "held"): 1,
        ("gone", "incoming"): 2,
    }
    assert None not in queued.values()
    age_s = found("relaygw_queue_oldest_age_seconds", route="default")
    assert age_s is not None
    assert 600 <= age_s < 660
    assert found("relaygw_queue_oldest_age_seconds", route="promo") == 0
    untended = {kind: found("relaygw_waiting_untended", kind=kind) for kind in KINDS}
    assert None not in untended.values()
    assert {kind: number for kind, number in untended.items() if number} == {
        "other": 1,
        "route_gone": 1,
    }


def hold(scope: str, key: str, *, probe_at_ms: int | None = 1) -> Hold:
    return Hold(scope=scope, key=key, reason="r", remedy="", since_ms=1, probe_at_ms=probe_at_ms)


async def test_providers_by_what_holds_them(store: Store, tmp_path: Path) -> None:
    store.holds.put_hold(hold(UNREACHABLE, "main"))
    store.holds.put_hold(hold(Scope.CREDENTIAL, "main"))
    store.holds.put_hold(hold(Scope.SENDER_DOMAIN, "main a.test"))
    store.holds.put_hold(hold(Scope.SENDER_DOMAIN, "main b.test"))
    store.holds.put_hold(hold(Scope.PROVIDER, "spare", probe_at_ms=None))
    found = await scraped_once(store, tmp_path)
    assert found("relaygw_provider_up", provider="main") == 0
    assert found("relaygw_provider_up", provider="spare") == 1
    held = {
        (name, cause): found("relaygw_provider_held", provider=name, cause=cause)
        for name in PROVIDERS
        for cause in CAUSES
    }
    assert {key: number for key, number in held.items() if number} == {
        ("main", "credential"): 1,
        ("main", "sender_domain"): 2,
        ("spare", "operator"): 1,
    }


async def test_a_pause_is_counted_with_its_end(store: Store, tmp_path: Path) -> None:
    store.holds.put_hold(hold(PAUSED, "main", probe_at_ms=1_800_000_000_500))
    store.holds.put_hold(hold(UNREACHABLE, "main", probe_at_ms=1_800_000_000_000))
    store.holds.put_hold(hold(Scope.PROVIDER, "spare", probe_at_ms=None))
    found = await scraped_once(store, tmp_path)
    assert found("relaygw_provider_held", provider="main", cause="paused") == 1
    probe = "relaygw_provider_next_probe_timestamp_seconds"
    assert found(probe, provider="main") == 1_800_000_000.5
    assert found(probe, provider="spare") is None, "an operator ends it"
    assert found("relaygw_provider_in_doubt", provider="main") == 0


async def test_limits_are_those_of_now(store: Store, tmp_path: Path) -> None:
    store.limits.use_quota("main", wanted=50, quota=200)
    found = await scraped_once(store, tmp_path)
    assert found("relaygw_provider_quota_used_ratio", provider="main") == 0.25
    assert found("relaygw_provider_quota_used_ratio", provider="spare") is None
    assert found("relaygw_provider_rate_limit", provider="main") == 5
    assert found("relaygw_provider_rate_limit", provider="spare") is None
    store.limits.lower_rate("main", per_s=2.0, guard_s=0)
    slowed = (await scraped_once(store, tmp_path))("relaygw_provider_rate_limit", provider="main")
    assert slowed is not None
    assert slowed < 5


async def test_instances_with_a_fresh_heartbeat(store: Store, tmp_path: Path) -> None:
    for number, role in enumerate(("front", "front", "delivery", "web")):
        store.instances.register(instance(str(number), role=role))
    with store.database.write() as connection:
        connection.connection.exec_driver_sql(
            "UPDATE instance SET heartbeat_at_ms = 0 WHERE role = 'web'"
        )
    found = await scraped_once(store, tmp_path)
    running = {role: found("relaygw_instances", role=role) for role in ("front", "delivery", "web")}
    assert running == {"front": 2, "delivery": 1, "web": 0}
    assert found("relaygw_instances_lost", role="delivery") == 0
    store.instances.bury("2", is_lost=True)
    found = await scraped_once(store, tmp_path)
    assert found("relaygw_instances_lost", role="delivery") == 1


async def test_when_a_certificate_ends(store: Store, tmp_path: Path) -> None:
    end = datetime(2031, 2, 3, tzinfo=UTC)
    issued = trustme.CA().issue_cert("gw.test", not_after=end)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "gw.pem")
    tls = {"mode": "starttls", "cert": str(tmp_path / "gw.pem")}
    listeners = [{"bind": "127.0.0.1:25", "tls": tls}, {"bind": "127.0.0.1:26"}]
    found = await scraped_once(store, tmp_path, listeners=listeners)
    name = "relaygw_tls_certificate_expiry_timestamp_seconds"
    assert found(name, listener="127.0.0.1:25") == end.timestamp()
    assert found(name, listener="127.0.0.1:26") is None


# --- a store in trouble -------------------------------------------------------------------


async def test_without_the_store_processes_still_tell(store: Store, tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    page = MetricsPage(store, settings(), state_dir=tmp_path)
    with counting(files.directory, "total.add('a')"):
        async with serving(page.app()) as client:
            with store.database.write() as connection:
                connection.connection.exec_driver_sql("DROP TABLE hold")
            found = await scrape(client)
    files.close()
    assert found("relaygw_store_up") == 0
    assert found("things_total", kind="a") == 1
    assert found("relaygw_volume_free_ratio") is not None
    assert not [name for name in found.numbers if name.startswith(("relaygw_queue", "relaygw_pr"))]


class SlowStore(AlteredStore):
    """A store whose answers take as long as the test wants."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.may_answer = threading.Event()
        self.asked = 0

    def counts(self) -> list[LaneCount]:
        self.asked += 1
        self.may_answer.wait(timeout=20)
        return super().counts()


@pytest.fixture
def slow(store: Store, tmp_path: Path) -> Iterator[SlowStore]:
    opened = SlowStore(f"sqlite:///{tmp_path}/queue.db")
    yield opened
    opened.may_answer.set()
    opened.close()


async def test_a_store_that_hangs_holds_up_no_scrape(
    slow: SlowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "SCRAPE_WITHIN_S", 0.2)
    async with serving(MetricsPage(slow, settings(), state_dir=tmp_path).app()) as client:
        for _ in range(3):
            assert (await scrape(client))("relaygw_store_up") == 0
        assert slow.asked == 1  # what hangs is not asked again
        slow.may_answer.set()
        async with asyncio.timeout(90):
            while (await scrape(client))("relaygw_store_up") == 0:
                pass


async def test_many_scrapes_ask_the_store_once_in_a_while(slow: SlowStore, tmp_path: Path) -> None:
    slow.may_answer.set()
    async with serving(MetricsPage(slow, settings(), state_dir=tmp_path).app()) as client:
        await asyncio.gather(*(scrape(client) for _ in range(10)))
        assert slow.asked == 1
        slow.intake.accept_batch([accepted(at_ms=now_ms())])
        asked = (await scrape(client))(
            "relaygw_queue_recipients", state="incoming", route="default"
        )
        assert asked == 0  # as it was told a moment ago


# --- who may read it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("web", "path", "host", "is_let_in"),
    [
        ({}, "/metrics", "127.0.0.1:8025", True),
        ({}, "/metrics", "localhost", True),
        ({}, "/metrics", "evil.test", False),  # a page of another site, under a name of its own
        ({}, "/metrics/", "localhost", False),
        ({"base_path": "/mail"}, "/mail/metrics", "localhost", True),
        ({"bind": "10.0.0.5:8025"}, "/metrics", "localhost", False),
        ({"networks": ["10.0.0.0/16"]}, "/metrics", "localhost", False),
        ({"networks": ["127.0.0.1"]}, "/metrics", "localhost", True),
        ({"proxies": ["127.0.0.1"]}, "/metrics", "localhost", False),  # it asks for another one
        ({"users": [{"name": "anna", "password_hash": HASH}]}, "/metrics", "localhost", False),
    ],
)
async def test_programs_of_this_host_need_no_login_where_there_is_none(
    store: Store, tmp_path: Path, web: dict[str, Any], path: str, host: str, is_let_in: bool
) -> None:
    chosen = settings(web=web)
    page = MetricsPage(store, chosen, state_dir=tmp_path)

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client_of = Forwarded(chosen.web.proxies).client
    local = LocalMetrics(refuse, page=page, web=chosen.web, client=client_of)
    async with serving(local) as client:
        told = {"Host": host, "X-Forwarded-For": "192.0.2.7"}
        answer = await client.get(path, headers=told)
    assert answer.status_code == (200 if is_let_in else 403)


async def test_no_other_site_can_embed_it(store: Store, tmp_path: Path) -> None:
    async with serving(MetricsPage(store, settings(), state_dir=tmp_path).app()) as client:
        answer = await client.get("/metrics", headers={"Host": "prometheus.example:9154"})
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405
