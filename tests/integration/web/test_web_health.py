from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from relaygw.settings.model import Settings
from relaygw.store.instances import STALE_AFTER_S, Instance
from relaygw.store.store import Store
from relaygw.web.app import create_app
from relaygw.web.dashboard.monitoring import health_routes, look_at_roles
from relaygw.web.server import serve_web
from tests.plain_http import plain_client

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


def instance(
    incarnation: str, *, role: str = "front", state: str = "running", name: str = "gw1"
) -> Instance:
    return Instance(
        incarnation=incarnation,
        name=name,
        role=role,
        pid=1,
        version="0",
        fingerprint="f",
        state=state,
    )


def grow_old(store: Store, incarnation: str, *, by_s: float) -> None:
    with store.database.write() as connection:
        connection.connection.exec_driver_sql(
            "UPDATE instance SET heartbeat_at_ms = heartbeat_at_ms - ? WHERE incarnation = ?",
            (int(by_s * 1000), incarnation),
        )


async def readiness(client: httpx2.AsyncClient) -> tuple[int, str]:
    answer = await client.get("/readyz")
    return answer.status_code, answer.text


async def test_alive_whatever_the_store_does(serve: Serve, store: Store) -> None:
    client = await serve()
    with store.database.write() as connection:
        connection.connection.exec_driver_sql("DROP TABLE instance")
    assert (await client.get("/healthz")).text == "ok\n"
    assert (await client.get("/livez")).status_code == 200
    assert await readiness(client) == (503, "not ready: the store does not answer\n")


async def test_ready_when_a_front_takes_mail(serve: Serve, store: Store) -> None:
    client = await serve()
    assert await readiness(client) == (503, "not ready: no front is registered\n")
    store.instances.register(instance("d1", role="delivery"))
    assert (await readiness(client))[0] == 503
    store.instances.register(instance("f1", state="draining"))
    assert await readiness(client) == (503, "not ready: every front is stopping\n")
    store.instances.register(instance("f2"))
    assert await readiness(client) == (200, "ok\n")
    grow_old(store, "f2", by_s=STALE_AFTER_S + 5)
    assert await readiness(client) == (
        503,
        "not ready: no front has sent a heartbeat for 15 s\n",
    )
    store.instances.heartbeat("f2")
    assert await readiness(client) == (200, "ok\n")


async def test_a_silent_delivery_makes_it_unready(serve: Serve, store: Store) -> None:
    store.instances.register(instance("f1"))
    store.instances.register(instance("d1", role="delivery"))
    client = await serve()
    assert await readiness(client) == (200, "ok\n")
    grow_old(store, "d1", by_s=STALE_AFTER_S + 5)
    problem = "no delivery has sent a heartbeat for 15 s"
    assert await readiness(client) == (503, f"not ready: {problem}\n")
    store.instances.register(instance("d2", role="delivery"))
    assert await readiness(client) == (200, "ok\n"), "one that lives is enough"


def test_a_fleet_without_a_delivery_takes_mail_and_says_that_it_waits(store: Store) -> None:
    store.instances.register(instance("f1"))
    store.instances.register(instance("f3", name="gw3"))
    store.instances.register(instance("d1", role="delivery"))
    assert look_at_roles(store, "gw1") == (None, None)
    grow_old(store, "d1", by_s=STALE_AFTER_S + 5)
    silent = "no delivery has sent a heartbeat for 15 s"
    assert look_at_roles(store, "gw1") == (None, silent)
    assert look_at_roles(store, "gw2") == ("no front is registered", silent)
    with TestClient(Starlette(routes=health_routes(store, None, "gw1"))) as client:
        answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (200, f"ok, but {silent}: mail waits\n")


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ("running", "no delivery has sent a heartbeat for 15 s"),
        ("failing", "no delivery can take mail from the queue"),
        ("", "no delivery is registered"),
    ],
)
def test_the_gateway_whose_own_delivery_cannot_work_is_not_ready(
    store: Store, state: str, problem: str
) -> None:
    def look() -> tuple[str | None, str | None]:
        return look_at_roles(store, "gw1", has_worker=True)

    store.instances.register(instance("f1"))
    if state:
        store.instances.register(instance("d1", role="delivery", state=state))
    if state == "running":
        grow_old(store, "d1", by_s=STALE_AFTER_S + 5)
    assert look() == (problem, problem), "it is alone: whoever asks has no other to take it to"
    store.instances.register(instance("f2", name="gw2"))
    assert look() == (None, problem), "the other one is no better"
    store.instances.register(instance("d2", role="delivery", name="gw2"))
    assert look() == (problem, None), "the other one sends"


async def test_a_silent_store_is_not_waited_for(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaygw.web.dashboard.monitoring.READY_WITHIN_S", 0.2)
    asked, answer, looked = [], threading.Event(), threading.Event()
    look = store.instances.registered

    def instances() -> list[Instance]:
        asked.append(1)
        assert answer.wait(60)
        found = look()
        looked.set()
        return found

    store.instances.register(instance("f1"))
    client = await serve()
    monkeypatch.setattr(store.instances, "registered", instances)
    for _ in range(3):
        assert await readiness(client) == (503, "not ready: the store does not answer\n")
    assert len(asked) == 1, "they share one look"
    answer.set()
    assert await asyncio.to_thread(looked.wait, 60)
    monkeypatch.undo()
    assert await readiness(client) == (200, "ok\n")


async def test_one_fresh_front_is_enough(serve: Serve, store: Store) -> None:
    store.instances.register(instance("f1"))
    store.instances.register(instance("f2"))
    grow_old(store, "f1", by_s=STALE_AFTER_S + 5)
    client = await serve()
    assert await readiness(client) == (200, "ok\n")


async def test_a_further_condition_is_asked(serve: Serve, store: Store) -> None:
    answers = ["the volume is full", None]

    async def is_ready() -> str | None:
        return answers.pop(0)

    store.instances.register(instance("f1"))
    client = await serve(is_ready=is_ready)
    assert await readiness(client) == (503, "not ready: the volume is full\n")
    assert await readiness(client) == (200, "ok\n")


async def test_a_store_that_does_not_answer_is_503_without_its_reason(
    serve: Serve, store: Store
) -> None:
    client = await serve()
    with store.database.write() as connection:
        connection.connection.exec_driver_sql("DROP TABLE recipient")
        connection.connection.exec_driver_sql("DROP TABLE message")
    answer = await client.get("/api/v1/messages")
    assert (answer.status_code, answer.text) == (503, "the store does not answer")


async def test_a_stop_lets_the_answer_under_way_finish(store: Store) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def is_ready() -> str | None:
        asked.set()
        await go_on.wait()
        return None

    store.instances.register(instance("f1"))
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    stop = asyncio.Event()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    app = create_app(store, Settings(mode="sandbox"), is_ready=is_ready)  # type: ignore[arg-type]
    async with plain_client(base_url=url) as client, asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve_web(app, listening, stop=stop))
        asking = tasks.create_task(client.get("/readyz"))
        await asked.wait()
        after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        stop.set()
        go_on.set()
        await serving
        assert (await asking).status_code == 200
    assert after == before
    assert listening.fileno() == -1


async def test_cancelling_closes_the_socket(store: Store) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(store, Settings(mode="sandbox"))  # type: ignore[arg-type]
    serving = asyncio.create_task(serve_web(app, listening, stop=asyncio.Event()))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with plain_client(base_url=url) as client:
        await client.get("/healthz")
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert listening.fileno() == -1
