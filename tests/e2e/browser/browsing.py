"""Debian's Chromium, and everything that leaves it.

The headless shell is Chromium without windows: the same engine, network and rules at a third of
the work. What a browser does on its own account ahead of a page is for a whole one.

Names as the mail of the tests has them lead to a socket of the test, so that whatever a page
connects to is seen, ahead of time too, even if no request event tells of it. All others lead
nowhere: what the browser asks for on its own account is no matter here.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    BrowserType,
    Page,
    ViewportSize,
    sync_playwright,
)

SIZE: ViewportSize = {"width": 1280, "height": 860}
CHROMIUM = "/usr/bin/chromium"
_SHELL = "/usr/bin/chromium-headless-shell"
JS_FLAGS = "--js-flags=--no-opt,--no-maglev"
"""No page of the tests lives long enough to gain by code that is compiled to be fast."""
_RULES = "MAP *.test 127.0.0.1:{port}, MAP *.example 127.0.0.1:{port}, MAP * ~NOTFOUND"


class Canary:
    """Where names of mail lead; counts who comes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.visitors = 0
        self._is_visited = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    def _count(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            with visitor:
                self.visitors += 1
                self._is_visited.set()

    def wait_for_visitor(self) -> None:
        """Return once somebody has come."""
        assert self._is_visited.wait(30), "nobody came"

    def close(self) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@dataclass(eq=False)
class Visit:
    """One browser context, and what happened in it."""

    context: BrowserContext
    page: Page
    base: str
    requests: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)  # scripts that failed or were stopped
    dialogs: list[str] = field(default_factory=list)

    def outside(self) -> list[str]:
        """Return the requests for anything but the gateway's pages."""
        own = urlsplit(self.base).netloc
        return [
            url
            for url in self.requests
            if urlsplit(url).scheme not in ("data", "about", "blob") and urlsplit(url).netloc != own
        ]

    def go(self, path: str) -> None:
        """Open a page of the gateway."""
        noted = len(self.trouble)
        self.page.goto(self.base + path)
        # a request of the page before that was cut by leaving it is no trouble
        self.trouble[noted:] = [one for one in self.trouble[noted:] if not one.startswith("htmx:")]

    def leave(self) -> None:
        """Leave the pages, and forget what was kept and noted of them."""
        # its page and the next one are of one process, which nothing but their origin would keep
        self.page.goto(f"{self.base}/healthz")
        self.page.set_viewport_size(SIZE)
        self.context.clear_cookies()
        for noted in (self.requests, self.trouble, self.dialogs):
            noted.clear()


@dataclass(eq=False)
class Chromium:
    """A running browser."""

    browser: Browser
    canary: Canary

    @contextmanager
    def visit(self, base: str, **options: Any) -> Iterator[Visit]:
        """Yield a page with a memory of its own."""
        context = self.browser.new_context(**{"viewport": SIZE} | options)
        try:
            visit = Visit(context, context.new_page(), base)
            context.on("request", lambda request: visit.requests.append(request.url))
            context.on("dialog", lambda dialog: (visit.dialogs.append(dialog.message),
                                                 dialog.dismiss()))  # fmt: skip
            context.on("weberror", lambda error: visit.trouble.append(str(error.error)))
            context.on(
                "console",
                lambda message: (
                    visit.trouble.append(message.text) if message.type == "error" else None
                ),
            )
            yield visit
        finally:
            context.close()


def press(page: Page, *keys: str) -> None:
    """Press keys one after the other, once the scripts of the page that is shown have run."""
    page.wait_for_load_state()
    for key in keys:
        page.keyboard.press(key)


def cheapest() -> str:
    """Return the program that pages are looked at with, where nothing is about the browser."""
    return _SHELL if Path(_SHELL).exists() else CHROMIUM


@contextmanager
def launched(kind: BrowserType, program: str) -> Iterator[Chromium]:
    """Run this program for the length of a with block, by the driver that `kind` is of."""
    canary = Canary()
    rules = f"{_RULES.format(port=canary.port)}, EXCLUDE 127.0.0.1"
    try:
        browser = kind.launch(
            executable_path=program,
            args=["--no-sandbox", JS_FLAGS, f"--host-resolver-rules={rules}"],
        )
        try:
            yield Chromium(browser, canary)
        finally:
            browser.close()
    finally:
        canary.close()


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Run a browser for the length of a with block."""
    with (
        sync_playwright() as playwright,
        launched(playwright.chromium, cheapest()) as running,
    ):
        yield running
