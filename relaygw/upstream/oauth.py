"""Access tokens for XOAUTH2: fetched from the token endpoint, kept until shortly before their end.

Over verified TLS, without proxies or redirects, for either would carry the secrets elsewhere. What
the endpoint says reaches nobody but its error code. RFC 6749 sections 4.4, 5, 6.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

from relaygw.mail.outcome import SmtpReply, Stage
from relaygw.settings.provider import Oauth
from relaygw.upstream.failure import UpstreamError

_LIMIT_S = 15.0  # for the whole exchange, a connection that is waiting among others included
_MAX_ANSWER_BYTES = 65536
_USUAL_LIFE_S = 300.0  # of a token whose end is not told
_TOKEN = re.compile(r"[!-~]{1,16384}")
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
_Answer = tuple[int, bytes]  # status and body
_PASSING_ERRORS = frozenset({"temporarily_unavailable", "server_error", "slow_down"})


class TokenSource:
    """The access token of one provider; one caller at a time."""

    def __init__(self, oauth: Oauth) -> None:
        self._oauth = oauth
        self._token: str | None = None
        self._key: tuple[str, ...] = ()  # what it was given for
        self._ends_at_s = 0.0  # time.monotonic

    async def token(self, client_id: str, secrets: Sequence[str]) -> tuple[str, bool]:
        """Return a token and whether it is one from before.

        `secrets`: client secret and refresh token, as configured. Raises UpstreamError: with a
        reply when the endpoint refuses, else it is to be asked again.
        """
        key = (client_id, *secrets)
        if self._token is not None and key == self._key and time.monotonic() < self._ends_at_s:
            return self._token, True
        asked_at_s = time.monotonic()
        token, life_s = self._read(*await self._ask(self._form(client_id, secrets)))
        self._token, self._key = token, key
        # a tenth of its life, five minutes at most, is spared for clocks and for slow openings
        self._ends_at_s = asked_at_s + life_s - min(life_s / 10, 300.0)
        return token, False

    def forget(self, token: str) -> None:
        """Drop a token that was refused."""
        if token == self._token:
            self._token = None

    def _form(self, client_id: str, secrets: Sequence[str]) -> bytes:
        oauth = self._oauth
        left = list(secrets)
        fields = {"client_id": client_id}
        if oauth.client_secret is not None:
            fields["client_secret"] = left.pop(0)
        if oauth.refresh_token is not None:
            fields |= {"grant_type": "refresh_token", "refresh_token": left.pop(0)}
        else:
            fields["grant_type"] = "client_credentials"
        if oauth.scope is not None:
            fields["scope"] = oauth.scope
        return urlencode(fields).encode()

    async def _ask(self, form: bytes) -> _Answer:
        exchange = _Exchange(self._oauth.token_url, form)
        asking = asyncio.create_task(asyncio.to_thread(exchange.run))
        try:
            async with asyncio.timeout(_LIMIT_S):
                return await asyncio.shield(asking)
        except TimeoutError as error:
            raise self._trouble(f"did not answer within {_LIMIT_S:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._trouble(f"cannot be reached ({_reason(error)})") from error
        finally:
            if not asking.done():
                exchange.abort()  # ends the thread
                asking.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _read(self, status: int, body: bytes) -> tuple[str, float]:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):  # a text that is no UTF-8 is a ValueError, too
            found = None
        fields: dict[str, Any] = found if isinstance(found, dict) else {}
        if status != 200:
            raise self._refusal(status, fields.get("error"))
        token, kind = fields.get("access_token"), fields.get("token_type", "Bearer")
        is_bearer = isinstance(kind, str) and kind.lower() == "bearer"
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or not is_bearer:
            raise self._trouble("answered 200 and gave no bearer token")
        try:
            life_s = float(fields.get("expires_in", _USUAL_LIFE_S))
        except (TypeError, ValueError, OverflowError):
            life_s = _USUAL_LIFE_S
        return token, min(max(life_s, 0.0), 86400.0)

    def _refusal(self, status: int, code: object) -> UpstreamError:
        is_code = isinstance(code, str) and _ERROR_CODE.fullmatch(code) is not None
        if not is_code or code in _PASSING_ERRORS or status not in (400, 401, 403):
            return self._trouble(f"answered {status}" + (f" {code}" if is_code else ""))
        # as if the provider had refused AUTH: the same people have to do the same things
        reply = SmtpReply(535, (f"5.7.8 {self._name} refused an access token: {code}",))
        return UpstreamError(Stage.AUTH, reply=reply, detail=reply.text)

    def _trouble(self, what: str) -> UpstreamError:
        return UpstreamError(Stage.AUTH, detail=f"the token endpoint {self._name} {what}")

    @property
    def _name(self) -> str:
        return urlsplit(self._oauth.token_url).netloc


class _Exchange:
    """One request, in a thread; `abort` ends it from another."""

    def __init__(self, url: str, form: bytes) -> None:
        self._url = urlsplit(url)
        self._form = form
        self._connection: http.client.HTTPConnection | None = None
        self._is_aborted = False

    def run(self) -> _Answer:
        host, port = self._url.hostname or "", self._url.port
        opened: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
        if self._url.scheme == "https":
            opened = partial(http.client.HTTPSConnection, context=ssl.create_default_context())
        self._connection = connection = opened(host, port, timeout=_LIMIT_S)
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        kind = "application/x-www-form-urlencoded"
        headers = {"Content-Type": kind, "Accept": "application/json"}
        try:
            connection.connect()
            if self._is_aborted:
                raise TimeoutError
            connection.request("POST", path, self._form, headers)
            response = connection.getresponse()
            return response.status, response.read(_MAX_ANSWER_BYTES)
        finally:
            connection.close()

    def abort(self) -> None:
        """Have `run` fail at once."""
        self._is_aborted = True
        sock = self._connection.sock if self._connection is not None else None
        if isinstance(sock, socket.socket):
            with suppress(OSError):
                # on TLS, too, this is the plain socket's: nothing is said, a reader wakes up
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    """Return what happened without anything that the endpoint said."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not verified: {error.verify_message}"
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or type(error).__name__
