"""What one provider is logged in to with: read when it is needed, kept where reading is costly.

A `command:` secret is kept until it is refused, other forms are read anew for each connection, so a
changed file works at once. Nothing here is logged, and no repr shows a secret.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote, quote_plus

from relaygw.errors import SettingsError
from relaygw.mail.outcome import SmtpReply, Stage
from relaygw.settings.provider import Provider
from relaygw.settings.secrets import SecretRef, parse_user_name
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.oauth import TokenSource

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
        """Return what to log in with now, None when the provider wants no AUTH.

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
        """Return whether there is something else than was refused; False if nobody can read it."""
        if (refused := self._refused) is None:
            return False
        async with self._lock:
            by_command: dict[SecretRef, str] = {}
            try:
                material = await asyncio.to_thread(_fetch, self._places, by_command)
            except SettingsError:
                return False
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
    """Return what to read, in this order: user name, password; or client id and secrets."""
    if provider.username is None or not provider.has_credentials:
        return ()
    username, oauth = parse_user_name(provider.username), provider.oauth
    if provider.uses_xoauth2 and oauth is not None:
        given = [one for one in (oauth.client_secret, oauth.refresh_token) if one is not None]
        return (username, parse_user_name(oauth.client_id), *given)
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
        self._forms = sorted(forms, key=len, reverse=True)
        heads = (form[:_LONG] for form in self._forms if len(form) >= _LONG)
        self._heads = list(dict.fromkeys(heads))

    def __call__(self, text: str) -> str:
        """Return `text` without the secret."""
        for form in self._forms:
            if form in text and len(form) >= _LONG:
                text = text.replace(form, "***")
            elif form in text:  # where neither letter nor digit goes on on either side
                before = r"(?<![^\W_])" if form[0].isalnum() else ""
                after = r"(?![^\W_])" if form[-1].isalnum() else ""
                text = re.sub(f"{before}{re.escape(form)}{after}", "***", text)
        for head in self._heads:
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
