"""Requests that the description of the APIs allows, and requests that it does not.

They are made from the document by schemathesis, always the same ones. In those that it allows half
of what is named is there. Each answer has to be one that the document names.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi.checks import JsonSchemaError, UndefinedStatusCode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi import checks

from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.store.store import Store
from relaygw.web.api.openapi import document
from relaygw.web.app import create_app
from relaygw.web.gate.access import MAX_BODY_BYTES
from tests.campaign import times
from tests.integration.web.conftest import Capture
from tests.integration.web.queued import defer, deliver, gateway, now_ms, queue_mail
from tests.plain_http import plain_client

EXAMPLES = times(2, campaign=100)
BASE = "http://127.0.0.1:8025"
GATEWAY = "/api/gateway/"
ADMIN, VIEWER = "token-of-an-admin-24-chars", "token-of-a-viewer-24-chars"
TOKENS = [
    {"name": "all", "token": f"plain:{ADMIN}", "role": "admin"},
    {"name": "look", "token": f"plain:{VIEWER}"},
]
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
MAIL = (
    b"From: Shop <shop@shop.test>\r\nTo: ann@cust.test\r\nSubject: Order 7\r\n"
    b"Content-Type: text/html\r\n\r\n<p>Your order</p>\r\n"
)


class Api:
    """The web role in this process, with mail of every kind in its queue."""

    def __init__(self, store: Store, capture: Capture) -> None:
        self.store, self._capture = store, capture
        app = create_app(store, gateway(tokens=TOKENS))
        self._client = plain_client(transport=httpx2.ASGITransport(app=app))
        self._runner = asyncio.Runner()
        self.known: dict[str, list[Any]] = {}

    def close(self) -> None:
        self._runner.close()

    def fill(self) -> None:
        """Add a message that waits, one that was delivered and one that was captured."""
        now, store = now_ms(), self.store
        delivered = queue_mail(store, "delivered")
        deliver(store)
        deferred = queue_mail(store, "deferred")
        defer(store)
        ids = [deferred, queue_mail(store, "new"), delivered, self._capture(MAIL)]
        store.sandbox.set_tags(ids[-1:], ["a-tag"])
        who = ("h", "", "", 33, "x.php")
        mail_class = MailClass.of(who, sender_domain="", template="t", stream="transactional")
        store.sources.count_mail([ClassCount(mail_class, now, now, 1, 1)])
        self.known = {
            "queue_id": [*ids, "latest"],
            "name": ["main"],
            "id": [mail_class.class_id],
            "tag": ["a-tag"],
            "part_id": ["1"],
            "ids": [ids],
            "IDs": [ids],
            "select": [{"subject": "e"}],
            "addresses": [["ann@cust.test"]],
            "provider": ["spare"],
            "q": ["ann"],
            "query": ["order", "is:unread"],
            "since": ["1h"],
            "To": [["ann@cust.test"], [{"Email": "ann@cust.test"}]],
            "From": [{"Email": "shop@shop.test", "Name": "Shop"}],
        }

    def version(self) -> int:
        """Return another number after each change of the database."""
        with self.store.database.read() as tx:
            found: int = tx.connection.exec_driver_sql("PRAGMA data_version").scalar_one()
            return found

    def ask(self, case: Case, authorization: str, *, length: int = -1) -> httpx2.Response:
        """Make the request of a case."""
        given = case.as_transport_kwargs(base_url=BASE)
        names = ("method", "url", "headers", "params", "json", "data", "files", "cookies")
        asked = requests.Request(**{one: given[one] for one in names if one in given}).prepare()
        headers = {**asked.headers, "Authorization": authorization}
        if length >= 0:
            headers["Content-Length"] = str(length)
        request = httpx2.Request(asked.method, asked.url, headers=headers, content=asked.body)
        return self._runner.run(self._send(request))

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        return await self._client.send(request)


@pytest.fixture
def api(store: Store, capture: Capture) -> Iterator[Api]:
    served = Api(store, capture)
    yield served
    served.close()


@functools.cache
def operations() -> list[APIOperation]:
    described = schemathesis.openapi.from_dict(document(""))
    return [one.ok() for one in described.get_all_operations()]


def is_mailpit(path: str) -> bool:
    return not path.startswith(GATEWAY)


def name_what_is_there(case: Case, known: dict[str, list[Any]], data: st.DataObject) -> None:
    """Replace half of what the request names by something that is there."""
    for part in (case.path_parameters, case.query, case.body):
        if not isinstance(part, dict):
            continue
        for name in [one for one in part if one in known]:
            if data.draw(st.booleans()):
                part[name] = data.draw(st.sampled_from(known[name]))
    choices = {"ids", "select", "all"}
    if isinstance(case.body, dict) and len(choices & case.body.keys()) > 1:  # more are refused
        kept = data.draw(st.sampled_from(sorted(choices & case.body.keys())))
        for name in choices - {kept}:
            case.body.pop(name, None)


def ask_at_once(case: Case) -> None:
    """Let a request that waits for mail not wait."""
    timeout = str(case.query.get("timeout", "1"))
    if case.operation.path.endswith("/wait") and re.match(r"\s*\d", timeout):
        case.query["timeout"] = "0s"


def check(case: Case, answer: httpx2.Response) -> None:
    case.validate_response(answer, checks=CHECKS)
    if answer.status_code < 400:
        return
    if is_mailpit(case.operation.path):
        assert answer.text.strip()
        return
    error = answer.json()["error"]
    assert error["what"]
    assert error["expected"] or answer.status_code != 400, error


def failures_of(api: Api, operation: APIOperation, mode: GenerationMode) -> Iterator[str]:
    """Yield why one of the requests of an operation is not answered as described."""
    if operation.method != "get" or not api.known:
        api.fill()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), st.data())
    def ask(case: Case, data: st.DataObject) -> None:
        if mode.is_positive:
            name_what_is_there(case, api.known, data)
        ask_at_once(case)
        check(case, api.ask(case, f"Bearer {ADMIN}"))

    try:
        ask()
    except (Exception, BaseExceptionGroup) as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        yield f"--- {mode.value} {operation.label}\n{type(error).__name__}: {error}\n{notes}"


@pytest.mark.campaign
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("which", ["mailpit", "gateway"])
def test_each_answer_is_one_that_is_described(api: Api, which: str, mode: GenerationMode) -> None:
    wanted = [one for one in operations() if is_mailpit(one.path) is (which == "mailpit")]
    found = [each for one in wanted for each in failures_of(api, one, mode)]
    if found:
        pytest.fail(f"{len(found)} operations\n" + "\n".join(found), pytrace=False)


def plain_case(operation: APIOperation, known: dict[str, list[Any]]) -> Case:
    """Return a request that names what is there."""
    names = [one.name for one in operation.path_parameters]
    case: Case = operation.Case(path_parameters={name: known[name][0] for name in names})
    if operation.method != "get":
        case.body, case.media_type = {"ids": known["ids"][0]}, "application/json"
    return case


def test_who_is_not_known_is_refused_everywhere(api: Api) -> None:
    api.fill()
    version = api.version()
    for operation in operations():
        case = plain_case(operation, api.known)
        for told in ("", f"Bearer {ADMIN}x", f"Bearer {VIEWER[:-1]}", "Bearer"):
            answer = api.ask(case, told)
            assert answer.status_code == 401, operation.label
            check(case, answer)
    assert api.version() == version


def test_a_body_that_is_too_large_is_refused_everywhere(api: Api) -> None:
    api.fill()
    for operation in operations():
        if operation.method == "get":
            continue
        case = plain_case(operation, api.known)
        answer = api.ask(case, f"Bearer {ADMIN}", length=MAX_BODY_BYTES + 1)
        assert answer.status_code == 413, operation.label
        check(case, answer)


def test_a_viewer_changes_nothing(api: Api) -> None:
    api.fill()
    for operation in operations():
        if operation.method == "get":
            continue
        version = api.version()
        case = plain_case(operation, api.known)
        answer = api.ask(case, f"Bearer {VIEWER}")
        assert answer.status_code == 403, operation.label
        check(case, answer)
        assert api.version() == version, operation.label


def test_an_answer_that_is_not_described_is_seen(api: Api) -> None:
    status, audit, message = (
        next(one for one in operations() if one.path == f"{GATEWAY}v1/{name}")
        for name in ("status", "audit", "queue/{queue_id}")
    )
    answer = api.ask(status.Case(), f"Bearer {ADMIN}")
    check(status.Case(), answer)
    with pytest.raises(FailureGroup) as caught:
        check(audit.Case(), answer)
    assert any(isinstance(one, JsonSchemaError) for one in caught.value.exceptions)
    missing = message.Case(path_parameters={"queue_id": "NOSUCHMAIL0"})
    answer = api.ask(missing, f"Bearer {ADMIN}")
    check(missing, answer)
    with pytest.raises(FailureGroup) as caught:
        check(status.Case(), answer)
    assert [type(one) for one in caught.value.exceptions] == [UndefinedStatusCode]
