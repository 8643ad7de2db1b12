"""The verbs of operators through their three doors: a command, an endpoint, a form."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.store import hints
from relaygw.store.store import Store
from tests.integration.cli.conftest import Desk
from tests.integration.web.conftest import running
from tests.integration.web.people import PASSWORDS, TOKENS
from tests.integration.web.queued import gateway

API = "/api/gateway/v1"
BEARER = {"Authorization": f"Bearer {TOKENS['tests']}"}
NOTE, QUEUE_ID, CLASS_ID = "NOTE", "QUEUE_ID", "CLASS_ID"  # replaced by what a test has
ANN = "ann@cust.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A verb that takes a note, at each door, and the notes that are kept then."""

    command: tuple[str, ...]
    endpoint: tuple[str, dict[str, Any]]
    form: tuple[str, dict[str, str]]
    kept: Callable[[Store], list[str]]


NOTED = {
    "suppress": Noted(
        command=("suppress", "add", ANN, "--note", NOTE),
        endpoint=("/suppressions/add", {"addresses": [ANN], "note": NOTE}),
        form=("/suppression/change", {"action": "add", "addresses": ANN, "note": NOTE}),
        kept=lambda store: [one.detail for one in store.suppressions.suppressed(limit=9)],
    ),
    "guard": Noted(
        command=("guard", "hold", CLASS_ID, "--reason", NOTE),
        endpoint=(f"/guard/{CLASS_ID}/hold", {"note": NOTE}),
        form=("/guard/change", {"action": "hold", "id": CLASS_ID, "note": NOTE}),
        kept=lambda store: [one.reason for one in store.guard.guard_entries()],
    ),
    "provider": Noted(
        command=("provider", "hold", "main", "--reason", NOTE),
        endpoint=("/providers/main/hold", {"note": NOTE}),
        form=(
            "/providers/change",
            {"action": "hold", "provider": "main", "confirmed": "1", "note": NOTE},
        ),
        kept=lambda store: [
            one.reason.removeprefix("operator: ") for one in store.holds.in_force()
        ],
    ),
    "standing hold": Noted(
        command=("hold", "add", "--sender", "x@shop.test", "--reason", NOTE),
        endpoint=("/holds", {"sender": "x@shop.test", "reason": NOTE}),
        form=(
            "/holds/change",
            {"action": "add", "scope": "sender", "value": "x@shop.test", "reason": NOTE},
        ),
        kept=lambda store: [one.reason for one in store.holds.standing()],
    ),
    "queued mail": Noted(
        command=("queue", "hold", "--all", "--yes", "--note", NOTE),
        endpoint=("/queue/hold", {"all": True, "note": NOTE}),
        form=(
            "/queue/change",
            {"action": "hold", "tick": QUEUE_ID, "confirmed": "1", "note": NOTE},
        ),
        kept=lambda store: [
            cause.sentence.removeprefix("operator: ") for cause in store.holds.held_causes()
        ],
    ),
}


class Doors:
    """A queue with its three doors: the command line, the API and the pages."""

    def __init__(
        self,
        desk: Desk,
        client: httpx2.AsyncClient,
        names: Mapping[str, str],
        worker: socket.socket,
        wakes: list[str],
    ) -> None:
        self.store = desk.store
        self._desk, self._client, self._names = desk, client, names
        self._worker, self._wakes = worker, wakes

    def are_workers_woken(self) -> bool:
        """True if a worker was told to look since the last call."""
        with suppress(BlockingIOError):
            self._worker.recv(16)
            self._wakes.append("command")
        is_woken = bool(self._wakes)
        self._wakes.clear()
        return is_woken

    async def answer(self, door: str, case: Noted, note: str) -> tuple[bool, str]:
        """Return whether a door took it, and what it said."""
        names = {**self._names, NOTE: note}

        def named(text: Any) -> Any:
            for name, value in names.items():
                text = text.replace(name, value) if isinstance(text, str) else text
            return text

        if door == "command":
            result = self._desk.run(*map(named, case.command), columns=500)
            return result.exit_code == 0, result.output
        path, fields = case.endpoint if door == "endpoint" else case.form
        sent = {name: named(value) for name, value in fields.items()}
        if door == "endpoint":
            answer = await self._client.post(API + named(path), json=sent, headers=BEARER)
        else:
            await self._client.post("/login", data={"name": "otto", "password": PASSWORDS["otto"]})
            page = (await self._client.get("/suppression")).text
            csrf = re.search(r'name="csrf" value="([^"]+)"', page)
            assert csrf
            answer = await self._client.post(path, data={"csrf": csrf[1], **sent})
        return answer.status_code in (200, 303), answer.text


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    desk = Desk(tmp_path)
    desk.config.write_text(desk.config.read_text() + "guard: {action: alert}\n")
    mail_class = MailClass.of(
        ("h", "", "", 33, "x.php"), sender_domain="", template="t", stream="transactional"
    )
    now_ms = clock_ms()
    desk.store.sources.count_mail([ClassCount(mail_class, now_ms, now_ms, 1, 1)])
    names = {QUEUE_ID: desk.add(), CLASS_ID: mail_class.class_id}
    wakes: list[str] = []
    hints_at = hints.hint_directory(tmp_path / "state")
    async with running(desk.store, gateway(), wake_workers=lambda: wakes.append("web")) as client:
        worker = hints.open_hint_socket(hints_at, "w1")
        assert worker is not None
        with worker:
            yield Doors(desk, client, names, worker, wakes)
    desk.store.close()


@pytest.mark.parametrize("door", ["command", "endpoint", "form"])
@pytest.mark.parametrize("verb", NOTED)
async def test_a_note_has_one_limit_and_what_is_done_wakes_workers(
    doors: Doors, verb: str, door: str
) -> None:
    case = NOTED[verb]
    is_taken, said = await doors.answer(door, case, "x" * 301)
    assert not is_taken
    assert "has 301 characters, more than 300" in said
    assert case.kept(doors.store) == []
    assert not doors.are_workers_woken()
    is_taken, said = await doors.answer(door, case, f"a  {'x' * 297}")
    assert is_taken, said
    assert case.kept(doors.store) == [f"a {'x' * 297}"]
    assert doors.are_workers_woken()
