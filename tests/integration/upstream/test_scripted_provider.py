"""The provider that other tests rely on, driven by the standard library's client."""

from __future__ import annotations

import smtplib
import ssl

import pytest

from tests.fakes.scripted_provider import Action, ThreadedProvider
from tests.tables import each_of

CONTENT = b"Subject: x\r\n\r\n.dot\r\n.\r\n..\r\n"


@each_of("tls", [None, "starttls", "implicit"])
@each_of("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_takes_mail_from_a_blocking_client(tls: str | None, mechanism: str) -> None:
    with ThreadedProvider(tls=tls, users={"shop": "s3cret"}, auth=[mechanism]) as provider:
        context = ssl.create_default_context(cafile=provider.tls_ca) if tls else None
        if tls == "implicit":
            client = smtplib.SMTP_SSL(
                provider.host, provider.port, context=context, local_hostname="client.test"
            )
        else:
            client = smtplib.SMTP(provider.host, provider.port, local_hostname="client.test")
        with client:
            if tls == "starttls":
                client.starttls(context=context)
            client.login("shop", "s3cret")
            client.sendmail("a@x.test", ["b@y.test", "c@y.test"], CONTENT, ["BODY=8BITMIME"])
        provider.wait_for_messages(1)
        (message,) = provider.messages
        assert (message.sender, message.recipients) == ("a@x.test", ("b@y.test", "c@y.test"))
        assert message.content == CONTENT
        assert (message.user, message.is_tls) == ("shop", tls is not None)
        assert "BODY=8BITMIME" in message.mail_parameters


def test_follows_its_script_in_order() -> None:
    with ThreadedProvider() as provider:
        provider.script("MAIL", b"450 4.2.1 later\r\n", Action.DEFAULT, b"550 5.7.1 no\r\n")
        provider.recipients["b@y.test"] = b"550 5.1.1 no\r\n"
        with smtplib.SMTP(provider.host, provider.port, local_hostname="client.test") as client:
            client.ehlo()
            assert client.mail("a@x.test")[0] == 450
            assert client.mail("a@x.test")[0] == 250
            assert client.rcpt("b@y.test")[0] == 550
            assert client.rcpt("c@y.test")[0] == 250
            client.rset()
            assert client.mail("a@x.test")[0] == 550
        assert provider.connections[0].verbs().count("MAIL") == 3


@pytest.mark.parametrize("action", [Action.DROP, Action.RESET])
def test_takes_mail_and_never_says_so(action: Action) -> None:
    with ThreadedProvider() as provider:
        provider.script("CONTENT", (Action.RECORD, action))
        client = smtplib.SMTP(provider.host, provider.port, local_hostname="client.test")
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
            client.sendmail("a@x.test", ["b@y.test"], CONTENT)
        client.close()
        provider.wait_for_messages(1)
