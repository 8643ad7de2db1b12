"""What `relaygw setup` asks, and the files that follow from the answers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from relaygw.settings.addresses import Address, Entry, Host
from relaygw.settings.presets import Preset, presets, quoted
from relaygw.settings.provider import TlsPolicy
from relaygw.settings.section import Duration, Network, misfit
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
_KINDS = {
    "host": Host,
    "tls": TlsPolicy,
    "sender": Address,
    "allow": Entry,
    "networks": Network,
    "keep_content": Duration,
}
"""Answers that the configuration takes as they are."""
_FOR_PROVIDERS = ("shop", "gateway", "staging")


def option_of(name: str) -> str:
    """Return the option of setup that gives an answer."""
    return {"networks": "--network"}.get(name, f"--{name.replace('_', '-')}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What somebody wants; None is not answered yet. The key itself is not among them."""

    use: str | None = None
    preset: str | None = None
    host: str | None = None
    port: int | None = None
    tls: str | None = None
    region: str | None = None
    variant: str | None = None
    username: str | None = None
    sender: str | None = None
    allow: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    keep_content: str | None = None

    @property
    def given(self) -> list[str]:
        """The options of what was answered."""
        return [option_of(one.name) for one in fields(self) if getattr(self, one.name)]

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
        oauth = (
            "setup takes a password; access tokens (oauth) are configured by hand, see secrets.md"
        )
        return (*self.known.notes, *([oauth] if self.known.with_oauth else []))

    @property
    def needs_key(self) -> bool:
        """True when there is a login at the provider."""
        if self.use not in _FOR_PROVIDERS:
            return False
        if self.known is None:
            return bool(self.username)
        return bool(self.username) if self.known.may_lack_auth else "password" in self.known.asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something that is not known yet; `name` is that of the answer and of its option."""

    name: str
    text: str
    choices: tuple[str, ...] = ()
    is_needed: bool = True
    is_list: bool = False

    @property
    def option(self) -> str:
        """The option that answers it."""
        return option_of(self.name)


def questions(answers: Answers) -> Iterator[Question]:
    """Yield what has to be answered, or may be, as far as that can be told from the rest."""
    return (one for one in _all_questions(answers) if not getattr(answers, one.name))


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


def problem_of(answers: Answers, name: str) -> str:
    """Return what is wrong with an answer, "" for nothing."""
    value = getattr(answers, name)
    for one in value if isinstance(value, tuple) else (value,):
        problem = misfit(_KINDS[name], one) if one is not None and name in _KINDS else ""
        if name == "region" and one and answers.known and not answers.known.has_region(one):
            known = answers.known.asks.get("region") or ", ".join(answers.known.regions)
            problem = f"is not a region of {answers.preset}; write {known or 'none'}"
        if problem:
            return f"{option_of(name)} {quoted(one)} {problem}"
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
    if answers.needs_key:
        keys["password"] = f"file:{directory / SECRETS / answers.provider}"
    return keys


def as_yaml(tree: dict[str, Any]) -> str:
    """Return the text of a configuration."""
    return _HEAD + write_tree(tree)


def difference(wanted: dict[str, Any], found: object) -> list[str]:
    """Return the sections in which a configuration is another one; who logs in is left out."""
    if not isinstance(found, dict):
        return sorted(wanted)
    names = {*wanted, *found} - {"web"}
    return sorted(str(name) for name in names if wanted.get(name) != found.get(name))
