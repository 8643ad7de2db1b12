"""A reload is the end of what was let in before: who was removed is out, a lower role counts."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import httpx2

from tests.e2e.gateway import PATIENCE_S, Gateway
from tests.e2e.ports import fixed_binds
from tests.integration.web.people import PASSWORDS, USERS

EVENTS = "/sandbox/events"


def test_streams_end_when_a_user_is_removed_or_gets_a_lower_role(tmp_path: Path) -> None:
    users, binds = [dict(one) for one in USERS], fixed_binds()
    binds["web"]["users"] = users
    with Gateway(tmp_path, mode="sandbox", **binds) as gateway, ExitStack() as stack:
        people = {}
        for name, password in PASSWORDS.items():
            base = f"http://127.0.0.1:{gateway.web_port}"
            people[name] = stack.enter_context(httpx2.Client(base_url=base, timeout=PATIENCE_S))
            people[name].post("/login", data={"name": name, "password": password})
        streams = [
            stack.enter_context(one.stream("GET", EVENTS)).iter_lines() for one in people.values()
        ]
        assert [next(one) for one in streams] == ["retry: 1000"] * 3
        users.pop(0)  # vera
        users[0]["role"] = "viewer"  # otto
        gateway.wait_for_log("reloaded", start=gateway.reload())
        for one in streams:
            assert "event: change" in list(one)  # to its end
        vera, otto, _ = people.values()
        for name, status in {"vera": 401, "otto": 200, "anna": 200}.items():
            headers = {"Accept": "text/event-stream"}
            with people[name].stream("GET", EVENTS, headers=headers) as answer:
                assert (name, answer.status_code) == (name, status)
        assert vera.get("/sandbox").status_code == 303
        page = otto.get("/sandbox").text
        assert "otto has the role viewer" in page
        token = re.search(r'name="csrf" value="([^"]+)"', page)
        assert token is not None
        assert otto.post("/sandbox/bulk", data={"csrf": token[1]}).status_code == 403
