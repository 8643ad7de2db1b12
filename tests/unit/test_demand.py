"""Where the web role runs on demand, and when it ends there."""

from __future__ import annotations

import asyncio
import io
import os
import select
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse

from relaygw.roles import demand
from relaygw.roles.children import Child, Restarts
from relaygw.roles.demand import Attendance, Demand, is_on_demand
from relaygw.roles.process import ROLES, RoleContext
from relaygw.roles.sockets import ListeningSockets
from relaygw.roles.web import web
from relaygw.settings.load import LoadedSettings, load_settings
from relaygw.settings.model import Settings
from relaygw.web.server import serve_web
from tests.builders import Clock
from tests.fakes.event_receiver import SECRET
from tests.logs import text_log
from tests.queues import make_queue


@pytest.mark.parametrize(
    ("sections", "roles", "answer"),
    [
        ({}, ROLES, True),
        ({"web": {"bind": "[::1]:8025"}}, ROLES, True),
        ({"web": {"bind": "0.0.0.0:8025", "open": True}}, ROLES, False),
        ({"metrics": {"bind": "127.0.0.1:9100"}}, ROLES, False),
        ({"webhooks": [{"url": "https://x.test/", "secret": f"plain:{SECRET}"}]}, ROLES, False),
        ({"bounces": {"inbound": "bounces@x.test"}}, ROLES, False),
        ({"queue": {"url": "postgresql://127.0.0.1/relaygw"}}, ROLES, False),
        ({}, ("front", "web"), False),
        ({}, ("delivery", "web"), False),
        ({}, ("web",), False),
    ],
)
def test_it_is_on_demand_where_nobody_is_expected_to_ask_all_the_time(
    sections: dict[str, Any], roles: tuple[str, ...], answer: bool
) -> None:
    settings = Settings.model_validate({"mode": "sandbox", **sections})
    assert is_on_demand(roles, settings) is answer


def is_wanted(wanted: Demand) -> bool:
    return bool(select.select([wanted], [], [], 0)[0])


def test_whoever_wants_it_wakes_the_supervisor_until_it_has_looked() -> None:
    wanted = Demand()
    wanted.meet()
    assert not is_wanted(wanted)
    wanted.want()
    wanted.want()
    assert is_wanted(wanted)
    wanted.meet()
    assert not is_wanted(wanted)


class WebRole:
    """A web role of this process, on demand or not."""

    def __init__(self, directory: Path, *, is_on_demand: bool) -> None:
        self.output = io.StringIO()
        loaded = load_settings(config=None, environ=_environment(directory))
        make_queue(loaded.settings.queue.url)
        sockets = ListeningSockets(("web",))
        sockets.open(loaded.settings)
        self.sockets = sockets.keep_only("web", loaded.settings)
        self.port = self.sockets[0].getsockname()[1]
        lifeline, self.alive = os.pipe()
        self.context = _context(self, loaded, lifeline, is_on_demand)

    def end(self) -> None:
        os.close(self.alive)


def _environment(directory: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(directory), "RELAYGW__WEB__BIND": "127.0.0.1:0"}


def _context(
    role: WebRole, loaded: LoadedSettings, lifeline: int, is_on_demand: bool
) -> RoleContext:
    return RoleContext(
        loaded=loaded,
        lifeline=lifeline,
        log=text_log(role.output),
        sockets=role.sockets,
        demand=Demand() if is_on_demand else None,
    )


async def test_it_ends_when_nobody_has_wanted_it_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "IDLE_S", 1.2)  # it looks each second who is there
    role = WebRole(tmp_path, is_on_demand=True)
    assert await web(role.context) == 0
    assert "web ends: nobody has asked" in role.output.getvalue()


async def test_it_stays_where_it_runs_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "IDLE_S", 0.0)
    role = WebRole(tmp_path, is_on_demand=False)
    running = asyncio.create_task(web(role.context))
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{role.port}/healthz", timeout=60)
    assert answer.text == "ok\n"
    assert not running.done()
    role.end()
    assert await running == 0
    assert "web ends" not in role.output.getvalue()


async def test_it_ends_at_once_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(demand, "time", clock)
    attendance, stop = Attendance(), asyncio.Event()
    ending = asyncio.create_task(attendance.end(stop))
    stop.set()
    assert await ending is False
    clock.now_s += demand.IDLE_S
    assert await attendance.end(asyncio.Event()) is True


@pytest.mark.parametrize("is_held", [True, False])
async def test_visitors_are_noticed(is_held: bool) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    host, port = listening.getsockname()
    stop, visited = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("x")(scope, receive, send)

    serving = asyncio.create_task(serve_web(app, listening, stop=stop, visited=visited.set))
    reader, writer = await asyncio.open_connection(host, port)
    if is_held:  # one who has asked nothing yet, and is there for longer
        for _ in range(2):
            await visited.wait()
            visited.clear()
    else:  # one who is gone before anybody looks
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert await reader.read()
        assert visited.is_set()
    writer.close()
    stop.set()
    await serving


def test_who_fails_again_and_again_starts_ever_later() -> None:
    restarts, now_s = Restarts(), 1000.0
    pauses_s = []
    for _ in range(8):
        child = Child("web", 11, 1, now_s, slot=0)
        pauses_s.append(restarts.plan(child, now_s))
        assert restarts.is_planned("web")
        assert restarts.take(now_s + pauses_s[-1] - 0.01) == []
        assert restarts.next_s == now_s + pauses_s[-1]
        assert restarts.take(now_s + pauses_s[-1]) == [child]
    assert pauses_s == [0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 10.0, 10.0]
    assert restarts.plan(Child("web", 11, 1, now_s, slot=0), now_s + 30) == 0.0
    restarts.clear()
    assert restarts.next_s == float("inf")
