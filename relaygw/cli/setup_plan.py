"""What `relaygw setup` asks, and the files that follow from the answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from relaygw.settings.addresses import Address, Entry, Host
from relaygw.settings.presets import Preset, presets, quoted
from relaygw.settings.provider import TlsPolicy, TokenUrl
from relaygw.settings.section import Duration, Network, checked, misfit
from relaygw.settings.tree import write_tree

USES = {
    "shop": "mail of this host goes to a mail service",
    "gateway": "mail from other hosts as well",
    "staging": "mail goes only to an allow list, the rest is captured",
    "sandbox": "all mail is captured, none is sent",
}
OTHER = "other"
"""As a preset: a service that has none."""
SECRETS = "secrets"
HASH_TO_COME = "(made when the file is written)"
_HEAD = (
    "# Written by relaygw setup. All keys: relaygw config show --origin, docs/configuration.md.\n"
)
_LOCAL_SENDERS = ("www-data", "root")
_LOOPBACK = ["127.0.0.0/8", "::1/128"]
_ALL_ADDRESSES = "0.0.0.0:25"
LOGINS = ("token", "password")
_AUTHORITY = "https://login.microsoftonline.com"
_TENANT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_Tenant = Annotated[
    str,
    checked(
        lambda text: _TENANT.fullmatch(text) is not None,
        "is not a tenant; write its directory id, or a domain of it",
    ),
]
_KINDS = {
    "host": Host,
    "tls": TlsPolicy,
    "sender": Address,
    "allow": Entry,
    "networks": Network,
    "keep_content": Duration,
    "tenant": _Tenant,
    "token_url": TokenUrl,
}
"""Answers that the configuration takes as they are."""
_FOR_PROVIDERS = ("shop", "gateway", "staging")


def option_of(name: str) -> str:
    """Return the option of setup that gives an answer."""
    return {"networks": "--network"}.get(name, f"--{name.replace('_', '-')}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What a provider is logged in to with, or a part of it, and the option that names its file."""

    words: str
    keys: tuple[str, ...]  # where the provider refers to it
    option: str = "--key-file"
    suffix: str = ""  # of its file's name, after the provider's
    is_pem: bool = False


PASSWORD = Secret(words="key", keys=("password",))
CLIENT_SECRET = Secret(words="client secret", keys=("oauth", "client_secret"))
PRIVATE_KEY = Secret(words="private key", keys=("oauth", "key"), is_pem=True)
CERTIFICATE = Secret(
    words="certificate",
    keys=("oauth", "certificate"),
    option="--certificate",
    suffix=".pem",
    is_pem=True,
)
REFRESH_TOKEN = Secret(
    words="refresh token",
    keys=("oauth", "refresh_token"),
    option="--refresh-token-file",
    suffix=".refresh",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What somebody wants; None is not answered yet. No secret itself is among them."""

    use: str | None = None
    preset: str | None = None
    host: str | None = None
    port: int | None = None
    tls: str | None = None
    region: str | None = None
    variant: str | None = None
    username: str | None = None
    login: str | None = None
    tenant: str | None = None
    token_url: str | None = None
    client_id: str | None = None
    certificate: str | None = None
    sender: str | None = None
    allow: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    keep_content: str | None = None

    @property
    def given(self) -> list[str]:
        """The options of what was answered."""
        return [option_of(answer.name) for answer in fields(self) if getattr(self, answer.name)]

    @property
    def known(self) -> Preset | None:
        """The preset, None for a service without one."""
        return presets().get(self.preset or "")

    @property
    def provider(self) -> str:
        """The provider's name in the configuration, and of the file with its key."""
        return self.preset if self.known is not None and self.preset else "main"

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the service before it is used."""
        if self.known is None:
            return ()
        prepare = "access tokens: what to prepare at the service is in docs/secrets.md"
        return (*map(str, self.known.notes), *([prepare] if self.known.with_oauth else []))

    @property
    def needs_key(self) -> bool:
        """True when there is a login at the provider."""
        if self.use not in _FOR_PROVIDERS:
            return False
        if self.known is None:
            return bool(self.username)
        return bool(self.username) if self.known.may_lack_auth else "password" in self.known.asks

    @property
    def may_use_token(self) -> bool:
        """True when there is a login, and the service knows access tokens."""
        return self.needs_key and self.known is not None and bool(self.known.with_oauth)

    @property
    def usual_login(self) -> str:
        """How the service is logged in to, unless somebody says otherwise."""
        return "token" if self.known is not None and self.known.password_ends else "password"

    @property
    def uses_token(self) -> bool:
        """True when the login is by access token."""
        return self.may_use_token and (self.login or self.usual_login) == "token"

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What the login is made of."""
        if not self.needs_key:
            return ()
        if not self.uses_token:
            return (PASSWORD,)
        if self.certificate:
            return (PRIVATE_KEY, CERTIFICATE)
        is_of_user = self.known is not None and "oauth.refresh_token" in self.known.asks
        return (CLIENT_SECRET, REFRESH_TOKEN) if is_of_user else (CLIENT_SECRET,)

    @property
    def unused(self) -> list[str]:
        """The options that say something of access tokens and have no use here."""
        asked = {question.name for question in _about_login(self)}
        asked |= {"token_url"} if self.uses_token else set()
        names = {"login", "tenant", "token_url", "client_id", "certificate"} - asked
        return sorted(option_of(name) for name in names if getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something that is not known yet; `name` is that of the answer and of its option."""

    name: str
    text: str
    choices: tuple[str, ...] = ()
    is_needed: bool = True
    is_list: bool = False
    usual: str = ""  # what it is when nobody answers

    @property
    def option(self) -> str:
        """The option that answers it."""
        return option_of(self.name)


def questions(answers: Answers) -> Iterator[Question]:
    """Yield what has to be answered, or may be, as far as that can be told from the rest."""
    return (
        all_question
        for all_question in _all_questions(answers)
        if not getattr(answers, all_question.name)
    )


def _all_questions(answers: Answers) -> Iterator[Question]:
    yield Question(name="use", text="What is this machine for?", choices=tuple(USES))
    if answers.use in _FOR_PROVIDERS:
        yield from _about_provider(answers)
        yield Question(
            name="sender",
            text="Sender for mail without one, such as PHP's",
            is_needed=answers.use != "gateway",
        )
    if answers.use == "staging":
        yield Question(
            name="allow", text='Who may receive (dev@agency.example, "@qa.example")', is_list=True
        )
    if answers.use == "gateway":
        yield Question(
            name="networks", text="Networks whose hosts may send (10.0.0.0/16)", is_list=True
        )
    if answers.use in _FOR_PROVIDERS:
        yield Question(
            name="keep_content",
            text="Keep sent mail this long, so that it can be sent again (7d; empty: not)",
            is_needed=False,
        )


def _about_provider(answers: Answers) -> Iterator[Question]:
    if answers.host is None:
        yield Question(
            name="preset", text="Which mail service?", choices=(*sorted(presets()), OTHER)
        )
    preset = answers.known
    if answers.preset == OTHER:
        yield Question(name="host", text="Its host")
    if preset is None:
        if answers.host:
            yield Question(name="username", text="User name (empty: no login)", is_needed=False)
        return
    if preset.needs_region:
        yield Question(name="region", text=f"Region: {preset.asks.get('region', '')}")
    if "username" in preset.asks.keys() - preset.keys_for(answers.region, answers.variant):
        yield Question(
            name="username",
            text=f"User name: {preset.asks['username']}",
            is_needed=not preset.may_lack_auth,
        )
    yield from _about_login(answers)


def _about_login(answers: Answers) -> Iterator[Question]:
    preset = answers.known
    if preset is None or not answers.may_use_token:
        return
    yield Question(
        name="login",
        text="Log in by access token, or by password",
        choices=LOGINS,
        is_needed=False,
        usual=answers.usual_login,
    )
    if not answers.uses_token:
        return
    has_tenants = "oauth.token_url" in preset.asks
    if has_tenants and not answers.token_url:
        yield Question(name="tenant", text="Tenant: its directory id, or a domain of it")
    yield Question(name="client_id", text="Client id: of the application registered there")
    if has_tenants:
        yield Question(
            name="certificate",
            text="File with the application's certificate, PEM (empty: it has a client secret)",
            is_needed=False,
        )


def problem_of(answers: Answers, name: str) -> str:
    """Return the problem of an answer, "" for none."""
    value = getattr(answers, name)
    for answer in value if isinstance(value, tuple) else (value,):
        problem = misfit(_KINDS[name], answer) if answer is not None and name in _KINDS else ""
        if name == "region" and answer and answers.known and not answers.known.has_region(answer):
            known = answers.known.asks.get("region") or ", ".join(answers.known.regions)
            problem = f"is not a region of {answers.preset}; write {known or 'none'}"
        if problem:
            return f"{option_of(name)} {quoted(answer)} {problem}"
    return ""


# --- files --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file to write, or with no text a directory; `is_own`: the service's user's alone."""

    path: Path
    text: str | None = field(default=None, repr=False)
    is_own: bool = False

    @property
    def mode(self) -> int:
        """Its mode where the service has a user of its own."""
        if self.text is None:
            return 0o700 if self.is_own else 0o750
        return 0o600 if self.is_own else 0o640


def configuration(answers: Answers, *, directory: Path, password_hash: str) -> dict[str, Any]:
    """Return the smallest configuration for the answers."""
    if answers.use == "sandbox":
        return {"mode": "sandbox"}
    tree: dict[str, Any] = {"mode": "staging" if answers.use == "staging" else "production"}
    if answers.keep_content:
        tree["queue"] = {"keep_content": answers.keep_content}
    if answers.use == "gateway":
        allow = [*_LOOPBACK, *answers.networks]
        tree["listeners"] = [{"bind": _ALL_ADDRESSES, "allow": allow}]
    tree["providers"] = {answers.provider: _provider(answers, directory)}
    tree["routes"] = [{"name": "default", "providers": [answers.provider]}]
    if answers.use == "staging":
        tree["recipients"] = {"allow": list(answers.allow)}
    if answers.sender:
        domain = answers.sender.rpartition("@")[2]
        senders = {f"{user}@{domain}": answers.sender for user in _LOCAL_SENDERS}
        tree["rewrite"] = {"default_domain": domain, "senders": senders}
    user = {"name": "admin", "password_hash": password_hash, "role": "admin"}
    return {**tree, "web": {"users": [user]}}


def _provider(answers: Answers, directory: Path) -> dict[str, Any]:
    names = ("host", "port", "tls", "region", "variant", "username")
    keys = {name: getattr(answers, name) for name in names if getattr(answers, name)}
    if answers.known is not None:
        keys = {"preset": answers.preset, **keys}
    if answers.uses_token:
        authority = f"{_AUTHORITY}/{answers.tenant}/oauth2/v2.0/token" if answers.tenant else None
        url = answers.token_url or authority
        keys["oauth"] = {**({"token_url": url} if url else {}), "client_id": answers.client_id}
    for secret in answers.secrets:
        section = keys["oauth"] if secret.keys[0] == "oauth" else keys
        file = str(secret_file(answers, secret, directory))
        section[secret.keys[-1]] = file if secret is CERTIFICATE else f"file:{file}"
    return keys


def secret_file(answers: Answers, secret: Secret, directory: Path) -> Path:
    """Return where a secret is kept, beside a configuration in `directory`."""
    return directory / SECRETS / f"{answers.provider}{secret.suffix}"


def as_yaml(tree: dict[str, Any]) -> str:
    """Return the text of a configuration."""
    return _HEAD + write_tree(tree)


def difference(wanted: dict[str, Any], found: object) -> list[str]:
    """Return the sections in which a configuration is another one; who logs in is left out."""
    if not isinstance(found, dict):
        return sorted(wanted)
    names = {*wanted, *found} - {"web"}
    return sorted(str(name) for name in names if wanted.get(name) != found.get(name))
