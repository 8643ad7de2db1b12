"""Hands notices to the package apprise, which knows a hundred services.

It runs in a process of its own: a service that hangs can be ended that way, its memory is not
this process's, and the URL, which holds keys, goes to it by a pipe. The package is an extra:
`pip install relaygw[apprise]`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys

from relaygw.alerting.apprise_child import MISSING, NO_URL
from relaygw.alerting.command import environment, run_limited
from relaygw.alerting.notifier import Notice, NotSent
from relaygw.errors import SettingsError
from relaygw.settings.secrets import SecretRef

LIMIT_S = 30.0
NOT_INSTALLED = "the package apprise is not installed; pip install 'relaygw[apprise]'"
_MORE_VARIABLES = (
    "PYTHONPATH",
    "VIRTUAL_ENV",
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Where its packages are, how it gets out, and whom it believes."""
_CHILD = "relaygw.alerting.apprise_child"


def is_installed() -> bool:
    """True when the package is there."""
    return importlib.util.find_spec("apprise") is not None


class Apprise:
    """One URL of apprise's."""

    def __init__(self, url: SecretRef, *, limit_s: float = LIMIT_S) -> None:
        self._url = url
        self._limit_s = limit_s

    async def send(self, notice: Notice) -> str:
        """Have apprise send a notice."""
        try:
            url = await asyncio.to_thread(self._url.read)
        except SettingsError as error:
            raise NotSent(str(error)) from None
        kind = "success" if notice.is_over else "warning"
        given = {"url": url, "title": notice.title, "body": notice.text, "kind": kind}
        code = await run_limited(
            (sys.executable, "-P", "-m", _CHILD),
            given=json.dumps(given).encode(),
            environment=environment(*_MORE_VARIABLES),
            limit_s=self._limit_s,
            name="apprise",
        )
        if code == MISSING:
            raise NotSent(NOT_INSTALLED)
        if code == NO_URL:
            raise NotSent(f"{self._url}: apprise does not know this kind of URL")
        if code != 0:
            raise NotSent("apprise: the service did not take it")
        return "the service took it"
