"""What one provider is logged in to with: read when it is needed, kept where reading is costly.

Access tokens for XOAUTH2 are fetched from the token endpoint, and kept until shortly before
their end.

A `command:` secret is kept until it is refused, other forms are read anew for each connection, so a
changed file works at once. Nothing here is logged, and no repr shows a secret.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, quote_plus, urlencode, urlsplit

from relaygw.errors import SettingsError
from relaygw.http_request import Answer, Unanswered, post_directly
from relaygw.mail.outcome import Stage
from relaygw.mail.reply import SmtpReply
from relaygw.settings.provider import Oauth, Provider
from relaygw.settings.secrets import SecretRef, parse_user_name
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.protocol import clean_text

_Places = tuple[SecretRef | str, ...]
_LOOK_EACH_S = 5.0
_LOOK_BY_COMMAND_EACH_S = 60.0  # a key store counts, and may bill, each question
_SHORTEST = 6
"""Characters of what is masked at all. Less guards nothing, stands in ordinary words ("limit"), and
whoever knows the words would read the password from the gap."""
_LONG = 12
"""From here on it is masked wherever it stands, and so is a word that begins like it; what is
shorter only as a word of its own: "exceed" is none in "exceeded"."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Login:
    """A user name with a password, or with an access token for XOAUTH2.

    `material` is all that was read; `is_kept`: reading it again may bring something else.
    """

    username: str
    secret: str
    is_token: bool = False
    is_kept: bool = False
    material: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Login {self.username}>"


class Credentials:
    """The credentials of one provider, for one event loop."""

    def __init__(self, provider: Provider) -> None:
        self._places = _places_of(provider)
        self._by_command: dict[SecretRef, str] = {}
        self._tokens: TokenSource | None = None
        if provider.uses_xoauth2 and provider.oauth is not None:
            self._tokens = TokenSource(provider.oauth)
        self._lock = asyncio.Lock()  # one fetch at a time: many connections open at once
        self._refused: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"<Credentials {' '.join(map(str, self._places)) or 'none'}>"

    @property
    def look_each_s(self) -> float:
        """How often `has_changed` is worth asking, in seconds."""
        return _LOOK_BY_COMMAND_EACH_S if any(map(_is_command, self._places)) else _LOOK_EACH_S

    async def read(self) -> Login | None:
        """Return the login to use now, None when the provider wants no AUTH.

        Raises UpstreamError at Stage.AUTH: with a reply when the token endpoint refuses the
        credentials (they count as refused), without one for all that may pass.
        """
        if not self._places:
            return None
        async with self._lock:
            is_kept = bool(self._by_command)
            try:
                material = await asyncio.to_thread(_fetch, self._places, self._by_command)
            except SettingsError as error:
                raise UpstreamError(Stage.AUTH, detail=str(error)) from error
            login = Login(
                username=material[0], secret=material[-1], is_kept=is_kept, material=material
            )
            return login if self._tokens is None else await self._trade(self._tokens, login)

    def forget(self, login: Login) -> None:
        """Note that `login` was refused: what is kept of it is fetched again for the next one."""
        self._refused = login.material
        self._by_command.clear()
        if self._tokens is not None:
            self._tokens.forget(login.secret)

    async def has_changed(self) -> bool:
        """Return whether a login should be tried, as there is something else than was refused.

        True as well while it cannot be read: `read` says why, and whatever can be read next is
        tried.
        """
        if (refused := self._refused) is None:
            return False
        async with self._lock:
            by_command: dict[SecretRef, str] = {}
            try:
                material = await asyncio.to_thread(_fetch, self._places, by_command)
            except SettingsError:
                self._refused = ()
                return True
            if material == refused:
                return False
            self._by_command = by_command
            return True

    async def _trade(self, tokens: TokenSource, login: Login) -> Login:
        """Return the login with an access token in place of what it is given for."""
        username, client_id, *secrets = login.material
        try:
            token, is_kept = await tokens.token(client_id, secrets)
        except UpstreamError as error:
            for secret in secrets:
                error.mask(Mask(replace(login, secret=secret)))
            if error.reply is not None:
                self._by_command.clear()
                self._refused = login.material
            raise
        is_kept = is_kept or login.is_kept
        return replace(login, username=username, secret=token, is_token=True, is_kept=is_kept)


def _places_of(provider: Provider) -> _Places:
    """Return the secrets to read, in order: user name, password; or client id and secrets."""
    if provider.username is None or not provider.has_credentials:
        return ()
    username, oauth = parse_user_name(provider.username), provider.oauth
    if provider.uses_xoauth2 and oauth is not None:
        given = (oauth.client_secret, oauth.key, oauth.refresh_token)
        secrets = [secret for secret in given if secret is not None]
        return (username, parse_user_name(oauth.client_id), *secrets)
    assert provider.password is not None
    return (username, provider.password)


def _is_command(place: SecretRef | str) -> bool:
    return isinstance(place, SecretRef) and place.kind == "command"


def _fetch(places: _Places, by_command: dict[SecretRef, str]) -> tuple[str, ...]:
    """Read `places`, commands only where `by_command` lacks them; blocks."""
    material = []
    for place in places:
        if isinstance(place, str):
            material.append(place)
        elif place in by_command:
            material.append(by_command[place])
        else:
            material.append(place.read())
            if _is_command(place):
                by_command[place] = material[-1]
    return tuple(material)


# --- masking


class Mask:
    """Takes a login's secret out of what is shown of a provider: plain, base64, percent-encoded.

    A word that begins with a good part of it goes, too: who echoes a command may cut it.
    """

    def __init__(self, login: Login) -> None:
        # the longest first: one is a part of another
        forms = {form for form in _forms(login) if len(form) >= _SHORTEST}
        self.forms = sorted(forms, key=len, reverse=True)
        heads = (form[:_LONG] for form in self.forms if len(form) >= _LONG)
        self.heads = list(dict.fromkeys(heads))

    def __call__(self, text: str) -> str:
        """Return `text` without the secret."""
        for form in self.forms:
            if form in text and len(form) >= _LONG:
                text = text.replace(form, "***")
            elif form in text:  # where neither letter nor digit goes on on either side
                before = r"(?<![^\W_])" if form[0].isalnum() else ""
                after = r"(?![^\W_])" if form[-1].isalnum() else ""
                text = re.sub(f"{before}{re.escape(form)}{after}", "***", text)
        for head in self.heads:
            if head in text:
                text = re.sub(re.escape(head) + r"\S*", "***", text)
        return text

    def reply(self, reply: SmtpReply) -> SmtpReply:
        """Return a reply without the secret."""
        return SmtpReply(reply.code, tuple(map(self, reply.lines)))


def _forms(login: Login) -> Iterator[str]:
    name, secret = login.username, login.secret
    for text in (f"\0{name}\0{secret}", f"user={name}\1auth=Bearer {secret}\1\1", secret):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            coded = encode(text.encode()).decode()
            yield from (coded, coded.rstrip("="), quote(coded, safe=""))
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret, safe=""))


# --- access tokens: RFC 6749 sections 4.4, 5, 6 --------------------------------------------

# Over verified TLS, without proxies or redirects, for either would carry the secrets elsewhere.
# What the endpoint says of an error is shown: its first line, masked (RFC 6749 section 5.2).
_LIMIT_S = 15.0  # for the whole exchange, a connection that is waiting among others included
_MAX_ANSWER_BYTES = 65536
_USUAL_LIFE_S = 300.0  # of a token whose end is not told
_TOKEN = re.compile(r"[!-~]{1,16384}")
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
_PASSING_ERRORS = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_PASSING_AT_ENTRA = re.compile(r"AADSTS(50196|80002|80003|900(06|12|24|25|33))\b")
"""Codes of Microsoft's token endpoint for its own troubles, and for too many requests, which it
gives with the errors of a refusal."""
_END_OF_WORDS = re.compile(r"[\r\n]|\sTrace ID:")
"""What follows, Microsoft's numbers of the one request, would make each refusal a new one."""
_MAX_WORDS = 300


class TokenSource:
    """The access token of one provider; one caller at a time."""

    def __init__(self, oauth: Oauth) -> None:
        self._oauth = oauth
        self._token: str | None = None
        self._key: tuple[str, ...] = ()  # what it was given for
        self._ends_at_s = 0.0  # time.monotonic

    async def token(self, client_id: str, secrets: Sequence[str]) -> tuple[str, bool]:
        """Return a token and whether it is one from before.

        `secrets`: client secret or private key, and refresh token, as configured. Raises
        UpstreamError: with a reply when the endpoint refuses, else it is to be asked again.
        """
        key = (client_id, *secrets)
        if self._token is not None and key == self._key and time.monotonic() < self._ends_at_s:
            return self._token, True
        asked_at_s = time.monotonic()
        try:
            form = await asyncio.to_thread(self._form, client_id, secrets)
        except SettingsError as error:
            raise UpstreamError(Stage.AUTH, detail=str(error)) from error
        answer = await self._ask(urlencode(form).encode())
        shown = [*secrets, form.get("client_assertion", "")]
        masks = [Mask(Login(username=client_id, secret=secret)) for secret in shown if secret]
        token, life_s = self._read(answer, masks)
        self._token, self._key = token, key
        # a tenth of its life, five minutes at most, is spared for clocks and for slow openings
        self._ends_at_s = asked_at_s + life_s - min(life_s / 10, 300.0)
        return token, False

    def forget(self, token: str) -> None:
        """Drop a token that was refused."""
        if token == self._token:
            self._token = None

    def _form(self, client_id: str, secrets: Sequence[str]) -> dict[str, str]:
        """Return the fields of a request; raises SettingsError. Reads the certificate."""
        oauth = self._oauth
        left = list(secrets)
        fields = {"client_id": client_id}
        if oauth.client_secret is not None:
            fields["client_secret"] = left.pop(0)
        elif oauth.certificate is not None:
            from relaygw.upstream.client_assertion import client_assertion

            fields["client_assertion_type"] = _ASSERTION_TYPE
            fields["client_assertion"] = client_assertion(
                client_id,
                token_url=oauth.token_url,
                certificate=oauth.certificate,
                key=left.pop(0),
            )
        if oauth.refresh_token is not None:
            fields |= {"grant_type": "refresh_token", "refresh_token": left.pop(0)}
        else:
            fields["grant_type"] = "client_credentials"
        if oauth.scope is not None:
            fields["scope"] = oauth.scope
        return fields

    async def _ask(self, form: bytes) -> Answer:
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        try:
            return await post_directly(
                self._oauth.token_url,
                form,
                headers,
                limit_s=_LIMIT_S,
                connect_s=_LIMIT_S,
                max_body_bytes=_MAX_ANSWER_BYTES,
            )
        except Unanswered as error:
            detail = f"the token endpoint {error}"
            raise UpstreamError(Stage.AUTH, detail=detail) from error

    def _read(self, answer: Answer, masks: Sequence[Mask]) -> tuple[str, float]:
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):  # a text that is no UTF-8 is a ValueError, too
            found = None
        fields: dict[str, Any] = found if isinstance(found, dict) else {}
        if answer.status != 200:
            raise self._refusal(answer.status, fields.get("error"), _words(fields, masks))
        token, kind = fields.get("access_token"), fields.get("token_type", "Bearer")
        is_bearer = isinstance(kind, str) and kind.lower() == "bearer"
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or not is_bearer:
            raise self._trouble("answered 200 and gave no bearer token")
        try:
            life_s = float(fields.get("expires_in", _USUAL_LIFE_S))
        except (TypeError, ValueError, OverflowError):
            life_s = _USUAL_LIFE_S
        return token, min(max(life_s, 0.0), 86400.0)

    def _refusal(self, status: int, code: object, words: str) -> UpstreamError:
        is_code = isinstance(code, str) and _ERROR_CODE.fullmatch(code) is not None
        said = ": ".join(filter(None, (str(code) if is_code else "", words)))
        is_passing = code in _PASSING_ERRORS or _PASSING_AT_ENTRA.match(words)
        if not is_code or is_passing or status not in (400, 401, 403):
            return self._trouble(f"answered {status} {said}".rstrip())
        # as if the provider had refused AUTH: the same people have to do the same things
        reply = SmtpReply(535, (f"5.7.8 {self._name} refused an access token: {said}",))
        return UpstreamError(Stage.AUTH, reply=reply, detail=reply.text)

    def _trouble(self, what: str) -> UpstreamError:
        return UpstreamError(Stage.AUTH, detail=f"the token endpoint {self._name} {what}")

    @property
    def _name(self) -> str:
        return urlsplit(self._oauth.token_url).netloc


def _words(fields: dict[str, Any], masks: Sequence[Mask]) -> str:
    """Return how the endpoint describes its error, "" where it does not; masked, then cut."""
    text = fields.get("error_description")
    first = _END_OF_WORDS.split(text.strip(), 1)[0] if isinstance(text, str) else ""
    for mask in masks:
        first = mask(first)
    return clean_text(first[:_MAX_WORDS].rstrip(" .").encode("utf-8", "replace"))
