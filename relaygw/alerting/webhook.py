"""Posts notices to a URL: `{"text": …}` as Slack and its like take it, or all fields.

The URL may be a secret: only its scheme and host are ever told. Redirects are not followed,
for one could lead the notice elsewhere; certificates are verified by the system's authorities.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from relaygw.alerting.notifier import Notice, NotSent
from relaygw.errors import SettingsError
from relaygw.settings.secrets import SecretUrl

LIMIT_S = 10.0
_SLACK_HOSTS = ("hooks.slack.com", ".slack.com", "hooks.slack-gov.com")


class Webhook:
    """One URL."""

    def __init__(self, url: SecretUrl, *, shape: str = "auto", limit_s: float = LIMIT_S) -> None:
        self._url = url
        self._shape = shape
        self._limit_s = limit_s

    async def send(self, notice: Notice) -> str:
        """Post a notice; any answer from 200 to 299 takes it."""
        try:
            url = await asyncio.to_thread(self._url.read)
        except SettingsError as error:
            raise NotSent(str(error)) from None
        host = urlsplit(url).netloc.rpartition("@")[2]
        try:
            async with asyncio.timeout(self._limit_s):
                status = await _post(url, self._body(notice, host))
        except TimeoutError:
            raise NotSent(f"{host} gave no answer within {self._limit_s:g} s") from None
        if not 200 <= status < 300:
            raise NotSent(f"{host} answered {status}")
        return f"{host} answered {status}"

    def _body(self, notice: Notice, host: str) -> dict[str, Any]:
        is_slack = self._shape == "slack" or (
            self._shape == "auto" and host.partition(":")[0].lower().endswith(_SLACK_HOSTS)
        )
        return {"text": _for_slack(notice.text)} if is_slack else notice.as_json()


def _for_slack(text: str) -> str:
    """Escape the three characters by which Slack knows links and mentions, as it asks for.

    A provider's reply stands in the text: it must neither call a channel nor hide a link.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


async def _post(url: str, body: dict[str, Any]) -> int:
    """Return the status of the answer; what it says is not read. Raises NotSent."""
    import httpx2  # costs those who need it

    context = await asyncio.to_thread(ssl.create_default_context)
    try:
        async with (
            httpx2.AsyncClient(verify=context, timeout=None, follow_redirects=False) as client,
            client.stream("POST", url, json=body) as response,
        ):
            return int(response.status_code)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        host = urlsplit(url).netloc.rpartition("@")[2]
        raise NotSent(f"{host} cannot be asked ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """Return what happened by what the system said, since a library may tell the URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate not verified: {cause.verify_message}"
        if isinstance(cause, socket.gaierror):
            return cause.strerror or "its name is not known"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
