"""What the guard holds, on the page of sources and by the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx2
import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import Source
from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.mail.state import DeliveryState
from relaygw.settings.model import Settings
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from relaygw.store.watch import Incident
from relaygw.web.gate.credentials import COOKIE, csrf_token, token_of
from tests.builders import accepted
from tests.integration.web.people import PASSWORDS, with_logins

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
HOSTILE = "<b>Buy #"
HELD = Selection(states=frozenset({DeliveryState.HELD}))


def token_for(client: httpx2.AsyncClient, name: str) -> str:
    """Return what the forms of somebody's pages have."""
    return csrf_token(token_of(client.cookies[COOKIE]), name)


@pytest.fixture
def spam(store: Store) -> MailClass:
    """A script that sends something new; one message waits."""
    found = MailClass.of(
        ("local", "", "", 33, "33:up.php"),
        sender_domain="shop.test",
        template=HOSTILE,
        stream="transactional",
    )
    now_ms = clock_ms()
    store.sources.count_mail([ClassCount(found, now_ms, now_ms, 40, 40)])
    mail = accepted(source=Source(uid=33, script="33:up.php"), subject="<b>Buy 1", at_ms=now_ms)
    store.intake.accept_batch([mail])
    alert = Incident(
        incident_id="1", rule="source_new", key=f"{found.source_id} 7", summary="<i>much</i>",
        remedy="relaygw guard hold", since_ms=now_ms,
    )  # fmt: skip
    store.watch.open_incident(alert)
    return found


async def test_what_is_suspect_is_held_and_released_on_the_page(
    serve: Serve, store: Store, spam: MailClass
) -> None:
    client = await serve(with_logins())
    await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
    page = (await client.get("/sources")).text
    assert "&lt;i&gt;much&lt;/i&gt;" in page and "<button aria-label=" not in page
    form = {"id": spam.source_id, "action": "hold"}
    refused = await client.post("/guard/change", data={**form, "csrf": token_for(client, "vera")})
    assert refused.status_code == 403, "a viewer only looks"
    await client.post("/login", data={"name": "otto", "password": PASSWORDS["otto"]})
    page = (await client.get("/sources")).text
    assert "Hold new mail of this source" in page
    token = token_for(client, "otto")
    done = await client.post("/guard/change", data={**form, "csrf": token}, follow_redirects=True)
    assert "1 message that waited, too" in done.text and "Release local uid 33" in done.text
    assert len(store.queue.search(HELD, limit=9)) == 1
    for action, words in (("release", "1 message due now"), ("allow", "may send more"),
                          ("forget", "judged as others")):  # fmt: skip
        data = {"id": spam.source_id, "action": action, "csrf": token}
        done = await client.post("/guard/change", data=data, follow_redirects=True)
        assert words in done.text, action
    for wrong, status in (({"action": "x"}, 400), ({"id": "\0"}, 404)):
        data = {**form, **wrong, "csrf": token}
        assert (await client.post("/guard/change", data=data)).status_code == status
    assert (await client.post("/guard/change", data=form)).status_code == 403, "without its token"


async def test_the_same_by_the_api(serve: Serve, store: Store, spam: MailClass) -> None:
    client = await serve()
    api, one = "/api/gateway/v1/guard", f"/api/gateway/v1/guard/{spam.class_id}"
    assert (await client.get(api)).json() == {"entries": []}
    held = await client.post(f"{one}/hold", json={"note": "broken into"})
    assert (held.status_code, held.json()["held"]) == (200, 1)
    (entry,) = (await client.get(api)).json()["entries"]
    assert (entry["id"], entry["action"], entry["held"]) == (spam.class_id, "hold", 1)
    assert (await client.post(f"{one}/release", json={})).json()["released"] == 1
    allowed = await client.post(f"{one}/allow", json={"per_hour": "90"})
    assert allowed.json()["per_hour"] == 90
    for verb, body in (
        ("allow", {"per_hour": "0"}),
        ("allow", {"per_hour": "x"}),
        ("hold", {"a": 1}),
    ):
        assert (await client.post(f"{one}/{verb}", json=body)).status_code == 400, body
    assert (await client.post(f"{api}/0123/hold", json={})).status_code == 404


async def test_nothing_is_held_where_nothing_is_counted(
    serve: Serve, store: Store, spam: MailClass
) -> None:
    client = await serve(
        Settings.model_validate(
            {
                **{"mode": "sandbox", "guard": {"action": "off"}, "silence": {"enabled": False}},
                "storms": {"action": "off"},
            }
        )
    )
    held = await client.post(f"/api/gateway/v1/guard/{spam.class_id}/hold", json={})
    assert (held.status_code, "set guard.action" in held.text) == (404, True)
    assert store.guard.guard_entries() == []
