"""Presets: what they fill in, that the user's keys win, and what a mistake is told."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from relaygw.settings.load import LoadedSettings
from relaygw.settings.presets import Note, Preset, presets
from relaygw.settings.provider import Provider
from tests.campaign import IS_CAMPAIGN
from tests.tables import each_of

Load = Callable[..., LoadedSettings]
Fail = Callable[..., list[str]]
ROUTE = "routes: [{name: default, providers: [p]}]\n"
CANARY = "hunter2canary"
NAMES = (
    *("sendgrid", "mailgun", "ses", "gmail", "workspace", "microsoft365", "postmark"),
    *("sparkpost", "mandrill", "brevo", "mailjet", "smtp2go", "resend", "mailtrap"),
    *("zeptomail", "zoho", "cloudflare", "scaleway", "azure", "mailersend", "infobip", "oci"),
)


def config(*lines: str) -> str:
    return "mode: production\nproviders:\n  p:\n" + "".join(f"    {one}\n" for one in lines) + ROUTE


def written(preset: str, **keys: Any) -> list[str]:
    """Return the lines of a provider with everything that its preset asks for."""
    asked = {"region": "eu-west-1", "username": "u", "password": "env:KEY"}
    known = presets()[preset]
    asks = known.asks.keys() - known.keys_for(keys.get("region"), keys.get("variant")).keys()
    wanted = {key: value for key, value in asked.items() if key in asks}
    return [f"{key}: {json.dumps(value)}" for key, value in
            {"preset": preset, **wanted, **keys}.items()]  # fmt: skip


def loaded(load: Load, preset: str, **keys: Any) -> Provider:
    return load(config(*written(preset, **keys))).settings.providers["p"]


def choices() -> Iterator[tuple[str, dict[str, str]]]:
    for name, one in presets().items():
        regions = list(one.regions) or (["eu-west-1"] if one.region_pattern else [None])
        for region, variant in itertools.product(regions, one.variants or [None]):
            chosen = {"region": region, "variant": variant}
            yield name, {key: value for key, value in chosen.items() if value is not None}


CHOICES = list(choices())


def test_every_service_has_its_preset() -> None:
    assert tuple(presets()) == NAMES


@pytest.mark.parametrize(("name", "chosen"), CHOICES, ids=[f"{n} {c}" for n, c in CHOICES])
def test_every_choice_makes_a_provider_with_verified_tls(
    load: Load, name: str, chosen: dict[str, str]
) -> None:
    provider = loaded(load, name, **chosen)
    assert "." in provider.host
    assert "{" not in provider.host
    is_implicit = name in ("cloudflare", "oci")
    assert (provider.port, provider.tls) == (
        (465, "implicit") if is_implicit else (587, "required")
    )
    assert provider.username
    assert provider.password is not None


def test_hosts_of_regions_and_variants(load: Load) -> None:
    hosts = {
        (name, *chosen.values()): loaded(load, name, **chosen).host for name, chosen in CHOICES
    }
    assert hosts == {
        ("sendgrid",): "smtp.sendgrid.net",
        ("mailgun", "us"): "smtp.mailgun.org",
        ("mailgun", "eu"): "smtp.eu.mailgun.org",
        ("ses", "eu-west-1"): "email-smtp.eu-west-1.amazonaws.com",
        ("gmail", "personal"): "smtp.gmail.com",
        ("gmail", "workspace"): "smtp.gmail.com",
        ("workspace",): "smtp-relay.gmail.com",
        ("microsoft365",): "smtp.office365.com",
        ("postmark", "transactional"): "smtp.postmarkapp.com",
        ("postmark", "broadcast"): "smtp-broadcasts.postmarkapp.com",
        ("sparkpost", "us"): "smtp.sparkpostmail.com",
        ("sparkpost", "eu"): "smtp.eu.sparkpostmail.com",
        ("sparkpost", "bird-us"): "smtp.email.us-west-2.api.bird.com",
        ("sparkpost", "bird-eu"): "smtp.email.eu-west-1.api.bird.com",
        ("mandrill",): "smtp.mandrillapp.com",
        ("brevo",): "smtp-relay.brevo.com",
        ("mailjet",): "in-v3.mailjet.com",
        ("smtp2go", "us"): "mail-us.smtp2go.com",
        ("smtp2go", "eu"): "mail-eu.smtp2go.com",
        ("smtp2go", "eu2"): "mail-eu2.smtp2go.com",
        ("smtp2go", "au"): "mail-au.smtp2go.com",
        ("resend",): "smtp.resend.com",
        ("mailtrap", "live"): "live.smtp.mailtrap.io",
        ("mailtrap", "bulk"): "bulk.smtp.mailtrap.io",
        ("mailtrap", "sandbox"): "sandbox.smtp.mailtrap.io",
        **{("zeptomail", tld): f"smtp.zeptomail.{tld}" for tld in ("com", "eu", "in")},
        **{
            ("zoho", tld, variant): f"{host}.zoho.{tld}"
            for tld in ("com", "eu", "in", "com.au", "jp", "com.cn", "sa")
            for variant, host in (("personal", "smtp"), ("pro", "smtppro"))
        },
        ("cloudflare",): "smtp.mx.cloudflare.net",
        ("scaleway",): "smtp.tem.scaleway.com",
        ("azure",): "smtp.azurecomm.net",
        ("mailersend",): "smtp.mailersend.net",
        **{
            ("infobip", region): f"smtp-api-{place}.infobip.com"
            for region, place in (
                *(("eu", "eu"), ("gb", "gb1"), ("us", "us"), ("in", "mum"), ("id", "id")),
                *(("ae", "ae2"), ("pk", "pk2"), ("qa", "qa1"), ("sa", "sa3"), ("tr", "tr1")),
            )
        },
        ("oci", "eu-west-1"): "smtp.email.eu-west-1.oci.oraclecloud.com",
    }
    assert loaded(load, "infobip").host == "smtp-api.infobip.com"
    assert loaded(load, "mailgun").host == "smtp.mailgun.org"
    assert loaded(load, "smtp2go").host == "mail.smtp2go.com"


LIMITS = {
    "sendgrid": {"max_messages_per_connection": 1000},
    "mailgun": {},
    "ses": {
        **{"rate_counts": "recipients", "quota_counts": "recipients", "max_recipients": 50},
        "max_message_size": "40MB",
    },
    "gmail": {"daily_quota": 500},
    "workspace": {},
    "microsoft365": {
        **{"max_connections": 2, "rate": "25/m", "daily_quota": 10000},
        "quota_counts": "recipients",
    },
    "postmark": {
        **{"max_connections": 10, "max_recipients": 50, "max_message_size": "10MB"},
        "headers": {"X-PM-Message-Stream": "outbound"},
    },
    "sparkpost": {},
    "mandrill": {},
    "brevo": {},
    "mailjet": {"max_recipients": 50, "max_message_size": "15MB"},
    "smtp2go": {},
    "resend": {"rate": "4/s", "quota_counts": "recipients"},
    "mailtrap": {"max_connections": 8, "max_message_size": "10MB"},
    "zeptomail": {},
    "zoho": {},
    "cloudflare": {
        **{"port": 465, "tls": "implicit", "max_recipients": 50, "max_message_size": "5MB"},
        "max_messages_per_connection": 25,
    },
    "scaleway": {"max_recipients": 10, "quota_counts": "recipients"},
    "azure": {"max_recipients": 50, "max_message_size": "10MB"},
    "mailersend": {},
    "infobip": {},
    "oci": {"port": 465, "tls": "implicit"},
}


@pytest.mark.parametrize("name", NAMES)
def test_limits_are_the_documented_ones_and_no_others(load: Load, name: str) -> None:
    bare = Provider.model_validate({"host": "a.test"}).model_dump(mode="json")
    found = loaded(load, name).model_dump(mode="json")
    login = ("preset", "region", "host", "username", "password")
    assert {k: v for k, v in found.items() if v != bare[k] and k not in login} == LIMITS[name]


@each_of("name", NAMES)
def test_every_fact_has_its_source(name: str) -> None:
    preset: Preset = presets()[name]
    choices = (*preset.regions.values(), *preset.variants.values())
    own = {"idempotency"} if preset.idempotency else set()
    facts = {"ports", "host", *preset.keys, *preset.with_oauth, *own}.union(
        *(one.keys for one in choices)
    )
    told = set(itertools.chain(*preset.sources.values()))
    facts |= {"mark"} if preset.mark is not None else set()
    facts |= {"password_ends"} if preset.password_ends is not None else set()
    assert facts <= told
    assert told <= facts | {"username", "notes"}


def looked_up_before(today: date) -> list[str]:
    """Return the notes that nobody has looked up for more than a year."""
    oldest = f"{today.year - 1}-{today.month:02}"
    return [
        f"{name}: {note}"
        for name, one in presets().items()
        for note in one.notes
        if note.checked < oldest
    ]


@pytest.mark.campaign
@pytest.mark.filterwarnings("default")
def test_each_note_was_looked_up_within_a_year() -> None:
    """A warning in every run, whoever runs it and whenever; red in a campaign."""
    old = looked_up_before(date.today())
    said = "look these up again, and write the month beside them: " + "; ".join(old)
    assert not (old and IS_CAMPAIGN), said
    if old:
        warnings.warn(said, stacklevel=1)


def test_a_note_counts_as_old_after_a_year() -> None:
    assert looked_up_before(date(2027, 11, 30)) == []
    old = looked_up_before(date(2027, 12, 1))
    assert old and all("(2026-11)" in one for one in old)


@each_of("month", ["2026-13", "2026-1", "2026", "12/2026"])
def test_a_note_without_a_month_is_none(month: str) -> None:
    with pytest.raises(ValueError, match="checked"):
        Note(text="x", checked=month)


USER_NAMES = {
    "sendgrid": "apikey",
    "postmark": "env:KEY",
    "sparkpost": "SMTP_Injection",
    "mandrill": "relaygw",
    "resend": "resend",
    "mailtrap": "api",
    "zeptomail": "emailapikey",
    "cloudflare": "api_token",
    "infobip": "App",
}


@pytest.mark.parametrize("name", NAMES)
def test_preset_and_password_are_enough_where_the_user_name_is_fixed(
    load: Load, lines_of: Fail, name: str
) -> None:
    region = ["region: eu-west-1"] if presets()[name].needs_region else []
    text = config(f"preset: {name}", *region, "password: env:KEY")
    if name in USER_NAMES:
        assert load(text).settings.providers["p"].username == USER_NAMES[name]
    else:
        [line] = lines_of(text)
        assert line == (
            f"relaygw.yaml:3: providers.p.username: is required with preset {name}; "
            f"write {presets()[name].asks['username']}"
        )


OVERRIDES = {
    "host": "proxy.test",
    "port": 2525,
    "tls": "opportunistic",
    "username": "other",
    "auth": "login",
    "rate": "1/s",
    "rate_counts": "recipients",
    "daily_quota": 7,
    "quota_counts": "messages",
    "max_connections": 1,
    "max_messages_per_connection": 3,
    "max_recipients": 2,
    "max_message_size": "1MB",
    "idle_close": "1s",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_the_user_wins(load: Load, name: str) -> None:
    found = loaded(load, name, **OVERRIDES).model_dump(mode="json")
    assert {key: found[key] for key in OVERRIDES} == OVERRIDES


def test_a_null_key_has_what_the_preset_says(load: Load) -> None:
    text = config(*written("microsoft365", rate=None, max_connections=None))
    provider = load(text).settings.providers["p"]
    assert (provider.max_connections, provider.rate and provider.rate.amount) == (2, 25)


@pytest.mark.parametrize(
    ("keys", "port", "tls"),
    [
        ({"port": 465}, 465, "implicit"),
        ({"port": 2465}, 2465, "implicit"),
        ({"tls": "implicit"}, 465, "implicit"),
        ({"port": 2587}, 2587, "required"),
        ({"port": 465, "tls": "required"}, 465, "required"),
        ({"port": 2525, "tls": "implicit"}, 2525, "implicit"),
    ],
)
def test_port_and_tls_go_together(load: Load, keys: dict[str, Any], port: int, tls: str) -> None:
    provider = loaded(load, "resend", **keys)
    assert (provider.port, provider.tls) == (port, tls)


@pytest.mark.parametrize("name", ["cloudflare", "oci"])
def test_where_implicit_tls_is_usual_port_and_tls_still_go_together(load: Load, name: str) -> None:
    found = [
        (one.port, one.tls)
        for keys in ({}, {"port": 587}, {"tls": "implicit"}, {"port": 2465, "tls": "implicit"})
        for one in [loaded(load, name, **keys)]
    ]
    assert found == [(465, "implicit"), (587, "required"), (465, "implicit"), (2465, "implicit")]


def test_a_workspace_of_bird_has_a_user_name_of_its_own(load: Load, lines_of: Fail) -> None:
    [line] = lines_of(config("preset: sparkpost", "region: bird-eu", "password: env:KEY"))
    assert "username: is required with preset sparkpost; write SMTP_Injection:x-bird-work" in line
    user = "SMTP_Injection:x-bird-workspace-id=1234"
    text = config(
        *("preset: sparkpost", "region: bird-eu", f"username: '{user}'", "password: env:KEY")
    )
    assert load(text).settings.providers["p"].username == user


def test_headers_are_merged_and_the_users_win_in_any_case(load: Load) -> None:
    provider = loaded(load, "postmark", variant="broadcast", headers={"X-Shop": "a"})
    assert provider.headers == {"X-Shop": "a", "X-PM-Message-Stream": "broadcast"}
    provider = loaded(load, "postmark", headers={"x-pm-message-stream": "mine"})
    assert provider.headers == {"x-pm-message-stream": "mine"}


def test_origins_name_the_preset(load: Load) -> None:
    text = config("preset: postmark", "password: env:KEY", "max_connections: 3")
    origins = load(text).origins
    assert {
        key: origins[f"providers.p.{key}"]
        for key in (
            *("preset", "host", "port", "username", "password", "max_connections"),
            *("headers.X-PM-Message-Stream", "rate"),
        )
    } == {
        "preset": "relaygw.yaml:4",
        "host": "preset postmark",
        "port": "preset postmark",
        "username": "preset postmark",
        "password": "relaygw.yaml:5",
        "max_connections": "relaygw.yaml:6",
        "headers.X-PM-Message-Stream": "preset postmark",
        "rate": "default",
    }


def test_a_preset_may_come_from_the_environment(load: Load) -> None:
    loaded = load(
        "mode: production\n" + ROUTE,
        {
            "RELAYGW__PROVIDERS__P__PRESET": "sendgrid",
            "RELAYGW__PROVIDERS__P__PASSWORD": "env:KEY",
            "RELAYGW__PROVIDERS__P__PORT": "2525",
        },
    )
    provider = loaded.settings.providers["p"]
    assert (provider.host, provider.port) == ("smtp.sendgrid.net", 2525)


GOOGLE = ("https://oauth2.googleapis.com/token", "https://mail.google.com/")
TENANT = "https://login.microsoftonline.com/T/oauth2/v2.0/token"
OFFICE = "https://outlook.office365.com/.default"


@pytest.mark.parametrize(
    ("name", "more", "where"),
    [
        ("gmail", "refresh_token: env:R", GOOGLE),
        ("workspace", "refresh_token: env:R", GOOGLE),
        ("microsoft365", f"client_secret: env:S, token_url: '{TENANT}'", (TENANT, OFFICE)),
        ("gmail", "refresh_token: env:R, scope: mine", (GOOGLE[0], "mine")),
    ],
)
def test_oauth_replaces_the_password(
    load: Load, name: str, more: str, where: tuple[str, str]
) -> None:
    text = config(f"preset: {name}", "username: a@b.test", f"oauth: {{client_id: c, {more}}}")
    provider = load(text).settings.providers["p"]
    assert provider.auth == "xoauth2"
    assert provider.oauth is not None
    assert (provider.oauth.token_url, provider.oauth.scope) == where


def test_without_oauth_the_login_is_by_password(load: Load) -> None:
    assert loaded(load, "gmail").auth == "auto"
    assert loaded(load, "gmail").oauth is None


def test_the_workspace_relay_works_by_address_alone(load: Load) -> None:
    provider = load(config("preset: workspace")).settings.providers["p"]
    assert (provider.username, provider.password) == (None, None)


ALL = ", ".join(NAMES)
MISTAKES = [
    (
        ["preset: sendgird"],
        f'4: providers.p.preset: "sendgird" is not one of {ALL}; write sendgrid',
    ),
    (
        ["preset: acme", "password: env:K"],
        f'4: providers.p.preset: "acme" is not one of {ALL}; write host and port for any other '
        "service",
    ),
    (
        ["preset: [ses]"],
        f"4: providers.p.preset: is not one of {ALL}; write host and port for any other service",
    ),
    (
        ["preset: ses", "username: u", "password: env:K"],
        "3: providers.p.region: is required with preset ses; write the AWS region of the account, "
        "e.g. us-east-1",
    ),
    (
        ["preset: ses", "region: mars"],
        '5: providers.p.region: "mars" is not a region of ses; write the AWS region of the '
        "account, e.g. us-east-1",
    ),
    (
        ["preset: mailgun", "region: EU"],
        '5: providers.p.region: "EU" is not one of us, eu; write eu',
    ),
    (
        ["preset: mailgun", "region: [us]"],
        "5: providers.p.region: is not one of us, eu; write one of them",
    ),
    (
        ["preset: sendgrid", "region: eu"],
        "5: providers.p.region: preset sendgrid has no regions; remove it",
    ),
    (
        ["preset: postmark", "variant: bulk"],
        '5: providers.p.variant: "bulk" is not one of transactional, broadcast; write one of them',
    ),
    (
        ["preset: brevo", "variant: x"],
        "5: providers.p.variant: preset brevo has no variants; remove it",
    ),
    (
        ["host: a.test", "region: eu"],
        "5: providers.p.region: needs a preset; remove it",
    ),
    (
        ["preset: sendgrid"],
        "3: providers.p.password: is required with preset sendgrid; write a reference to an API "
        "key that may send mail, e.g. env:SENDGRID_API_KEY",
    ),
    (
        ["preset: mailtrap", "variant: sandbox", "password: env:K"],
        "3: providers.p.username: is required with preset mailtrap; write the user name of the "
        "sandbox inbox, e.g. env:MAILTRAP_USER",
    ),
    (
        ["preset: workspace", "username: u@a.test"],
        "3: providers.p.password: is required with preset workspace; write a reference to an app "
        "password of that user, e.g. env:WORKSPACE_APP_PASSWORD",
    ),
    (
        ["preset: microsoft365", "username: u", "oauth: {client_id: c, client_secret: env:S}"],
        "6: providers.p.oauth.token_url: is required with preset microsoft365; write "
        "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token, with your tenant's id or "
        "domain for TENANT",
    ),
    (
        ["preset: gmail", "username: u", "oauth: {client_id: c, client_secret: env:S}"],
        "6: providers.p.oauth.refresh_token: is required with preset gmail; write a reference to "
        "the refresh token of the account, e.g. env:GMAIL_REFRESH_TOKEN",
    ),
    (
        ["preset: postmark", "password: 'env:1'"],
        "5: providers.p.password: the value (not shown) names no environment variable; write e.g. "
        "env:SMTP_PASSWORD",
    ),
    (
        ["preset: sendgrid", "password: env:K", "port: 25a"],
        '6: providers.p.port: "25a" is not an integer 1-65535; write e.g. 587',
    ),
    (
        ["preset: sendgrid", "password: env:K", "tls: none"],
        "6: providers.p.tls: none would send the password to smtp.sendgrid.net in clear text; "
        "write tls: required, or auth_without_tls: true on a trusted network",
    ),
]


@pytest.mark.parametrize(("lines", "told"), MISTAKES, ids=[told[:50] for _, told in MISTAKES])
def test_a_mistake_is_one_line_with_its_remedy(lines_of: Fail, lines: list[str], told: str) -> None:
    assert lines_of(config(*lines)) == [f"relaygw.yaml:{told}"]


def test_what_else_is_wrong_is_told_too(lines_of: Fail) -> None:
    lines = lines_of(config("preset: acme", "port: x", "colour: red") + "retry: {first: 5}\n")
    assert [line.split(": ")[1] for line in lines] == [
        *("providers.p.preset", "providers.p.port", "providers.p.colour", "retry.first")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_password_in_clear_is_refused_and_shown_nowhere(lines_of: Fail, name: str) -> None:
    lines = lines_of(config(*written(name, password=CANARY)))
    assert any("is not a secret reference" in line for line in lines)
    assert CANARY not in "\n".join(lines)


def test_secrets_of_oauth_need_a_private_file(load: Load, lines_of: Fail, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("x")
    key.chmod(0o644)
    text = config(
        "preset: gmail",
        "username: a@b.test",
        f"oauth: {{client_id: c, refresh_token: 'file:{key}'}}",
    )
    [line] = lines_of(text)
    assert line.startswith(f"relaygw.yaml:6: providers.p.oauth.refresh_token: file:{key}: everyone")
    key.chmod(0o600)
    assert load(text).settings.providers["p"].oauth is not None
