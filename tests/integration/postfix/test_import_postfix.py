"""import-postfix on real shapes: what the file says is what a real Postfix does."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relaygw.cli import main
from relaygw.policy.recipients import Fate, RecipientPolicy
from relaygw.policy.rewriting import Rewriter
from relaygw.policy.router import Router
from relaygw.settings.load import load_settings
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider, TlsPolicy
from relaygw.settings.secrets import parse_user_name
from tests.integration.postfix.real_answers import real_level, real_login, real_way
from tests.integration.postfix.shapes import SHAPES, Shape

SECRETS = (
    "SG.",
    "mg-key",
    "key-a",
    "promo-key",
    "ses+key",
    "a-pass",
    "app password",
    "one for all",
)
ENCRYPT = "encrypt" if "encrypt" in list(TlsPolicy) else "required"
POLICIES = {"none": "none", "may": "opportunistic", "encrypt": ENCRYPT, "verify": "required",
            "secure": "required"}  # fmt: skip


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["import-postfix", *map(str, words)])


@dataclass(frozen=True)
class Imported:
    shape: Shape
    home: Path
    file: Path
    result: Result
    settings: Settings


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: shape.name)
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    shape: Shape = request.param
    directory = tmp_path_factory.mktemp("shape")
    home = shape.write(directory)
    file = directory / "out.yaml"
    asked = [
        f"--compare={sender or '<>'},{to}" for sender in shape.senders for to in shape.recipients
    ]
    result = run(home, "--output", file, "--json", *asked)
    assert result.exit_code == 0, result.output
    loaded = load_settings(config=file, environ={"HOME": str(directory)})
    return Imported(shape, home, file, result, loaded.settings)


def mails(one: Imported) -> Iterator[tuple[str, str]]:
    return ((sender, to) for sender in one.shape.senders for to in one.shape.recipients)


def test_every_mail_goes_where_postfix_sends_it(imported: Imported) -> None:
    settings, count = imported.settings, 0
    rewriter = Rewriter(settings.rewrite, settings.hostname)
    router = Router(settings.routes)
    policy = RecipientPolicy(settings.mode, settings.recipients)
    for given_sender, given_recipient in mails(imported):
        sender, recipient = rewriter.sender(given_sender), rewriter.recipients(given_recipient)[0]
        real = real_way(imported.home, sender, recipient)
        what = f"{sender} to {recipient}: {real}"
        fate = policy.decide(recipient).fate
        if real.transport in ("error", "discard", "local") or is_refused(imported, recipient):
            assert fate is not Fate.DELIVER, what
            continue
        assert fate is Fate.DELIVER, what
        route = router.route_for(sender=sender, recipient=recipient, headers={})
        assert route is not None, what
        provider = settings.providers[route.providers[0]]
        assert hop_of(provider) == plain(real.nexthop), what
        login = real_login(imported.home, sender, real.nexthop, real.transport)
        assert login_of(provider) == login, what
        level = real_level(imported.home, real.nexthop, real.transport)
        expected = "implicit" if provider.port == 465 else POLICIES[level]
        assert provider.tls.value == expected, what
        count += 1
    assert count


def is_refused(one: Imported, recipient: str) -> bool:
    """What the access tables of two shapes say; smtpd asks them, not trivial-rewrite."""
    refused = {
        "staging-by-access": recipient == "other@agency.test",
        "blocked-recipients": recipient in ("a@spam.test", "abuse@cust.test"),
    }
    return refused.get(one.shape.name, False)


def hop_of(provider: Provider) -> tuple[str, int]:
    return provider.host, provider.port


def plain(nexthop: str) -> tuple[str, int]:
    host, _, port = nexthop.replace("[", "").replace("]", "").partition(":")
    return host, {"": 25, "submission": 587}.get(port) or int(port)


def login_of(provider: Provider) -> str | None:
    if provider.username is None or provider.password is None:
        return None
    user = parse_user_name(provider.username)
    return f"{user if isinstance(user, str) else user.read()}:{provider.password.read()}"


def told(one: Imported, kind: str) -> list[dict[str, str]]:
    rows = [json.loads(line) for line in one.result.stdout.splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_the_table_of_sameness_says_so(imported: Imported) -> None:
    rows = told(imported, "mail")
    asked = {(sender, to) for sender, to in mails(imported)}
    shown = [row for row in rows if (row["sender"], row["recipient"]) in asked]
    assert len(shown) == len(asked)
    allowed = {"same", "stricter", "sent by neither"}
    allowed |= {"not proven"} if imported.shape.name == "satellite" else set()
    # Postfix rewrites it in the header, too, and none of the aliases
    shown = [row for row in shown if row["recipient"] != "typo@exampel.com"]
    # Postfix completes it in the header, too
    bare = [row for row in shown if "@" not in row["sender"] and row["sender"]]
    assert all("From of the header" in row["why"] for row in bare if row["result"] not in allowed)
    shown = [row for row in shown if row not in bare]
    assert [row for row in shown if row["result"] not in allowed] == []
    assert {row["result"] for row in shown} - {"sent by neither"}


def test_nothing_is_dropped_silently(imported: Imported) -> None:
    names = {row["name"] for row in told(imported, "parameter")}
    written = {
        line.partition("=")[0].strip()
        for line in (imported.home / "main.cf").read_text().splitlines()
        if "=" in line and not line.startswith(" ")
    }
    assert written - names == set()


def test_secrets_are_in_files_of_their_own_and_nowhere_else(imported: Imported) -> None:
    text = imported.file.read_text() + imported.result.output
    assert [one for one in SECRETS if one in text] == []
    directory = imported.file.parent / "secrets"
    for provider in imported.settings.providers.values():
        if provider.password is not None:
            path = Path(provider.password.target)
            assert path.parent == directory
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert imported.result.output.count("plain:") == 0
    assert os.access(imported.file, os.R_OK)
