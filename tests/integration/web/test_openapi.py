"""The description of the API against the API: its routes, and real answers against its schemas."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import jsonschema
import openapi_spec_validator
import pytest
from starlette.routing import Route

from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.store.holds import Hold
from relaygw.store.store import Store
from relaygw.store.watch import Incident
from relaygw.web.api.openapi import document
from relaygw.web.app import create_app
from tests.integration.web.conftest import sandbox
from tests.integration.web.queued import defer, deliver, gateway, now_ms, queue_mail
from tests.integration.web.test_gateway_api import API, client_of
from tests.integration.web.test_pages_queue import log_in

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


@functools.cache
def described() -> dict[str, Any]:
    return document("")


def operations() -> set[tuple[str, str]]:
    return {(method, path) for path, methods in described()["paths"].items() for method in methods}


def routes_of_the_api(store: Store) -> set[tuple[str, str]]:
    found = set()
    for route in create_app(store, sandbox()).routes:
        if not isinstance(route, Route) or not route.path.startswith(("/api/", "/view/")):
            continue
        path = re.sub(r"\{(\w+):path\}", r"{\1}", route.path)
        if path.startswith("/api/docs"):
            continue
        found |= {(method.lower(), path) for method in (route.methods or ()) if method != "HEAD"}
    return found


def answer_schema(method: str, path: str, status: int) -> dict[str, Any]:
    """Return the schema of an answer, with the components that it refers to."""
    responses = described()["paths"][path][method]["responses"]
    return {
        **responses[str(status)]["content"]["application/json"]["schema"],
        "components": described()["components"],
    }


def check(method: str, path: str, answer: httpx2.Response) -> None:
    """Raise if an answer is not as the document says."""
    schema = answer_schema(method, path, answer.status_code)
    validator = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(answer.json())


def test_it_is_openapi() -> None:
    openapi_spec_validator.validate(described())


def test_it_describes_every_route_and_nothing_else(store: Store) -> None:
    assert operations() == routes_of_the_api(store)


async def test_answers_are_as_it_says(serve: Serve, store: Store) -> None:
    now = now_ms()
    queue_mail(store, "delivered", "ann@cust.test", "bob@cust.test")
    deliver(store)
    ids = [queue_mail(store, str(number)) for number in range(3)]
    defer(store)
    store.limits.lower_rate("main", per_s=4.0, guard_s=1)
    store.limits.lower_connections("main", own=1, incarnation="x", guard_s=1)
    store.holds.put_hold(
        Hold(scope="credential", key="spare", reason="535", remedy="r", since_ms=now, probe_at_ms=9)
    )
    store.watch.add_history(now, {("delivered", "main"): 4, ("refused", "554 5.7.1"): 1})
    store.watch.open_incident(
        Incident(incident_id="i", rule="queue_age", key="", summary="s", remedy="r", since_ms=now)
    )
    client = await client_of(serve)
    seen: set[tuple[str, str]] = set()

    async def get(path: str, asked: str = "", status: int = 200) -> None:
        answer = await client.get(API + (asked or path))
        assert answer.status_code == status
        check("get", API + path, answer)
        seen.add(("get", API + path))

    async def post(path: str, body: dict[str, Any], asked: str = "") -> None:
        answer = await client.post(API + (asked or path), json=body)
        assert answer.status_code == 200, answer.text
        check("post", API + path, answer)
        seen.add(("post", API + path))

    await get("/queue", "/queue?state=all")
    await get("/queue/{queue_id}", f"/queue/{ids[0]}")
    await get("/queue/{queue_id}/explain", f"/queue/{ids[0]}/explain")
    await get("/queue/{queue_id}", "/queue/NOSUCHMAIL0", 404)
    await get("/queue", "/queue?state=x", 400)
    await get("/find", "/find?q=ann&limit=1")
    await get("/find", "/find?q=after:x", 400)
    for path in ("/providers", "/status", "/incidents", "/history"):
        await get(path)
    await post("/queue/hold", {"ids": [*ids, "NOSUCHMAIL0"]})
    await post("/queue/release", {"all": True, "dry_run": True})
    await post("/queue/release", {"select": {"state": ["held", "deferred"], "older_than": "0s"}})
    await post("/queue/retry", {"all": True})
    await post("/queue/move", {"ids": ids, "provider": "spare", "force": True})
    await post("/queue/delete", {"ids": ids[:2]})
    await post("/queue/undelete", {"ids": ids[:1]})
    await post("/queue/expire", {"ids": ids[2:], "note": "old"})
    await get("/queue/{queue_id}/explain", f"/queue/{ids[2]}/explain")
    await post("/queue/resend", {"ids": ids, "dry_run": True})
    await post("/providers/{name}/hold", {"note": "x"}, "/providers/main/hold")
    await post("/providers/{name}/release", {}, "/providers/main/release")
    await post("/suppressions/add", {"addresses": ["Ann@x.test", "bob@x.test"]})
    await get("/suppressions", "/suppressions?limit=1&q=x.test")
    await get("/suppressions", "/suppressions?reason=x", 400)
    await post("/holds", {"recipient_domain": "gmx.test", "until": "2h"})
    await get("/holds")
    (standing,) = store.holds.standing()
    await post("/holds/{id}/end", {}, f"/holds/{standing.hold_id}/end")
    mail_class = MailClass.of(
        ("h", "", "", 33, "x.php"), sender_domain="", template="t", stream="transactional"
    )
    store.sources.count_mail([ClassCount(mail_class, now, now, 1, 1)])
    for asked in ("/sources", "/sources?by=uid&since=2h&limit=5"):
        await get("/sources", asked)
    await get("/sources", "/sources?by=x", 400)
    for verb in ("hold", "release", "allow", "hold"):
        await post(f"/guard/{{id}}/{verb}", {}, f"/guard/{mail_class.class_id}/{verb}")
    await get("/guard")
    await post("/suppressions/remove", {"addresses": ["ann@x.test", "eve@x.test"]})
    await get("/audit")
    for asked in ("/access", "/clients"):
        await get(asked, status=403)  # an operator's token
    await get("/wait", "/wait?to=nobody@x.test&timeout=0s", 408)
    described = {one for one in operations() if one[1].startswith(API)}
    assert seen == described


async def test_an_answer_that_is_not_so_is_seen(serve: Serve) -> None:
    client = await client_of(serve)
    answer = await client.get(f"{API}/status")
    with pytest.raises(jsonschema.ValidationError):
        check("get", f"{API}/incidents", answer)


async def test_the_document_is_served_below_a_path(serve: Serve) -> None:
    client = await serve(sandbox(base_path="/mail"))
    served = (await client.get("/mail/api/docs/openapi.json")).json()
    assert served["servers"] == [{"url": "/mail"}]
    assert served["paths"].keys() == described()["paths"].keys()


async def test_a_page_shows_all_of_it(serve: Serve) -> None:
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get("/api/docs")).text
    for path, methods in described()["paths"].items():
        for method, one in methods.items():
            assert f'id="{one["operationId"]}"' in page
            assert f"<code>{path}</code>" in page
            assert f">{method.upper()}<" in page
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page


async def test_the_page_is_for_those_who_log_in(serve: Serve) -> None:
    client = await serve(gateway())
    assert (await client.get("/api/docs")).headers["location"].endswith("/login?next=/api/docs")
    assert (await client.get("/api/docs/openapi.json")).status_code == 401
