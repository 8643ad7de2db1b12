"""A browser, and a sandbox to look at with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relaygw.store.audit import AuditEntry
from tests.e2e.browser.browsing import Chromium, Visit, chromium
from tests.e2e.gateway import Gateway


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("sandbox"), mode="sandbox") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def base(sandbox: Gateway) -> str:
    return f"http://127.0.0.1:{sandbox.web_port}"


@pytest.fixture(scope="module")
def visitor(browser: Chromium, base: str) -> Iterator[Visit]:
    with browser.visit(base) as opened:
        yield opened


@pytest.fixture
def visit(visitor: Visit) -> Iterator[Visit]:
    """Return a page that others have left; for what sets a context up, `browser.visit`."""
    yield visitor
    visitor.leave()


@pytest.fixture(autouse=True)
def _is_empty(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let each test that has a sandbox begin with an empty one."""
    if "sandbox" not in request.fixturenames:
        yield
        return
    sandbox: Gateway = request.getfixturevalue("sandbox")
    yield
    entry = AuditEntry(at_ms=1, actor="test", action="x", target="", affected=0, detail="")
    sandbox.store.sandbox.delete_captured(None, entry=entry)
