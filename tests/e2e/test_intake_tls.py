"""TLS on the way in: real clients verify it, files may change, and what is weak is refused."""

from __future__ import annotations

import os
import re
import smtplib
import ssl
import subprocess
import warnings
from pathlib import Path

import pytest
import trustme

from tests.e2e.doors import (
    NOBODY,
    PASSWORD,
    assert_no_password,
    make_pair,
    open_door,
    queue_id,
    send,
    starttls,
    turn_to_tls,
    user,
)
from tests.e2e.gateway import PATIENCE_S, Gateway

CLIENTS = Path(__file__).parent / "clients"


def served_certificate(gateway: Gateway) -> bytes | None:
    """Return the certificate of a new connection, whoever vouches for it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with gateway.connect() as client:
        starttls(client, context)
        assert isinstance(client.socket, ssl.SSLSocket)
        return client.socket.getpeercert(binary_form=True)


def test_without_a_certificate_nothing_is_offered(tmp_path: Path) -> None:
    with open_door(tmp_path, {}) as (gateway, _), gateway.connect() as client:
        assert "STARTTLS" not in client.command(b"EHLO c.test")
        assert client.command(b"STARTTLS").startswith("502 5.5.1")


@pytest.mark.parametrize("script", ["phpmailer_smtp.php", "symfony_smtp.php"])
def test_php_mailers_verify_and_log_in(tmp_path: Path, script: str) -> None:
    pair = make_pair(tmp_path)
    listener = {"allow": NOBODY, "tls": pair.tls("starttls")}
    with open_door(tmp_path, listener, users=[user()]) as (gateway, provider):
        command = ["php", "-d", f"openssl.cafile={pair.ca}", str(CLIENTS / script)]
        done = subprocess.run(
            [*command, str(gateway.smtp_port), "a@shop1.test", "b@cust.test"],
            env={**os.environ, "SMTP_USER": "shop1", "SMTP_PASSWORD": PASSWORD},
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        provider.wait_for_messages(1)
        assert b" with ESMTPSA id " in provider.messages[0].content
        assert gateway.entry(done.stdout.strip()).source.user == "shop1"
        assert_no_password(tmp_path, gateway)


@pytest.mark.parametrize("script", ["phpmailer_smtp.php", "symfony_smtp.php"])
def test_php_mailers_stay_away_from_a_stranger(tmp_path: Path, script: str) -> None:
    """Why a certificate must be right before STARTTLS is offered: these clients insist."""
    pair = make_pair(tmp_path)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with open_door(tmp_path, {"tls": pair.tls("starttls")}) as (gateway, _):
        command = ["php", "-d", f"openssl.cafile={other}", str(CLIENTS / script)]
        done = subprocess.run(
            [*command, str(gateway.smtp_port), "a@shop1.test", "b@cust.test"],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        gateway.wait_for_log(r"warning: TLS: \S*UNKNOWN_CA from unknown\[127\.0\.0\.1\]")


def test_implicit_tls(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    with (
        open_door(tmp_path, {"tls": pair.tls("implicit")}, users=[user()]) as (gateway, _),
        smtplib.SMTP_SSL(
            "127.0.0.1",
            gateway.smtp_port,
            local_hostname="client.test",
            timeout=PATIENCE_S,
            context=pair.client_context,
        ) as client,
    ):
        client.ehlo("c.test")
        assert not client.has_extn("starttls")
        client.login("shop1", PASSWORD)
        client.sendmail("a@shop1.test", ["b@cust.test"], b"Subject: x\r\n\r\nhello\r\n")


def test_large_content_comes_whole_through_tls(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    body = b"".join(b"%07d\r\n" % number for number in range(600_000))
    with open_door(tmp_path, {"tls": pair.tls("starttls")}) as (gateway, provider):
        with gateway.connect() as client:
            starttls(client, pair.client_context)
            for command in (b"MAIL FROM:<a@shop1.test>", b"RCPT TO:<b@cust.test>", b"DATA"):
                client.command(command)
            client.send(b"Subject: x\r\n\r\n" + body + b".\r\nNOOP\r\n")
            queue_id(client.read_reply())
            assert client.read_reply().startswith("250 ")
        provider.wait_for_messages(1)
        assert provider.messages[0].content.endswith(body)


def test_a_client_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    listener = {"tls": pair.tls("starttls"), "max_connections": 3}
    with open_door(tmp_path, listener) as (gateway, _):
        for _ in range(3):
            with gateway.connect() as client:
                client.command(b"EHLO c.test")
                client.command(b"STARTTLS")
            with gateway.connect() as client:
                starttls(client, pair.client_context)
                client.send(b"NOOP\r\n")

        def is_free() -> bool:
            with gateway.connect() as client:
                return client.greeting.startswith("220 ")

        gateway.wait_until(is_free, "room for a client")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_that_are_spoken(tmp_path: Path, version: ssl.TLSVersion) -> None:
    pair = make_pair(tmp_path)
    context = pair.client_context
    context.minimum_version = context.maximum_version = version
    with (
        open_door(tmp_path, {"tls": pair.tls("starttls")}) as (gateway, _),
        gateway.connect() as client,
    ):
        starttls(client, context)
        queue_id(send(client))


def test_an_old_version_is_refused(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    context = pair.client_context
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        open_door(tmp_path, {"tls": pair.tls("starttls")}) as (gateway, _),
        gateway.connect() as client,
    ):
        client.command(b"EHLO c.test")
        client.command(b"STARTTLS")
        with pytest.raises(ssl.SSLError):
            turn_to_tls(client, context)


def test_a_new_certificate_is_used_and_a_broken_one_is_not(tmp_path: Path) -> None:
    ca = trustme.CA()
    pair = make_pair(tmp_path, ca=ca)
    with open_door(tmp_path, {"tls": pair.tls("starttls")}) as (gateway, _):
        first = served_certificate(gateway)
        pair.key.write_text("rubbish")
        _look_until(gateway, r"error: listener \S+: .*; the old one is kept$")
        assert served_certificate(gateway) == first
        make_pair(tmp_path, ca=ca)
        _look_until(gateway, r"listener \S+: new certificate ")
        second = served_certificate(gateway)
        assert second != first
        with gateway.connect() as client:
            starttls(client, pair.client_context)
            queue_id(send(client))


def _look_until(gateway: Gateway, pattern: str) -> None:
    """The files are looked at when somebody asks, at most each few seconds."""

    def is_told() -> bool:
        with gateway.connect() as client:
            client.command(b"EHLO c.test")
        return any(re.search(pattern, line) for line in gateway.lines)

    gateway.wait_until(is_told, pattern)


def test_a_pair_that_does_not_fit_is_told_at_a_reload(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    stranger = make_pair(other)
    with open_door(tmp_path, {"tls": pair.tls("starttls")}) as (gateway, _):
        tls = {**pair.tls("starttls"), "key": str(stranger.key)}
        gateway.settings["listeners"][0]["tls"] = tls
        start = gateway.reload()
        gateway.wait_for_log(
            r"reload refused, the old settings stay: .*listeners\.0\.tls: \S+ is not the key of "
            r"\S+; "
            r"write a matching pair",
            start=start,
        )
        served_certificate(gateway)
